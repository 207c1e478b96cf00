//! Routes as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::duration::Dur;
use crate::matcher::Matchers;
use crate::rules::Mode;

/// One route: which alerts it takes, the incident they open, and the remedy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A name for traces; without it the route's place in the list.
    #[serde(default)]
    pub name: Option<String>,
    /// Alertmanager matchers; all must hold. An absent label is the empty text.
    #[serde(default)]
    pub r#match: Match,
    /// And this CEL expression must be true. It sees `alert` with `labels`, `annotations`, `status`, `starts_at`, `fingerprint` and `source`,
    /// and `labels` and `annotations` for short.
    #[serde(default)]
    pub when: Option<String>,
    /// Go on to the next route after this one.
    #[serde(default)]
    pub r#continue: bool,
    /// The incident that it opens; `{}` opens one with all defaults. Without it the alert is only recorded.
    #[serde(default)]
    pub incident: Option<Incident>,
    /// What to do about it.
    #[serde(default)]
    pub remedy: Option<Remedy>,
}

/// A list of matchers, or one text with several.
pub type Match = Matchers;

/// How a route opens incidents.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// Alerts with equal values of these labels share an incident. Empty: one incident for the whole route.
    #[serde(default)]
    pub group_by: Vec<String>,
    /// A fixed severity; without it the alert's own.
    #[serde(default)]
    pub severity: Option<String>,
    /// Where its card goes; without any the default channels.
    #[serde(default)]
    pub channels: Vec<String>,
    /// A template for its title: `{{ labels.service }} is down`. Without it the alert's name and what tells it apart.
    #[serde(default)]
    pub title: Option<String>,
}

/// What a route does about an alert.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remedy {
    /// The runbook, by name.
    pub runbook: String,
    /// Its parameters; text values are templates that see `labels`, `annotations` and `alert`.
    #[serde(default)]
    pub with: BTreeMap<String, Value>,
    /// How far it may go by itself: `observe` records what would have run, `suggest` shows a button, `approve` asks first (the default),
    /// `auto` runs.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Wait this long first: the alert may resolve by itself.
    #[serde(default)]
    pub hold: Option<Dur>,
}
