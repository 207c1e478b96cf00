//! A plan: the rendered steps of a run, exactly as they will be carried out, with a digest that people approve.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::{Effect, OnUnknown, Risk};
use crate::canonical::{Digest, digest};
use crate::duration::Dur;

/// What a run will do. It holds no ids, times or secret values, so that rendering it afresh gives the same digest
/// unless something that matters changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The runbook's name.
    pub runbook: String,
    /// Parameters after rendering and type checks.
    pub params: BTreeMap<String, Value>,
    /// Who must approve; `None` where the mode needs nobody.
    pub approval: Option<ApprovalPolicy>,
    /// What is checked at claim.
    pub guards: Guards,
    /// In order.
    pub steps: Vec<PlannedStep>,
    /// What decides whether it worked.
    pub verify: Option<PlannedVerify>,
    /// What follows when it did not.
    pub on_failure: OnFailure,
}

/// One step, rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Unique in the plan.
    pub id: String,
    /// The action's name.
    pub uses: String,
    /// Its parameters, rendered.
    pub with: Value,
    /// The target, resolved in the inventory.
    pub target: Option<Target>,
    /// The most time that an attempt may take.
    pub timeout: Dur,
    /// When a failed attempt is made again.
    pub retry: Retry,
    /// The action's risk.
    pub risk: Risk,
    /// What may follow an unknown outcome.
    pub effect: Effect,
    /// What is done about an unknown outcome.
    #[serde(default)]
    pub on_unknown: OnUnknown,
    /// For `checkable`: the command that tells whether it happened, by exiting with 0 (it did) or 10 (it did not).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Box<PlannedStep>>,
    /// A failure of this step does not end the run.
    pub continue_on_error: bool,
}

impl PlannedStep {
    /// Whether a person has to say what became of it where nobody knows, before anything else may touch its target.
    pub fn must_be_settled(&self) -> bool {
        self.effect != Effect::ReadOnly && (!self.effect.may_repeat() || self.on_unknown == OnUnknown::Ask)
    }
}

/// The check that decides whether a run worked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedVerify {
    /// The check, as a step of risk `read`.
    pub step: PlannedStep,
    /// It must pass within this long.
    pub within: Dur,
    /// It is tried this often.
    pub every: Dur,
}

/// An entry of the inventory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// What it is: `process`, `systemd`, `compose`, `http`, ...
    pub kind: String,
    /// What its kind needs: `unit`, `file` and `service`, `url`, ...
    #[serde(flatten)]
    pub fields: BTreeMap<String, Value>,
}

impl Target {
    /// A text field.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }
}

/// When a failed attempt is made again. An unknown outcome is never retried by this.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// How many attempts in all; 1 is no retry.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles, up to `max_delay`.
    pub delay: Dur,
    /// The longest wait.
    pub max_delay: Dur,
}

/// Who must approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalPolicy {
    /// A vote counts from people with one of these roles.
    pub roles: BTreeSet<String>,
    /// How many different people.
    pub quorum: u32,
    /// How long the request stands.
    pub expires: Dur,
    /// Principals whose vote does not count, besides the requester.
    #[serde(default)]
    pub exclude: BTreeSet<String>,
}

/// What must hold before a run may start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    /// At least this long since the last run of the runbook on the target.
    pub cooldown: Option<Dur>,
    /// At most this many runs.
    pub max_runs: Option<MaxRuns>,
    /// At most this many at once on the target; 1 by default.
    pub concurrency: u32,
}

/// A budget of runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxRuns {
    /// How many.
    pub count: u32,
    /// In what time.
    pub per: Dur,
}

/// What follows a failed run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnFailure {
    /// Tell the escalation at once.
    pub escalate: bool,
    /// After this many failures in a row the route asks for approval instead of acting by itself.
    pub lock_after: Option<u32>,
}

impl Plan {
    /// The plan digest: what an approval is bound to.
    pub fn digest(&self) -> Digest {
        digest(self)
    }

    /// The worst risk of its steps.
    pub fn risk(&self) -> Risk {
        self.steps.iter().map(|step| step.risk).max().unwrap_or(Risk::Read)
    }

    /// The targets that its steps change, by name.
    pub fn targets(&self) -> BTreeSet<&str> {
        self.steps.iter().filter(|step| step.risk > Risk::Read).filter_map(|step| step.target.as_ref()).map(|t| t.name.as_str()).collect()
    }
}
