//! Severities, channels, the inventory, sources and waits.

use std::collections::{BTreeMap, BTreeSet};

use super::Build;
use crate::duration::Dur;
use crate::incident::Waits;
use crate::plan::Target;
use crate::rules::decode::decode;
use crate::rules::model::{Channel, Severity, SourceRule};
use crate::rules::schema;

/// The chat platforms that have channels.
const PLATFORMS: [&str; 2] = ["slack", "discord"];
/// Alertmanager's own default of `repeat_interval`.
const REPEAT: Dur = Dur::from_hours(4);

impl Build<'_, '_> {
    pub(super) fn severities(&mut self) -> (Vec<Severity>, usize) {
        let mut all: Vec<Severity> = Vec::new();
        for (index, node, written) in self.list::<schema::Severity>("severities") {
            self.name(&written.name, node.find(&["name"]).at);
            let mut aliases = BTreeSet::from([written.name.to_lowercase()]);
            for (n, alias) in written.aliases.iter().enumerate() {
                aliases.insert(alias.to_lowercase());
                self.alias(&all, alias, node.find(&["aliases", &n.to_string()]).at);
            }
            self.alias(&all, &written.name, node.find(&["name"]).at);
            if index < 20 {
                all.push(Severity { name: written.name, aliases, ack_within: written.ack_within });
            } else {
                self.add(node.at, "there are more than 20 severities", "people tell four or five apart".to_owned());
            }
        }
        if all.is_empty() {
            all = default_severities();
        }
        let warning = all.iter().position(|severity| severity.aliases.contains("warning"));
        let mut default = warning.unwrap_or(1.min(all.len() - 1));
        if let Some(node) = self.root.get("default_severity")
            && let Some(name) = decode::<String>(node, self.report)
            && let Some(index) = self.severity(&all, &name, node.at)
        {
            default = index;
        }
        (all, default)
    }

    /// The index of a severity by name or alias; tells it if there is none.
    pub(super) fn severity(&mut self, all: &[Severity], word: &str, at: crate::rules::tree::Pos) -> Option<usize> {
        let found = all.iter().position(|severity| severity.aliases.contains(&word.to_lowercase()));
        if found.is_none() {
            let names = all.iter().map(|severity| severity.name.as_str());
            self.add(at, format!("there is no severity `{word}`"), crate::rules::problem::suggest(word, names, ""));
        }
        found
    }

    fn alias(&mut self, before: &[Severity], word: &str, at: crate::rules::tree::Pos) {
        if let Some(other) = before.iter().find(|severity| severity.aliases.contains(&word.to_lowercase())) {
            let message = format!("`{word}` means `{}` already", other.name);
            self.add(at, message, "a word can mean one severity only".to_owned());
        }
    }

    pub(super) fn channels(&mut self) -> BTreeMap<String, Channel> {
        let mut all = BTreeMap::new();
        for (name, node, written) in self.map::<schema::Channel>("channels") {
            let at = node.find(&["id"]).at;
            match written.platform.as_str() {
                "slack" if !is_slack_channel(&written.id) => {
                    let help = "the id is at the bottom of the channel's details in Slack and looks like C0123ABCD".to_owned();
                    self.add(at, format!("`{}` is no Slack channel id", written.id), help);
                }
                "discord" if !is_snowflake(&written.id) => {
                    let help = "turn on Discord's developer mode, then right-click the channel and copy its id: a long number".to_owned();
                    self.add(at, format!("`{}` is no Discord channel id", written.id), help);
                }
                platform if !PLATFORMS.contains(&platform) => {
                    let help = crate::rules::problem::suggest(platform, PLATFORMS, "");
                    self.add(node.find(&["platform"]).at, format!("there is no chat platform `{platform}`"), help);
                }
                _ => {}
            }
            all.insert(name.to_owned(), Channel { name: name.to_owned(), platform: written.platform, id: written.id });
        }
        all
    }

    pub(super) fn default_channels(&mut self, channels: &BTreeMap<String, Channel>) -> BTreeSet<String> {
        let named = self.list::<String>("default_channels");
        for (_, node, name) in &named {
            self.known("channel", name, "channels", node.at);
        }
        match self.root.get("default_channels") {
            Some(_) => named.into_iter().map(|(_, _, name)| name).collect(),
            // Rather too many people told than none.
            None => channels.keys().cloned().collect(),
        }
    }

    pub(super) fn targets(&mut self) -> BTreeMap<String, Target> {
        let mut all = BTreeMap::new();
        for (name, node, written) in self.map::<schema::Target>("targets") {
            self.known_kind(&written.kind, node.find(&["kind"]).at);
            all.insert(name.to_owned(), Target { name: name.to_owned(), kind: written.kind, fields: written.fields });
        }
        all
    }

    pub(super) fn sources(&mut self) -> BTreeMap<String, SourceRule> {
        let mut all = BTreeMap::new();
        for (name, node, written) in self.map::<schema::Source>("sources") {
            let repeats = written.kind.as_deref() == Some("alertmanager");
            let repeat_interval = written.repeat_interval.or(repeats.then_some(REPEAT));
            if repeat_interval.is_some_and(Dur::is_zero) {
                let help = "leave it out, or give the source's own repeat interval".to_owned();
                self.add(node.find(&["repeat_interval"]).at, "a repeat interval of no time would make every alert stale", help);
            }
            for (alert, within) in &written.heartbeats {
                if within.is_zero() {
                    let help = "give it about three times the interval at which it comes: `Watchdog: 15m`".to_owned();
                    self.add(node.find(&["heartbeats", alert]).at, format!("the heartbeat `{alert}` has no time to come"), help);
                }
            }
            all.insert(name.to_owned(), SourceRule { name: name.to_owned(), repeat_interval, heartbeats: written.heartbeats });
        }
        all
    }

    pub(super) fn waits(&mut self) -> Waits {
        let mut waits = Waits::default();
        let Some(node) = self.root.get("incidents") else { return waits };
        if let Some(written) = decode::<schema::Incidents>(node, self.report) {
            let set = |wait: &mut jiff::SignedDuration, written: Option<Dur>| *wait = written.map_or(*wait, Dur::as_signed);
            set(&mut waits.resolve_after, written.resolve_after);
            set(&mut waits.reopen_within, written.reopen_within);
            set(&mut waits.close_after, written.close_after);
        }
        waits
    }
}

/// The scheme of three of the five manuals, for those who give none.
fn default_severities() -> Vec<Severity> {
    let level = |name: &str, aliases: &[&str], ack_within| Severity {
        name: name.to_owned(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).chain([name.to_lowercase()]).collect(),
        ack_within,
    };
    vec![
        level("P1", &["critical", "page"], Some(Dur::from_mins(15))),
        level("P2", &["high", "error"], Some(Dur::from_hours(1))),
        level("P3", &["warning"], Some(Dur::from_hours(4))),
        level("P4", &["info", "none"], None),
    ]
}

fn is_slack_channel(id: &str) -> bool {
    id.len() > 1 && id.starts_with(['C', 'G', 'D']) && id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
}

/// Discord's ids: numbers of 17 to 20 digits in practice, shorter ones in tests.
pub(super) fn is_snowflake(id: &str) -> bool {
    !id.is_empty() && id.len() <= 20 && id.chars().all(|c| c.is_ascii_digit())
}
