//! Everything the fake remembers.

use std::collections::HashMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::super::fault::Faults;
use super::super::limit::Limits;
use super::args::Refusal;
use super::response_url::ResponseUrl;
use super::socket::Socket;
use super::view::View;
use super::{Channel, Config, Message, User};

/// One call of the Web API or of a `response_url`.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method, or `response_url`.
    pub method: String,
    /// The arguments as JSON, the token left out.
    pub args: Value,
    /// The HTTP status answered, as far as the caller saw one.
    pub status: u16,
    /// The error of a refusal by Slack's own rules, with its details.
    pub error: Option<String>,
    /// When it came, by Slack's clock.
    pub at: Timestamp,
}

/// A short-lived permission to open a modal.
pub(super) struct Trigger {
    pub(super) user: String,
    pub(super) made: Timestamp,
    pub(super) used: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) http: Option<SocketAddr>,
    pub(super) sockets_at: Option<SocketAddr>,
    pub(super) users: Vec<User>,
    pub(super) channels: Vec<Channel>,
    pub(super) messages: Vec<Message>,
    pub(super) views: Vec<View>,
    pub(super) triggers: HashMap<String, Trigger>,
    pub(super) response_urls: HashMap<String, ResponseUrl>,
    pub(super) sockets: Vec<Socket>,
    pub(super) sockets_opened: usize,
    pub(super) tickets: Vec<String>,
    pub(super) calls: Vec<Seen>,
    pub(super) faults: Faults,
    pub(super) limits: Limits,
    last_ts: i64,
    last_id: u64,
}

impl State {
    pub(super) fn new(config: &Config) -> Self {
        Self { users: config.users.clone(), channels: config.channels.clone(), ..Self::default() }
    }

    /// A fresh message timestamp: Slack's id of a message, unique and rising.
    pub(super) fn next_ts(&mut self, now: Timestamp) -> String {
        self.last_ts = now.as_microsecond().max(self.last_ts + 1);
        format!("{}.{:06}", self.last_ts / 1_000_000, self.last_ts % 1_000_000)
    }

    /// A fresh number for ids of other things.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The channel as the bot may see it.
    pub(super) fn channel(&self, id: &str) -> Result<&Channel, Refusal> {
        self.channels.iter().find(|channel| channel.id == id).ok_or_else(|| Refusal::new("channel_not_found"))
    }

    pub(super) fn user(&self, id: &str) -> anyhow::Result<&User> {
        self.users.iter().find(|user| user.id == id).ok_or_else(|| anyhow::anyhow!("there is no user {id} in this Slack"))
    }

    /// The channel's message of that timestamp, ephemeral ones left out as the API does.
    pub(super) fn message(&mut self, channel: &str, ts: &str) -> Option<&mut Message> {
        self.messages
            .iter_mut()
            .find(|message| message.channel == channel && message.ts == ts && message.only_for.is_none() && !message.deleted)
    }

    /// A trigger that `user` may open a modal with during the next three seconds.
    pub(super) fn trigger(&mut self, user: &str, now: Timestamp) -> String {
        let id = format!("{}.{}.{:032x}", now.as_microsecond(), self.next_id(), 0xfa6e_u64 ^ self.last_id);
        self.triggers.insert(id.clone(), Trigger { user: user.to_owned(), made: now, used: false });
        id
    }
}
