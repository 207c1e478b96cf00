//! What the edges may ask of the rest: to accept an event, and to look something up.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::act::ActOutcome;
use crate::event::{Delivery, NewEvent};
use crate::id::IncidentId;

/// Stores events. A return of `Ok` means that they survive `kill -9` and power loss.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Stores a delivery in one transaction, shared with whoever else is waiting.
    ///
    /// # Errors
    /// [`InboxError`]; nothing was stored.
    async fn accept(&self, delivery: Delivery) -> Result<Accepted, InboxError>;

    /// Whether a delivery of so many events is better brought sealed now: its body alone, because it will not be looked into yet.
    fn wants_sealed(&self, _events: usize) -> bool {
        false
    }

    /// Stores a sealed delivery, as [`Inbox::accept`]. Only where [`Inbox::wants_sealed`] said so just now.
    ///
    /// # Errors
    /// [`InboxError`]; nothing was stored.
    async fn accept_sealed(&self, _sealed: Sealed) -> Result<Accepted, InboxError> {
        Err(InboxError::Unavailable("this inbox takes no sealed deliveries".to_owned()))
    }

    /// What became of an act, waiting at most `wait` for it.
    ///
    /// # Errors
    /// If the store cannot be asked.
    async fn outcome(&self, seq: i64, wait: std::time::Duration) -> Result<Option<ActOutcome>, InboxError>;
}

/// A delivery whose events an [`Opener`] finds in its body when it is their turn. Whoever brings it has read it before, so that bad input is refused.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The configured source, and the kind of it that reads the body.
    pub source: String,
    /// See `source`.
    pub kind: &'static str,
    /// What its sender calls it, the same over its retries, if it does.
    pub id: Option<String>,
    /// How many events it holds.
    pub events: usize,
    /// The body as received.
    pub raw: Bytes,
    /// When the edge received it.
    pub received_at: Timestamp,
}

/// Finds the events of sealed deliveries.
pub trait Opener: Send + Sync {
    /// The events of a delivery; the arguments are [`Sealed`]'s, but that `id` names any delivery uniquely.
    ///
    /// # Errors
    /// Says why the body cannot be read, for whoever looks at the sample that is kept then.
    fn open(&self, source: &str, kind: &str, id: &str, received_at: Timestamp, raw: &[u8]) -> Result<Vec<NewEvent>, String>;
}

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The events' places in the inbox, in the delivery's order; of a repeat, the first one's. Empty if the delivery is opened later: never an act's.
    pub seqs: Vec<i64>,
    /// How many of them had been heard before; `None` if the delivery is opened later.
    pub repeats: Option<u32>,
}

/// Why nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboxError {
    /// Too much at once: answer 503.
    #[error("too much at once: try again")]
    Overloaded,
    /// The store cannot be reached or written: answer 503.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

/// Read-only questions that an edge may answer by itself, without an event.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Open incidents whose number or title begins with `prefix`, newest first: for autocomplete.
    ///
    /// # Errors
    /// If the store cannot be asked.
    async fn incidents(&self, prefix: &str, limit: usize) -> Result<Vec<Choice>, InboxError>;

    /// The incident of a number, whatever its state: people name incidents by number.
    ///
    /// # Errors
    /// If the store cannot be asked.
    async fn incident_id(&self, number: i64) -> Result<Option<IncidentId>, InboxError>;

    /// Runbooks whose name begins with `prefix`.
    fn runbooks(&self, prefix: &str, limit: usize) -> Vec<Choice>;
}

/// One entry of an option list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What the person sees. Untrusted.
    pub label: String,
    /// What comes back.
    pub value: String,
}

/// A platform's own HTTP routes, free of any web framework: `server` hands them to the gateway to mount.
#[async_trait]
pub trait HttpInbound: Send + Sync {
    /// The POST paths that it serves, e.g. `/slack/interactions`.
    fn paths(&self) -> Vec<&'static str>;

    /// Answers one request. The body is at most 1 MiB and is as received.
    async fn handle(&self, request: HttpRequest) -> HttpResponse;
}

/// An HTTP request as bytes.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// The path that was asked for.
    pub path: String,
    /// Header names in lower case, and values that are text.
    pub headers: Vec<(String, String)>,
    /// As received.
    pub body: Bytes,
}

impl HttpRequest {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// An HTTP answer as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Content type of the body.
    pub content_type: &'static str,
    /// Body.
    pub body: Bytes,
}

impl HttpResponse {
    /// An empty answer.
    pub fn empty(status: u16) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: Bytes::new() }
    }

    /// A JSON answer.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { status, content_type: "application/json", body: Bytes::from(body.to_string()) }
    }

    /// A text answer.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: Bytes::from(body.into()) }
    }
}
