//! What Slack sends, as far as it matters here (docs.slack.dev, "Interaction payloads"). Lenient: whatever else there is, a press counts.

use std::collections::HashMap;

use domain::act::Place;
use serde::Deserialize;

/// A pressed button, or a submitted dialog.
#[derive(Debug, Deserialize)]
pub(super) struct Interaction {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) user: User,
    pub(super) team: Option<Named>,
    pub(super) trigger_id: Option<String>,
    pub(super) response_url: Option<String>,
    #[serde(default)]
    pub(super) actions: Vec<Action>,
    pub(super) view: Option<View>,
    container: Option<Container>,
    channel: Option<Named>,
}

/// Who acts.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    /// Payloads carry `name` beside it, with the same text.
    pub(super) username: Option<String>,
    pub(super) team_id: Option<String>,
}

/// Something with an id.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) id: String,
}

/// One element that was used.
#[derive(Debug, Deserialize)]
pub(super) struct Action {
    #[serde(default)]
    pub(super) value: String,
    #[serde(default)]
    pub(super) action_ts: String,
}

/// A submitted dialog.
#[derive(Debug, Deserialize)]
pub(super) struct View {
    pub(super) id: String,
    #[serde(default)]
    pub(super) callback_id: String,
    #[serde(default)]
    pub(super) private_metadata: String,
    #[serde(default)]
    state: State,
}

#[derive(Debug, Deserialize)]
struct Container {
    channel_id: Option<String>,
    message_ts: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct State {
    #[serde(default)]
    values: HashMap<String, HashMap<String, Field>>,
}

#[derive(Debug, Deserialize)]
struct Field {
    value: Option<String>,
}

impl Interaction {
    /// The message that holds the pressed button.
    pub(super) fn place(&self) -> Option<Place> {
        let container = self.container.as_ref()?;
        let channel = container.channel_id.clone().or_else(|| self.channel.as_ref().map(|channel| channel.id.clone()))?;
        Some(Place { channel, message: container.message_ts.clone()? })
    }
}

impl View {
    /// What was typed into the field of this name.
    pub(super) fn typed(&self, name: &str) -> &str {
        let field = self.state.values.get(name).and_then(|elements| elements.get(name));
        field.and_then(|field| field.value.as_deref()).unwrap_or_default().trim()
    }
}
