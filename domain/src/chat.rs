//! The contract of a chat platform, outbound. Inbound is an event like any other.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::act::{ActOutcome, Place, ReplyTo};
use crate::card::{Card, Message};

/// What a platform can do; cards degrade to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Messages can be edited.
    pub edit: bool,
    /// Messages can have buttons.
    pub buttons: bool,
    /// Messages can have threads.
    pub threads: bool,
    /// A person can be answered in private.
    pub ephemeral: bool,
    /// A repeated post with the same key is dropped by the platform.
    pub keyed_posts: bool,
}

/// How often a platform may be called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Calls at once after a quiet time.
    pub burst: f64,
    /// Calls a second afterwards.
    pub per_second: f64,
}

impl Default for Budget {
    /// What Slack (about one post a second and channel, fifty updates a minute and workspace) and Discord (five messages in five seconds and
    /// channel) both bear.
    fn default() -> Self {
        Self { burst: 10.0, per_second: 0.8 }
    }
}

/// A call that posts, drawn and not made.
pub type Posting<'a> = Pin<Box<dyn Future<Output = Result<Place, ChatError>> + Send + 'a>>;

/// A chat platform. One folder in `bot/src/`, one line in its `platforms!` list.
#[async_trait]
pub trait Chat: Send + Sync {
    /// Its name in the configuration: `slack`, `discord`.
    fn platform(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// How often it may be called.
    fn budget(&self) -> Budget {
        Budget::default()
    }

    /// Draws a card, and posts it when it is awaited: nobody hears of it before. `delivery` is unique to this post, for platforms that drop repeats.
    fn post_card<'a>(&'a self, channel: &str, card: &Card, delivery: &str) -> Posting<'a>;

    /// Replaces a card by its newest state.
    ///
    /// # Errors
    /// See [`ChatError`].
    async fn update_card(&self, at: &Place, card: &Card) -> Result<(), ChatError>;

    /// Posts into a card's thread.
    ///
    /// # Errors
    /// See [`ChatError`].
    async fn post_thread(&self, at: &Place, message: &Message, delivery: &str) -> Result<(), ChatError>;

    /// Posts a plain message into a channel.
    ///
    /// # Errors
    /// See [`ChatError`].
    async fn post_message(&self, channel: &str, message: &Message, delivery: &str) -> Result<Place, ChatError>;

    /// Answers a person in private.
    ///
    /// # Errors
    /// See [`ChatError`].
    async fn reply(&self, to: &ReplyTo, outcome: &ActOutcome) -> Result<(), ChatError>;

    /// Looks for the post of `delivery` in a channel, after a post of it ended as [`ChatError::Ambiguous`]. `None` where there is none,
    /// and on platforms that drop repeats by themselves ([`Capabilities::keyed_posts`]): post again.
    ///
    /// # Errors
    /// See [`ChatError`]; until it is answered, nobody may post again.
    async fn find_post(&self, channel: &str, delivery: &str) -> Result<Option<Place>, ChatError> {
        let _ = (channel, delivery);
        Ok(None)
    }

    /// Whether the platform can be reached with the configured token: for `/readyz` and `doctor`.
    ///
    /// # Errors
    /// Says what to do.
    async fn probe(&self) -> Result<String, ChatError>;
}

/// How a call to a platform failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// Not now: again after this long.
    #[error("{platform} says to wait {after:?}")]
    Wait {
        /// Which platform.
        platform: &'static str,
        /// How long.
        after: Duration,
    },
    /// It did not happen: again later.
    #[error("{0}")]
    Retry(String),
    /// Nobody knows whether it happened (the connection broke after sending).
    #[error("{0}")]
    Ambiguous(String),
    /// The message is gone: post a new one.
    #[error("{0}")]
    Gone(String),
    /// It will never work like this: a wrong token, an unknown channel. Says what to do.
    #[error("{0}")]
    Refused(String),
}
