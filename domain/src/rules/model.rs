//! The compiled rule set's types.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::{Effect, OnUnknown};
use crate::duration::Dur;
use crate::expr::Expr;
use crate::incident::Waits;
use crate::matcher::Matchers;
use crate::permission::People;
use crate::plan::{ApprovalPolicy, Guards, OnFailure, Retry, Target};
use crate::template::Template;

/// Everything that decides.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// SHA-256 over the source text, in hex: its version.
    pub digest: String,
    /// The text it was compiled from, so that a run can finish under it later: file name and content.
    pub texts: Vec<(String, String)>,
    /// Worst first.
    pub severities: Vec<Severity>,
    /// The severity of an alert whose own is unknown: an index into `severities`.
    pub default_severity: usize,
    /// Channels by name.
    pub channels: BTreeMap<String, Channel>,
    /// The channels of an incident whose route names none.
    pub default_channels: BTreeSet<String>,
    /// The inventory, by name.
    pub targets: BTreeMap<String, Target>,
    /// First match wins, `continue` goes on. The last one is the catch-all.
    pub routes: Vec<Route>,
    /// By name.
    pub runbooks: BTreeMap<String, Runbook>,
    /// Who may do what.
    pub people: People,
    /// What is known of each source, by name.
    pub sources: BTreeMap<String, SourceRule>,
    /// The waits of an incident.
    pub waits: Waits,
}

/// One level of urgency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Severity {
    /// Its name in the user's scheme.
    pub name: String,
    /// Label values that mean it, in lower case; its name is always one.
    pub aliases: BTreeSet<String>,
    /// How soon somebody should take an incident.
    pub ack_within: Option<Dur>,
}

/// Where cards go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its name in the rules.
    pub name: String,
    /// The platform: `slack`, `discord`.
    pub platform: String,
    /// The platform's channel id.
    pub id: String,
}

/// A set of channel names.
pub type Channels = BTreeSet<String>;

/// What is known of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRule {
    /// Its name.
    pub name: String,
    /// How often it repeats a firing alert; `None` if it does not, which turns staleness off.
    pub repeat_interval: Option<Dur>,
    /// Alert names that are signs of life, and how long they may be silent.
    pub heartbeats: BTreeMap<String, Dur>,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name, for traces: given, or `routes[3]`.
    pub name: String,
    /// All must match.
    pub matchers: Matchers,
    /// And this must hold.
    pub when: Option<Expr>,
    /// Go on to the next route after this one.
    pub go_on: bool,
    /// The incident that it opens; `None` records the alert only.
    pub incident: Option<IncidentRule>,
    /// What to do about it.
    pub remedy: Option<Remedy>,
}

/// How a route opens incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentRule {
    /// Alerts with equal values of these labels share an incident.
    pub group_by: Vec<String>,
    /// Fixed severity (an index); `None` takes the alert's own.
    pub severity: Option<usize>,
    /// Where its card goes.
    pub channels: Channels,
    /// Template for the title; the default is alert name and what tells it apart.
    pub title: Option<Template>,
}

/// What a route does about an alert.
#[derive(Clone, Debug)]
pub struct Remedy {
    /// The runbook.
    pub runbook: String,
    /// Templates for its parameters.
    pub with: BTreeMap<String, Value>,
    /// How far it may go by itself.
    pub mode: Mode,
    /// Wait this long first: the alert may resolve by itself.
    pub hold: Dur,
}

/// The ladder of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Record what would have run.
    Observe,
    /// Show what could run, with a button.
    Suggest,
    /// Ask for approval.
    Approve,
    /// Run.
    Auto,
}

/// One runbook.
#[derive(Clone, Debug)]
pub struct Runbook {
    /// Its name.
    pub name: String,
    /// One sentence for people.
    pub about: String,
    /// Its parameters.
    pub params: BTreeMap<String, ParamSpec>,
    /// Who must approve when the mode or the risk asks for it.
    pub approval: Option<ApprovalPolicy>,
    /// What must hold before a run may start.
    pub guards: Guards,
    /// In order.
    pub steps: Vec<StepSpec>,
    /// What decides whether it worked.
    pub verify: Option<VerifySpec>,
    /// What follows when it did not.
    pub on_failure: OnFailure,
}

/// A parameter of a runbook.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// What it is.
    pub kind: ParamType,
    /// The value where none is given; `None` makes it required.
    pub default: Option<Value>,
    /// One sentence for people.
    pub about: String,
}

/// What a parameter may be.
#[derive(Clone, Debug, PartialEq)]
pub enum ParamType {
    /// A name from the inventory, of one of these kinds (empty: any).
    Target(BTreeSet<String>),
    /// Text of at most this many bytes, fully matching the pattern, never beginning with `-`.
    Text {
        /// In bytes.
        max: usize,
        /// Anchored; `None` allows anything without control characters.
        pattern: Option<String>,
    },
    /// One of a list.
    Choice(Vec<String>),
    /// A whole number within bounds.
    Integer {
        /// At least.
        min: i64,
        /// At most.
        max: i64,
    },
    /// True or false.
    Boolean,
    /// `5m`.
    Duration,
}

/// A step as written.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// Unique in the runbook.
    pub id: String,
    /// The action.
    pub uses: String,
    /// Templates for its parameters; `target` names the target.
    pub with: Value,
    /// The most time that an attempt may take.
    pub timeout: Dur,
    /// When a failed attempt is made again.
    pub retry: Retry,
    /// A failure of this step does not end the run.
    pub continue_on_error: bool,
    /// The effect class, where the runbook says it.
    pub effect: Option<Effect>,
    /// What is done about an unknown outcome, where the runbook says it.
    pub on_unknown: Option<OnUnknown>,
    /// The command that tells whether it happened: what `command` takes, as templates.
    pub check: Option<Value>,
}

/// A check as written.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifySpec {
    /// The check.
    pub step: StepSpec,
    /// It must pass within this long.
    pub within: Dur,
    /// It is tried this often.
    pub every: Dur,
}

impl RuleSet {
    /// The severity that a label value means.
    pub fn severity_of(&self, word: &str) -> Option<usize> {
        let word = word.to_lowercase();
        self.severities.iter().position(|severity| severity.aliases.contains(&word))
    }

    /// When an alert of `source` that is not refreshed becomes stale: twice the repeat interval.
    pub fn stale_after(&self, source: &str) -> Option<SignedDuration> {
        let every = self.sources.get(source)?.repeat_interval?;
        SignedDuration::try_from(every.as_std()).ok().map(|every| every * 2)
    }
}
