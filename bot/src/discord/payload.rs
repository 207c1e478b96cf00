//! What Discord sends, as far as it matters here (its documentation, "Interaction Object"). Lenient: whatever else there is, a press counts.

use serde::Deserialize;
use serde_json::Value;

/// A ping, a command, a press, a half-typed option or a submitted dialog.
#[derive(Debug, Deserialize)]
pub(super) struct Interaction {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: u8,
    pub(super) token: String,
    pub(super) guild_id: Option<String>,
    pub(super) channel_id: Option<String>,
    #[serde(default)]
    pub(super) data: Data,
    pub(super) message: Option<Named>,
    member: Option<Member>,
    user: Option<User>,
}

/// Kinds of interaction.
pub(super) mod kind {
    pub(crate) const PING: u8 = 1;
    pub(crate) const COMMAND: u8 = 2;
    pub(crate) const COMPONENT: u8 = 3;
    pub(crate) const AUTOCOMPLETE: u8 = 4;
    pub(crate) const MODAL: u8 = 5;
}

/// What was used: a command by name, anything else by its `custom_id`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Data {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) custom_id: String,
    #[serde(default)]
    pub(super) options: Vec<Given>,
    #[serde(default)]
    components: Vec<Row>,
}

/// A sub-command, or an option of one.
#[derive(Debug, Deserialize)]
pub(super) struct Given {
    pub(super) name: String,
    #[serde(default)]
    pub(super) value: Value,
    #[serde(default)]
    pub(super) focused: bool,
    #[serde(default)]
    pub(super) options: Vec<Given>,
}

/// Something with an id.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) id: String,
}

/// Who acts.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    #[serde(default)]
    pub(super) username: String,
    #[serde(default)]
    pub(super) bot: bool,
}

#[derive(Debug, Deserialize)]
struct Member {
    user: Option<User>,
}

#[derive(Debug, Deserialize)]
struct Row {
    #[serde(default)]
    components: Vec<Typed>,
}

#[derive(Debug, Deserialize)]
struct Typed {
    #[serde(default)]
    custom_id: String,
    #[serde(default)]
    value: Value,
}

impl Interaction {
    /// The person: a member on a server, a mere user in a private conversation.
    pub(super) fn person(&self) -> Option<&User> {
        self.member.as_ref().and_then(|member| member.user.as_ref()).or(self.user.as_ref())
    }
}

impl Data {
    /// What was typed into the dialog's field of this name.
    pub(super) fn typed(&self, name: &str) -> &str {
        let field = self.components.iter().flat_map(|row| &row.components).find(|field| field.custom_id == name);
        field.and_then(|field| field.value.as_str()).unwrap_or_default().trim()
    }
}

impl Given {
    /// The value as a person would have typed it.
    pub(super) fn text(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }
}
