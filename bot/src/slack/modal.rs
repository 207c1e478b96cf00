//! The dialog that asks why: why a run is denied, how somebody knows what became of a step.

use domain::act::Place;
use domain::card::ButtonKind;
use domain::chat::ChatError;
use serde::{Deserialize, Serialize};
use slack_morphism::api::SlackApiViewsOpenRequest;
use slack_morphism::blocks::{SlackBlockPlainTextInputElement, SlackInputBlock, SlackModalView, SlackView};

use super::Slack;
use super::api::Again;

/// Names the dialog in what Slack sends when it is submitted.
pub(super) const WHY: &str = "why";
/// The one field's block and element.
pub(super) const REASON: &str = "reason";
/// Longest reason that the dialog takes.
const LONGEST: u64 = 1_000;

/// What the dialog carries from the press to the submission; Slack shows it to nobody and sends it back signed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Carried {
    /// The button's token.
    pub(super) token: String,
    /// Where it was pressed.
    pub(super) place: Option<Place>,
    /// Where the person can be answered.
    pub(super) answer: Option<String>,
}

#[derive(Deserialize)]
struct Opened {}

impl Slack {
    /// Opens the dialog; Slack allows it within three seconds of the press.
    pub(super) async fn ask_reason(&self, trigger: &str, kind: ButtonKind, carried: &Carried) -> Result<(), ChatError> {
        let metadata = serde_json::to_string(carried).map_err(|error| ChatError::Refused(error.to_string()))?;
        let input = SlackBlockPlainTextInputElement::new().with_action_id(REASON.into()).with_multiline(true).with_max_length(LONGEST);
        let field = SlackInputBlock::new(kind.asks().into(), input.into()).with_block_id(REASON.into());
        let view = SlackModalView::new(kind.question().into(), vec![field.into()]);
        let word = if kind == ButtonKind::Deny { "Deny" } else { "Say so" };
        let view = view.with_submit(word.into()).with_close("Cancel".into()).with_private_metadata(metadata).with_callback_id(WHY.into());
        let request = SlackApiViewsOpenRequest::new(trigger.into(), SlackView::Modal(view));
        self.api.post::<Opened>("views.open", &request, Again::Same).await.map(drop)
    }
}
