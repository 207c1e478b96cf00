//! One interaction: what was asked, how the product answered, and what followed.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::super::json::{items, string};
use super::state::State;
use super::{FakeDiscord, Message};

/// The types of interaction.
pub(super) const PING: u64 = 1;
pub(super) const COMMAND: u64 = 2;
pub(super) const COMPONENT: u64 = 3;
pub(super) const AUTOCOMPLETE: u64 = 4;
pub(super) const MODAL_SUBMIT: u64 = 5;

/// What the fake keeps of an interaction.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) kind: u64,
    pub(super) user: String,
    pub(super) channel: String,
    /// The message of the pressed component.
    pub(super) source: Option<String>,
    pub(super) made: Timestamp,
    /// Sent over HTTP and not answered yet.
    pub(super) in_flight: bool,
    pub(super) response: Option<Value>,
    /// The message that `@original` means.
    pub(super) original: Option<String>,
}

/// An interaction that the product has been sent.
#[derive(Clone)]
pub struct Interaction {
    pub(super) discord: FakeDiscord,
    /// Its snowflake.
    pub id: String,
    /// The token for follow-ups, good for 15 minutes.
    pub token: String,
}

/// A modal on somebody's screen.
#[derive(Clone, Debug)]
pub struct Modal {
    /// The interaction that opened it.
    pub interaction: String,
    /// What it carries.
    pub custom_id: String,
    /// The title.
    pub title: String,
    /// Label, custom id and whether it must be filled, in order.
    pub inputs: Vec<(String, String, bool)>,
    pub(super) data: Value,
    pub(super) source: Option<String>,
}

impl Interaction {
    /// The first answer: `{"type": …, "data": …}`.
    pub fn response(&self) -> Option<Value> {
        self.record(|record| record.response.clone()).flatten()
    }

    /// The type of the first answer: 4 message, 5 thinking, 6 seen, 7 update, 8 completions, 9 modal.
    pub fn response_type(&self) -> Option<u64> {
        self.response().and_then(|response| response["type"].as_u64())
    }

    /// The message that `@original` means by now, if there is one.
    pub fn original(&self) -> Option<Message> {
        let id = self.record(|record| record.original.clone()).flatten()?;
        self.discord.core.state.look(|state| state.any_message(&id).map(super::watch::read))
    }

    /// The messages that followed the first answer by the interaction's token, in order; a deferred answer that was filled in is one of them.
    pub fn followups(&self) -> Vec<Message> {
        self.discord.core.state.look(|state| {
            let mine = |message: &&mut Message| message.interaction.as_ref() == Some(&self.id) && !message.deleted;
            state.messages.iter_mut().filter(mine).map(super::watch::read).collect()
        })
    }

    /// Waits for a message that the interaction brought forth: the first answer's, a filled deferred one, or a follow-up.
    ///
    /// # Errors
    /// If none comes within `within`.
    pub async fn wait_for_followup(&self, test: impl Fn(&Message) -> bool, within: Duration) -> anyhow::Result<Message> {
        let mine = |message: &Message| message.interaction.as_ref() == Some(&self.id);
        self.discord.wait(|message| mine(message) && test(message), mine, within).await
    }

    /// The modal that it opened.
    pub fn modal(&self) -> Option<Modal> {
        let record = self.record(Record::clone)?;
        let response = record.response?;
        let data = response["data"].clone();
        (response["type"] == 9).then(|| Modal {
            interaction: record.id,
            custom_id: string(&data["custom_id"]),
            title: string(&data["title"]),
            inputs: inputs(&data)
                .into_iter()
                .map(|input| (string(&input["label"]), string(&input["custom_id"]), input["required"] != false))
                .collect(),
            data,
            source: record.source,
        })
    }

    /// What was offered for completion, as names and values.
    pub fn choices(&self) -> Vec<(String, Value)> {
        let response = self.response().unwrap_or_default();
        items(&response["data"]["choices"]).iter().map(|choice| (string(&choice["name"]), choice["value"].clone())).collect()
    }

    fn record<T>(&self, take: impl FnOnce(&Record) -> T) -> Option<T> {
        self.discord.core.state.look(|state: &mut State| state.interactions.iter().find(|record| record.id == self.id).map(take))
    }
}

/// The text inputs of a modal.
pub(super) fn inputs(data: &Value) -> Vec<&Value> {
    items(&data["components"]).iter().flat_map(|row| items(&row["components"])).collect()
}
