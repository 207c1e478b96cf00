//! Strict, stateful fakes of the wire of Slack and Discord: real HTTP and websockets on loopback, with the platforms' own limits, errors and
//! signatures, and actors that press buttons as people do. What a platform would refuse, the fake refuses and remembers.

pub mod discord;
pub mod slack;

mod fault;
mod form;
mod json;
mod limit;
mod multipart;
mod reply;
mod shared;
#[cfg(test)]
mod stand_in;
mod time;
mod wire;

pub use fault::Fault;
pub use reply::Reply;
pub use time::Time;

use std::time::Duration;

/// How long a platform waits for the answer to an interaction before the person sees an error (Slack and Discord alike).
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);
