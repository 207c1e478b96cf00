//! Everything the fake remembers.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::super::fault::Faults;
use super::super::limit::Limits;
use super::errors::Refusal;
use super::interaction::Record;
use super::session::Session;
use super::{Channel, Config, Message, User};

/// One call of the HTTP API.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method and route with `:` for every variable part.
    pub operation: String,
    /// The path as called.
    pub path: String,
    /// The JSON body, null where there was none.
    pub body: Value,
    /// The HTTP status answered; 0 where the connection was closed instead.
    pub status: u16,
    /// Code and message of a refusal by Discord's own rules.
    pub error: Option<String>,
    /// When it came, by Discord's clock.
    pub at: Timestamp,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) gateway_at: Option<SocketAddr>,
    pub(super) users: Vec<User>,
    pub(super) channels: Vec<Channel>,
    pub(super) messages: Vec<Message>,
    pub(super) interactions: Vec<Record>,
    pub(super) commands: Vec<Value>,
    pub(super) sessions: Vec<Session>,
    /// Messages not created because their enforced nonce was known.
    pub(super) deduplicated: usize,
    pub(super) calls: Vec<Seen>,
    pub(super) faults: Faults,
    pub(super) limits: Limits,
    last_id: i64,
}

/// Discord's epoch: the first second of 2015, in milliseconds.
const EPOCH: i64 = 1_420_070_400_000;

impl State {
    pub(super) fn new(config: &Config) -> Self {
        Self { users: config.users.clone(), channels: config.channels.clone(), ..Self::default() }
    }

    /// A fresh snowflake: the time in its upper bits, unique and rising.
    pub(super) fn next_id(&mut self, now: Timestamp) -> String {
        self.last_id = ((now.as_millisecond() - EPOCH) << 22).max(self.last_id + 1);
        self.last_id.to_string()
    }

    /// The channel or thread, if the bot may use it.
    pub(super) fn channel(&self, id: &str) -> Result<&Channel, Refusal> {
        match self.channels.iter().find(|channel| channel.id == id) {
            None => Err(Refusal::unknown(10_003, "Channel")),
            Some(channel) if !channel.accessible => Err(Refusal::new(403, 50_001, "Missing Access")),
            Some(channel) => Ok(channel),
        }
    }

    pub(super) fn user(&self, id: &str) -> anyhow::Result<&User> {
        self.users.iter().find(|user| user.id == id).ok_or_else(|| anyhow::anyhow!("there is no user {id} in this Discord"))
    }

    /// The channel's message of that id; ephemeral ones do not exist for the bot's own routes.
    pub(super) fn message(&mut self, channel: &str, id: &str) -> Result<&mut Message, Refusal> {
        let found = self
            .messages
            .iter_mut()
            .find(|message| message.channel == channel && message.id == id && message.only_for.is_none() && !message.deleted);
        found.ok_or_else(|| Refusal::unknown(10_008, "Message"))
    }

    /// Any message, ephemeral ones included.
    pub(super) fn any_message(&mut self, id: &str) -> Option<&mut Message> {
        self.messages.iter_mut().find(|message| message.id == id && !message.deleted)
    }
}
