//! The rules as people write them: what `watchkeeper schema` describes and `compile` reads. One struct per thing in the file.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde::de::IgnoredAny;

pub use people::{Identities, Principal};
pub use routes::{Incident, Match, Remedy, Route};
pub use runbooks::{Approval, Escalate, Guards, MaxRuns, OnFailure, Param, ParamKind, Retry, Runbook, Step, Verify};

use crate::duration::Dur;
use crate::permission::Right;

mod people;
mod routes;
mod runbooks;

/// The top-level keys that decide. All are optional; those of several files are united.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Levels of urgency, worst first. Without any: P1 (critical, page), P2 (high, error), P3 (warning), P4 (info, none).
    #[serde(default)]
    pub severities: Vec<Severity>,
    /// The severity of an alert whose `severity` label means none of them; without it the one that `warning` means, or else the second.
    #[serde(default)]
    pub default_severity: Option<String>,
    /// The inventory: what actions may touch, by name. Labels resolve to a name here or the action is refused.
    #[serde(default)]
    pub targets: BTreeMap<String, Target>,
    /// Which alerts open incidents and what is done about them. The first match wins, `continue` goes on; a built-in last route opens an
    /// incident for what no other took.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Remedies, by name.
    #[serde(default)]
    pub runbooks: BTreeMap<String, Runbook>,
    /// Where cards go, by name.
    #[serde(default)]
    pub channels: BTreeMap<String, Channel>,
    /// The channels of incidents whose route names none. Without it: all channels.
    #[serde(default)]
    pub default_channels: Vec<String>,
    /// What a role allows, by name. Built in: `viewer`, `responder`, `approver` and `admin`.
    #[serde(default)]
    pub roles: BTreeMap<String, Vec<Right>>,
    /// People and programs, by name.
    #[serde(default)]
    pub principals: BTreeMap<String, Principal>,
    /// Where events come from, by name.
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
    /// The waits of an incident.
    #[serde(default)]
    pub incidents: Option<Incidents>,
}

/// The top-level keys that belong to the server; the rules leave them alone, so that both may stand in one file.
pub const SERVER_KEYS: [&str; 18] = [
    "include",
    "server",
    "data_dir",
    "store",
    "keys",
    "slack",
    "discord",
    "nats",
    "ingest",
    "agents",
    "programs",
    "egress",
    "tools",
    "heartbeat",
    "audit",
    "log",
    "telemetry",
    "retention",
];

impl Rules {
    /// The top-level keys that this part of the configuration owns.
    pub const KEYS: [&'static str; 11] = [
        "severities",
        "default_severity",
        "targets",
        "routes",
        "runbooks",
        "channels",
        "default_channels",
        "roles",
        "principals",
        "sources",
        "incidents",
    ];
}

/// One level of urgency.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Severity {
    /// Its name in your own scheme: P1, SEV2, critical.
    pub name: String,
    /// Values of the label `severity` that mean it. Upper and lower case are the same.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// How soon somebody should take an incident.
    #[serde(default)]
    pub ack_within: Option<Dur>,
}

/// An entry of the inventory.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Target {
    /// What it is: `process`, `systemd`, `compose`, `http` or another kind that an action works on.
    pub kind: String,
    /// What its kind needs, such as `unit`, or `file` and `service`, or `url`.
    #[serde(flatten)]
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// Where cards go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// `slack` or `discord`.
    pub platform: String,
    /// The platform's own id of the channel: `C0123ABCD` on Slack, a long number on Discord. Not its name.
    pub id: String,
}

/// What the rules want to know of a source; how it is reached and trusted belongs to the server's part.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Source {
    /// What sends here: `alertmanager`, `generic` or another kind that the server knows.
    #[serde(default)]
    pub kind: Option<String>,
    /// How often a firing alert is sent again: Alertmanager's `repeat_interval`, 4h unless said otherwise. An alert that is not sent again
    /// for twice this long becomes stale and its automation stops. Other kinds: off unless given.
    #[serde(default)]
    pub repeat_interval: Option<Dur>,
    /// Alerts that must keep coming, by `alertname`, and how long they may be silent: `Watchdog: 15m`. Silence opens an incident.
    #[serde(default)]
    pub heartbeats: BTreeMap<String, Dur>,
    /// The server's part.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: BTreeMap<String, IgnoredAny>,
}

/// The waits of an incident.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Incidents {
    /// All its alerts resolved for this long resolves it. Default 2m.
    #[serde(default)]
    pub resolve_after: Option<Dur>,
    /// An alert that fires again within this long after the resolve reopens it; later it opens a new one. Default 30m.
    #[serde(default)]
    pub reopen_within: Option<Dur>,
    /// Resolved for this long closes it. Default 24h.
    #[serde(default)]
    pub close_after: Option<Dur>,
}

/// The JSON Schema of the rules' part of a configuration file.
pub fn json_schema() -> Schema {
    schemars::schema_for!(Rules)
}
