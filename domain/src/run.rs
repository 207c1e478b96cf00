//! The life of one run, and its journal.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::{ActionOutput, Effect};
use crate::id::{IncidentId, RunId, StartId};
use crate::plan::{Plan, PlannedStep};

/// One execution of a runbook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The incident that it is for.
    pub incident: Option<IncidentId>,
    /// Runbook name.
    pub runbook: String,
    /// Where it stands.
    pub state: RunState,
    /// Why it stands there, in a sentence for people: the guard that holds it, the check that failed.
    pub reason: Option<String>,
    /// Who asked: a principal's name, or `None` for the automation.
    pub requester: Option<String>,
    /// The route whose remedy it is; `None` if a person asked.
    pub route: Option<String>,
    /// The values that the plan was rendered from, so that it can be rendered afresh.
    pub inputs: serde_json::Value,
    /// What it does.
    pub plan: Plan,
    /// Digest of the plan, in hex.
    pub plan_digest: String,
    /// Digest of the rule set that it is pinned to.
    pub rule_set: String,
    /// How often it asked for approval again because something changed.
    pub asked: u32,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the first step began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The person who cancelled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// Grows with every change.
    pub version: i64,
}

impl Run {
    /// Of an incident's runs the one of the highest rank is shown first: what goes on before what is over, then the newest. The time alone does not say, for
    /// the clock may have been set back.
    pub fn rank(&self) -> (bool, Timestamp, RunId) {
        (self.state.is_active(), self.created_at, self.id)
    }

    /// Whether it was cancelled and what was under way then is not over: its targets stay locked until it is, and nothing of it is begun any more.
    pub fn is_ending(&self) -> bool {
        self.cancelled_by.is_some() && self.state.is_active()
    }

    /// The step in this place of the plan; there is none for the verification.
    pub fn step(&self, index: i64) -> Option<&PlannedStep> {
        usize::try_from(index).ok().and_then(|index| self.plan.steps.get(index))
    }

    /// The step that a cancel has to wait for: it may still change something, or nobody knows whether it did.
    pub fn under_way(&self, attempts: &[Attempt]) -> Option<&PlannedStep> {
        (0_i64..).zip(&self.plan.steps).find_map(|(index, step)| {
            let last = attempts.iter().filter(|attempt| attempt.index == index).max_by_key(|attempt| attempt.attempt)?;
            let waits = match last.state {
                AttemptState::Started => step.effect != Effect::ReadOnly,
                AttemptState::Unknown => step.must_be_settled(),
                AttemptState::Succeeded | AttemptState::Failed => false,
            };
            waits.then_some(step)
        })
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// A guard holds it back; its reason says which.
    Held,
    /// People must decide.
    AwaitingApproval,
    /// Its turn will come.
    Queued,
    /// Steps are being carried out.
    Running,
    /// Steps are done; the check decides.
    Verifying,
    /// The check passed.
    Succeeded,
    /// A step or the check failed.
    Failed,
    /// A person stopped it.
    Cancelled,
    /// A guard or a person said no.
    Refused,
    /// What it was for is over, or has changed.
    Superseded,
    /// A step's outcome cannot be known: its targets stay locked and a person is asked.
    Unknown,
}

impl RunState {
    /// Its word, as in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Verifying => "verifying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Superseded => "superseded",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it has not ended. `Unknown` counts as active: its targets stay locked.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Held | Self::AwaitingApproval | Self::Queued | Self::Running | Self::Verifying | Self::Unknown)
    }

    /// Whether `next` may follow. The table of the run's state machine.
    pub fn may_become(self, next: Self) -> bool {
        use RunState::{AwaitingApproval, Cancelled, Failed, Held, Queued, Refused, Running, Succeeded, Superseded, Unknown, Verifying};
        match self {
            Held => matches!(next, AwaitingApproval | Queued | Refused | Superseded | Cancelled),
            AwaitingApproval => matches!(next, Held | Queued | Refused | Superseded | Cancelled),
            Queued => matches!(next, Held | AwaitingApproval | Running | Refused | Superseded | Cancelled),
            Running => matches!(next, Verifying | Succeeded | Failed | Cancelled | Unknown),
            Verifying => matches!(next, Succeeded | Failed | Cancelled),
            Unknown => matches!(next, Running | Failed | Cancelled),
            Succeeded | Failed | Cancelled | Refused | Superseded => false,
        }
    }
}

/// The journal of one attempt of one step. Its intent is stored before anything happens, its result afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// The step's place in the plan; the verification comes after the last step.
    pub index: i64,
    /// The step's id.
    pub step: String,
    /// 1 for the first.
    pub attempt: i64,
    /// Where it stands.
    pub state: AttemptState,
    /// When the intent was stored.
    pub started_at: Timestamp,
    /// When the result was stored.
    pub finished_at: Option<Timestamp>,
    /// What it brought back.
    pub output: Option<ActionOutput>,
    /// How it failed.
    pub error: Option<String>,
    /// Who carries it out, and what is needed to find it again after a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// It is to be made once more whatever the retries say: it never began, or a person wants it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The store was restored from a backup that knew of it and not of its end. What is heard of it since is kept with it, and nothing goes on by that: a
    /// person says what happened.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
}

/// Where an attempt is carried out. Stored with the intent, so before anything happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The server's name, the same after a restart.
    pub instance: String,
    /// The start of that server.
    pub start: StartId,
    /// The fence of the target at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// The process that carries it out, where that one outlives the server. Stored before it is told what to do: without it nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
}

/// A command under its shim, told apart from every other process past and future.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Names the attempt: `RUN-INDEX-ATTEMPT`. The folder of its result has the same name.
    pub id: String,
    /// The boot of the host.
    pub boot: String,
    /// The shim's process id.
    pub pid: i32,
    /// Clock ticks after boot at which the shim began.
    pub began: u64,
    /// Digest of program, arguments, environment and input, in hex.
    pub digest: String,
}

/// Rises with every run that locks a target: who comes with a lower one is late. Ordered by epoch, then number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// Of the store: a restored backup begins a new one.
    pub epoch: i64,
    /// Within the epoch.
    pub n: i64,
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

/// What a person says of a step whose outcome nobody knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    /// It ran: the run goes on with the next step.
    Ran,
    /// It did not run: it failed, and the runbook's retries decide.
    DidNotRun,
    /// Whatever happened, do it once more.
    Again,
    /// Whatever happened, stop here.
    Abort,
}

impl Settlement {
    /// All of them, in the order of their buttons.
    pub const ALL: [Self; 4] = [Self::Ran, Self::DidNotRun, Self::Again, Self::Abort];

    /// Its word, as in the API and the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ran => "ran",
            Self::DidNotRun => "did_not_run",
            Self::Again => "again",
            Self::Abort => "abort",
        }
    }

    /// The words on its button.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ran => "It ran",
            Self::DidNotRun => "It did not run",
            Self::Again => "Run it again",
            Self::Abort => "Abort",
        }
    }
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// The intent is stored: it may have begun.
    Started,
    /// It worked.
    Succeeded,
    /// It did not work.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl AttemptState {
    /// Its word, as in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}
