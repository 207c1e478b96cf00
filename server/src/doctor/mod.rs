//! What `watchkeeper doctor` looks at: everything that a running server will need, asked for beforehand and without changing anything.

mod agents;
mod bus;
mod certificate;
mod chats;
mod disk;
mod house;
mod store;

use serde::Serialize;

use crate::config::Config;

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, and will not always.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What it belongs to.
    pub(crate) area: &'static str,
    /// How well it is.
    pub(crate) level: Level,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it, or what to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

/// Findings of one area as they come up.
pub(crate) struct Findings {
    area: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    pub(crate) fn of(area: &'static str) -> Self {
        Self { area, all: Vec::new() }
    }

    pub(crate) fn ok(&mut self, found: impl Into<String>) {
        self.add(Level::Ok, found, None);
    }

    pub(crate) fn warn(&mut self, found: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Warn, found, Some(advice.into()));
    }

    pub(crate) fn fail(&mut self, found: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Fail, found, Some(advice.into()));
    }

    /// As it should be, with something to know.
    pub(crate) fn note(&mut self, found: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Ok, found, Some(advice.into()));
    }

    fn add(&mut self, level: Level, found: impl Into<String>, advice: Option<String>) {
        self.all.push(Finding { area: self.area, level, found: found.into(), advice });
    }
}

/// Looks at everything that `config` names, part by part; one that takes long holds up no other.
pub(crate) async fn examine(config: &Config) -> Vec<Finding> {
    let (store, bus, agents, chats, server) =
        tokio::join!(store::look(config), bus::look(config), agents::look(config), chats::look(config), house::server(config));
    let parts =
        [house::configuration(config), house::keys(config), store, disk::look(config), bus, agents, chats, house::targets(config), server];
    parts.into_iter().flat_map(|part| part.all).collect()
}
