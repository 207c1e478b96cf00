//! Chat platforms: what a `Card` looks like on each of them, and how a press of its buttons becomes an event.
//!
//! Nothing here decides. Outbound, a platform renders what `domain` hands over; inbound, it checks who speaks, says so, and stores an act.

mod answer;
mod command;
mod edge;
mod fit;
mod form;
mod http;
#[cfg(test)]
mod testing;

/// Declares the platforms: one folder and one line each.
macro_rules! platforms {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*

        /// The platforms' names, as in the configuration and in `Identity::platform`.
        pub const PLATFORMS: &[&str] = &[$(stringify!($name)),*];
    };
}

platforms! {
    discord,
    slack,
}

/// A platform's settings cannot work. Says which one and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(String);

impl Misconfigured {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}
