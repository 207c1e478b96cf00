//! What a remedy is made of: the contract of an action.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::RunId;
use crate::plan::Target;
use crate::printed::Printed;
use crate::run::{Execution, Fence};

/// How much harm an action can do. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// It only looks.
    Read,
    /// It changes something that can be changed back.
    Reversible,
    /// It interrupts somebody.
    Disruptive,
    /// It loses something for good: it needs an approval and a target from the inventory, always.
    Destructive,
}

/// What may follow when a step's outcome cannot be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It has no effect: run it again.
    ReadOnly,
    /// Twice is the same as once: run it again.
    Idempotent,
    /// The other side drops a repeat by our key: send it again with the same key.
    Keyed,
    /// A check can tell whether it happened.
    Checkable,
    /// Nobody can tell: ask a person. What is not declared is this.
    #[default]
    AtMostOnce,
}

/// What is done about a step whose outcome cannot be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// The target stays locked and a person says what to do.
    #[default]
    Ask,
    /// It is run again, three times at most; a `checkable` one only if its check says that it did not happen.
    Retry,
}

impl Effect {
    /// Whether `other` lets less happen by itself after an unknown outcome, or the same.
    pub fn allows(self, other: Self) -> bool {
        let rank = |effect: Self| match effect {
            Self::ReadOnly => 0,
            Self::Idempotent | Self::Keyed => 1,
            Self::Checkable => 2,
            Self::AtMostOnce => 3,
        };
        rank(other) >= rank(self)
    }

    /// What follows where the runbook does not say.
    pub fn on_unknown(self) -> OnUnknown {
        if self == Self::AtMostOnce { OnUnknown::Ask } else { OnUnknown::Retry }
    }

    /// Whether a step with an unknown outcome may simply be run again.
    pub fn may_repeat(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Idempotent | Self::Keyed)
    }

    /// Its word, as in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::Idempotent => "idempotent",
            Self::Keyed => "keyed",
            Self::Checkable => "checkable",
            Self::AtMostOnce => "at_most_once",
        }
    }
}

/// What an action is told of its surroundings.
#[derive(Clone)]
pub struct ActionCx {
    /// The run.
    pub run: RunId,
    /// The step's id in the plan.
    pub step: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The same for every attempt of this step: for targets that drop repeats.
    pub idempotency_key: String,
    /// Names this attempt among all that ever were; fit for a file name.
    pub execution: String,
    /// The step's effect class in this plan.
    pub effect: Effect,
    /// The target's fence, where the run has locked it.
    pub fence: Option<Fence>,
    /// The attempt was begun before: take up what this names instead of beginning anything.
    pub resume: Option<Execution>,
    /// The target, resolved in the inventory.
    pub target: Option<Target>,
    /// When the attempt is over, whatever happens.
    pub deadline: Timestamp,
    /// What the run can ask of Watchkeeper itself.
    pub host: Arc<dyn RunHost>,
}

/// What a step may ask of the run that it belongs to.
#[async_trait]
pub trait RunHost: Send + Sync {
    /// Posts a message to a configured channel, durably: it is an obligation when this returns.
    ///
    /// # Errors
    /// If there is no such channel, or the store is unavailable.
    async fn notify(&self, channel: &str, text: &str) -> Result<(), String>;

    /// Stores what is about to be told to do its work. Nothing may happen before this returned.
    ///
    /// # Errors
    /// If it could not be stored: do not begin.
    async fn intend(&self, execution: &Execution) -> Result<(), String>;

    /// Returns when the run is no longer one that may act: end what was begun.
    async fn cancelled(&self);

    /// Passes on what a command prints, for people who watch. False if that was not possible now: offer it again.
    async fn printed(&self, _piece: &Printed) -> bool {
        true
    }

    /// Whether whoever watches lost what was printed before, so that it should be passed on from the oldest that there is. It is told once.
    fn anew(&self) -> bool {
        false
    }
}

/// What an action brought back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionOutput {
    /// One line for people. Untrusted where it repeats what a target said.
    pub summary: String,
    /// For later steps and for programs.
    #[serde(default)]
    pub data: Value,
    /// Bounded text: output of a command, a page. Untrusted.
    #[serde(default)]
    pub text: String,
}

/// How an action failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// It did not work, and it is known that it did not: a retry may help.
    #[error("{0}")]
    Failed(String),
    /// It will never work like this: wrong parameters, a refused program.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows whether it happened.
    #[error("{0}")]
    Unknown(String),
    /// What was to be resumed never began, and by now it will not: it may be begun like any other.
    #[error("{0}")]
    NeverBegan(String),
}

/// A kind of step. One file in `actions/src/`, one line in its `actions!` list.
///
/// Dropping the future of `run` cancels it: whatever it started must end with it, unless it is [`resumable`](Action::resumable).
#[async_trait]
pub trait Action: Send + Sync {
    /// Its name in `uses:`, e.g. `service.restart`.
    fn name(&self) -> &'static str;

    /// One sentence for the documentation and the console.
    fn about(&self) -> &'static str;

    /// JSON Schema of `with:`, less `target`: that is resolved in the inventory and comes apart.
    fn schema(&self) -> schemars::Schema;

    /// How much harm it can do.
    fn risk(&self) -> Risk;

    /// What may follow an unknown outcome.
    fn effect(&self) -> Effect {
        Effect::AtMostOnce
    }

    /// Whether it goes on when the server ends, and can be taken up again by [`ActionCx::resume`]. Such an action tells
    /// [`RunHost::intend`] before anything happens and ends what it began when [`RunHost::cancelled`] returns; dropping its future leaves it alone.
    fn resumable(&self, _target: Option<&Target>) -> bool {
        false
    }

    /// The target kinds that it works on; empty if it takes none.
    fn target_kinds(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether `with` (rendered, and without its `target`) is acceptable.
    ///
    /// # Errors
    /// Says what is wrong, for the author of the runbook.
    fn check(&self, with: &Value, target: Option<&Target>) -> Result<(), String>;

    /// Carries it out.
    ///
    /// # Errors
    /// See [`ActionError`].
    async fn run(&self, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError>;
}

/// The actions that a rule set may use, by name.
pub trait ActionCatalogue: Send + Sync {
    /// The action of this name.
    fn get(&self, name: &str) -> Option<&dyn Action>;

    /// All of them, by name.
    fn all(&self) -> Vec<&dyn Action>;

    /// The executions whose results are still kept: see [`ActionCx::execution`].
    fn kept(&self) -> Vec<String> {
        vec![]
    }

    /// The result of this execution is stored elsewhere now, or nobody will ask for it.
    fn forget(&self, _execution: &str) {}

    /// Nobody waits for this execution of an earlier start. What of it still goes on is asked to end, and its folder stays until it has; else as `forget`.
    fn give_up(&self, execution: &str) {
        self.forget(execution);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runbook_can_be_stricter_than_an_action_and_never_laxer() {
        use Effect::{AtMostOnce, Checkable, Idempotent, Keyed, ReadOnly};
        assert!(Idempotent.allows(AtMostOnce) && Idempotent.allows(Checkable) && Idempotent.allows(Keyed) && ReadOnly.allows(Idempotent));
        assert!(!Idempotent.allows(ReadOnly) && !Checkable.allows(Keyed) && !AtMostOnce.allows(Checkable));
        assert_eq!((AtMostOnce.on_unknown(), Checkable.on_unknown()), (OnUnknown::Ask, OnUnknown::Retry));
    }
}
