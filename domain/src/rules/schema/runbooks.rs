//! Runbooks as written.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::action::{Effect, OnUnknown};
use crate::duration::Dur;

/// A remedy: steps in order, who must approve them, what must hold before, and what decides whether they worked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Runbook {
    /// One sentence for people: it is on the card and in the list of runbooks.
    #[serde(default)]
    pub about: String,
    /// What it is told, by name.
    #[serde(default)]
    pub params: BTreeMap<String, Param>,
    /// Who must approve when the mode or the risk asks for it.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// What must hold before a run may start.
    #[serde(default)]
    pub guards: Option<Guards>,
    /// In order.
    pub steps: Vec<Step>,
    /// The check that decides whether it worked; without it a run is never called a remedy.
    #[serde(default)]
    pub verify: Option<Verify>,
    /// What follows when it did not work.
    #[serde(default)]
    pub on_failure: Option<OnFailure>,
}

/// A parameter of a runbook.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// What it may be.
    pub r#type: ParamKind,
    /// One sentence for people.
    #[serde(default)]
    pub about: String,
    /// The value where none is given; without it the parameter is required.
    #[serde(default)]
    pub default: Option<Value>,
    /// `target`: only these kinds; without any: all.
    #[serde(default)]
    pub kinds: Option<BTreeSet<String>>,
    /// `text`: a regular expression that the whole text must match.
    #[serde(default)]
    pub pattern: Option<String>,
    /// `choice`: the words to choose from.
    #[serde(default)]
    pub values: Option<Vec<String>>,
    /// `integer`: at least this.
    #[serde(default)]
    pub min: Option<i64>,
    /// `integer`: at most this. `text`: at most this many bytes, 200 unless said otherwise.
    #[serde(default)]
    pub max: Option<i64>,
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// A name from the inventory.
    Target,
    /// Text that never begins with `-`.
    Text,
    /// One of a list.
    Choice,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// `5m`.
    Duration,
}

/// Who must approve. Nobody approves what they asked for themselves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// A vote counts from people with one of these roles.
    pub roles: Vec<String>,
    /// How many different people. Default 1.
    #[serde(default)]
    pub quorum: Option<u32>,
    /// How long the request stands. Default 15m.
    #[serde(default)]
    pub expires: Option<Dur>,
    /// Principals whose vote does not count.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// What must hold before a run may start.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guards {
    /// At least this long since the last run of the runbook on the target.
    #[serde(default)]
    pub cooldown: Option<Dur>,
    /// A budget of runs.
    #[serde(default)]
    pub max_runs: Option<MaxRuns>,
    /// At most this many at once on the target. Default 1.
    #[serde(default)]
    pub concurrency: Option<u32>,
}

/// At most this many runs in this time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaxRuns {
    /// How many.
    pub count: u32,
    /// In what time.
    pub per: Dur,
}

/// One step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Unique in the runbook.
    pub id: String,
    /// The action: `service.restart`, `http.request`, ...
    pub uses: String,
    /// The action's parameters, and `target` where it works on one; text values are templates that see `params`, `labels`, `annotations` and
    /// `alert`. What comes from outside (labels, annotations, parameters that are text) is never a `program`, a `cwd`, or the scheme, host or port of
    /// a `url`, and stands in its path or query as `{{ .. | urlencode }}`.
    #[serde(default)]
    pub with: BTreeMap<String, Value>,
    /// The most time that an attempt may take. Default 60s. A command that is ended then may have done its work: where a repeat could do harm
    /// (see `effect`), its outcome is not known.
    #[serde(default)]
    pub timeout: Option<Dur>,
    /// When a failed attempt is made again. An attempt whose outcome nobody knows is never made again by this.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// What a repeat would do: `command` and `http.request` are `at_most_once` unless you say otherwise here. Other actions know it themselves;
    /// you can only be stricter.
    #[serde(default)]
    pub effect: Option<Effect>,
    /// What is done when nobody can know whether it happened, as after a crash of the host or a command's `timeout`. Default: `retry` where a repeat
    /// does no harm, `ask` where it might. An `at_most_once` step is never retried then.
    #[serde(default)]
    pub on_unknown: Option<OnUnknown>,
    /// For `effect: checkable`: the command that tells whether it happened, written as for the action `command`. It exits with 0 if it did, with 10 if
    /// it did not; after anything else a person is asked.
    #[serde(default)]
    pub check: Option<BTreeMap<String, Value>>,
    /// A failure of this step does not end the run.
    #[serde(default)]
    pub continue_on_error: bool,
}

/// When a failed attempt is made again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How many attempts in all.
    pub attempts: u32,
    /// The wait before the second one; it doubles. Default 1s.
    #[serde(default)]
    pub delay: Option<Dur>,
    /// The longest wait. Default 1m.
    #[serde(default)]
    pub max_delay: Option<Dur>,
}

/// The check that decides whether a run worked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// An action that only looks.
    pub uses: String,
    /// Its parameters, as in a step.
    #[serde(default)]
    pub with: BTreeMap<String, Value>,
    /// It must pass within this long. Default 2m.
    #[serde(default)]
    pub within: Option<Dur>,
    /// It is tried this often. Default 5s.
    #[serde(default)]
    pub every: Option<Dur>,
    /// The most time that one try may take. Default 10s.
    #[serde(default)]
    pub timeout: Option<Dur>,
}

/// What follows a failed run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnFailure {
    /// Whether the escalation is told at once. Default none.
    #[serde(default)]
    pub escalate: Escalate,
    /// After this many failures in a row the route asks for approval instead of acting by itself.
    #[serde(default)]
    pub lock_after: Option<u32>,
}

/// Whether the escalation is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Escalate {
    /// At once.
    Now,
    /// Not because of this.
    #[default]
    None,
}
