//! What agents announce of themselves, and what a server makes of it: whether it may give an order, and what people should be told.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Of orders, reports and announcements. Raised whenever an older side could not read or would misunderstand a newer one.
pub const PROTOCOL: u32 = 1;
/// A clock that differs by more seconds than this is worth a word: orders expire by the clock.
const CLOCK: i64 = 30;

/// What an agent says of itself: the claims of a token that it signs. Fields that are not known here are passed over, so that `protocol` of any version
/// can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The agent.
    pub iss: String,
    /// [`crate::order::SERVER`].
    pub aud: String,
    /// Seconds since 1970, by the agent's clock.
    pub iat: i64,
    /// [`PROTOCOL`] of the agent.
    pub protocol: u32,
    /// Its program's version.
    pub version: String,
    /// The name of its host.
    #[serde(default)]
    pub host: String,
    /// The targets of its own inventory.
    #[serde(default)]
    pub targets: BTreeSet<String>,
    /// Its own list of actions.
    #[serde(default)]
    pub actions: BTreeSet<String>,
}

impl Announcement {
    /// Why it would not carry out `uses` on `target`; nothing if it would.
    pub fn lacks(&self, uses: &str, target: &str) -> Option<String> {
        if self.protocol != PROTOCOL {
            return Some(self.other_protocol());
        }
        if !self.targets.contains(target) {
            return Some(format!("it did not announce the target {target}: add it to `targets` in its configuration"));
        }
        (!self.actions.contains(uses)).then(|| format!("it did not announce the action {uses}: add it to `actions` in its configuration"))
    }

    /// What people should be told of it. `version` is the server's own, `given` the targets that its inventory gives to this agent.
    pub fn warnings(&self, version: &str, given: &BTreeSet<String>, heard: Timestamp) -> Vec<String> {
        let mut all = Vec::new();
        if self.protocol != PROTOCOL {
            all.push(format!("no orders are sent to it: {}", self.other_protocol()));
        }
        if number(&self.version) < number(version) {
            all.push(format!("its version {} is older than the server's {version}: update it", self.version));
        }
        let missing: Vec<&str> = given.difference(&self.targets).map(String::as_str).collect();
        if !missing.is_empty() {
            all.push(format!(
                "it did not announce {}, which the server's inventory gives to it: make both inventories the same",
                missing.join(", ")
            ));
        }
        let off = self.iat - heard.as_second();
        if off.abs() > CLOCK {
            let way = if off > 0 { "ahead of" } else { "behind" };
            all.push(format!("its clock is {} s {way} the server's: orders expire by the clock, so set it", off.abs()));
        }
        all
    }

    fn other_protocol(&self) -> String {
        let older = if self.protocol < PROTOCOL { "the agent" } else { "the server" };
        format!("it speaks protocol {} and the server {PROTOCOL}: update {older}", self.protocol)
    }
}

/// One agent as a server knows it, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentSeen {
    /// As `agents.known` calls it.
    pub name: String,
    /// Whether it was heard of lately.
    pub here: bool,
    /// When it was last heard of by this server.
    pub heard_at: Option<Timestamp>,
    /// What it announced then.
    pub announced: Option<Announcement>,
    /// What people should do something about.
    pub warnings: Vec<String>,
}

/// Knows the agents.
pub trait Agents: Send + Sync {
    /// All of `agents.known`, by name.
    fn seen(&self) -> Vec<AgentSeen>;
}

/// The numbers at the beginning of a version, for comparing.
fn number(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced() -> Announcement {
        Announcement {
            iss: "edge".to_owned(),
            aud: crate::order::SERVER.to_owned(),
            iat: 0,
            protocol: PROTOCOL,
            version: "0.9.10".to_owned(),
            host: "edge-1.internal".to_owned(),
            targets: ["api".to_owned()].into(),
            actions: ["command".to_owned()].into(),
        }
    }

    #[test]
    fn an_order_goes_only_to_who_announced_what_it_takes() {
        assert_eq!(announced().lacks("command", "api"), None);
        assert!(announced().lacks("command", "db").is_some_and(|why| why.contains("the target db")));
        assert!(announced().lacks("service.restart", "api").is_some_and(|why| why.contains("the action service.restart")));
        for (protocol, who) in [(PROTOCOL - 1, "update the agent"), (PROTOCOL + 1, "update the server")] {
            assert!(Announcement { protocol, ..announced() }.lacks("command", "api").is_some_and(|why| why.contains(who)));
        }
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told_in_clear_words() {
        let given = BTreeSet::from(["api".to_owned()]);
        let told =
            |announced: Announcement, given: &BTreeSet<String>| announced.warnings("0.9.10", given, Timestamp::UNIX_EPOCH).join("; ");
        assert_eq!(told(announced(), &given), "");
        assert_eq!(told(Announcement { version: "0.10.0-rc.1".to_owned(), ..announced() }, &given), "");
        assert!(told(Announcement { version: "0.9.9".to_owned(), ..announced() }, &given).contains("older than the server's 0.9.10"));
        assert!(told(Announcement { protocol: 7, ..announced() }, &given).starts_with("no orders are sent to it"));
        assert!(told(announced(), &["api".to_owned(), "db".to_owned()].into()).starts_with("it did not announce db,"));
        assert!(told(Announcement { iat: -90, ..announced() }, &given).contains("90 s behind"));
    }

    #[test]
    fn fields_of_later_versions_are_passed_over() {
        let text = r#"{"iss":"edge","aud":"watchkeeper","iat":1,"protocol":9,"version":"7.0.0","new":{"a":1}}"#;
        assert_eq!(serde_json::from_str::<Announcement>(text).unwrap().protocol, 9);
    }
}
