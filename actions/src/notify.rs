//! `notify`: a message to a configured channel. It is an obligation of the worker once this returns.

use std::sync::Arc;

use async_trait::async_trait;
use domain::action::{Action, ActionCx, ActionError, ActionOutput, Effect, Risk};
use domain::plan::Target;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Tools, params};

/// The longest message, in bytes: every platform takes it as one.
const MAX_TEXT: usize = 4000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// The channel's name in the configuration.
    channel: String,
    /// What to say. Mentions and markup in it are shown, not acted on.
    text: String,
}

struct Notify(Arc<Tools>);

pub(crate) fn action(tools: Arc<Tools>) -> Box<dyn Action> {
    Box::new(Notify(tools))
}

#[async_trait]
impl Action for Notify {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn about(&self) -> &'static str {
        "Posts a message to a configured channel."
    }

    fn schema(&self) -> Schema {
        schema_for!(With)
    }

    fn risk(&self) -> Risk {
        Risk::Reversible
    }

    /// A repeat tells people twice, which is better than asking them whether they were told.
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn check(&self, with: &Value, _: Option<&Target>) -> Result<(), String> {
        message(with).map(drop)
    }

    async fn run(&self, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        let with = message(with).map_err(ActionError::Refused)?;
        cx.host.notify(&with.channel, &self.0.redact(&with.text)).await.map_err(ActionError::Failed)?;
        Ok(ActionOutput {
            summary: format!("will be posted to {}", with.channel),
            data: json!({ "channel": with.channel }),
            text: String::new(),
        })
    }
}

fn message(with: &Value) -> Result<With, String> {
    let with: With = params::read(with)?;
    if with.channel.is_empty() || with.text.trim().is_empty() {
        return Err("`channel` and `text` must not be empty".to_owned());
    }
    if with.text.len() > MAX_TEXT {
        return Err(format!("`text`: longer than {MAX_TEXT} bytes"));
    }
    Ok(with)
}
