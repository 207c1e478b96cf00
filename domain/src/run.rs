//! The life of one run, and its journal.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::ActionOutput;
use crate::id::{IncidentId, RunId};
use crate::plan::Plan;

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
    /// Grows with every change.
    pub version: i64,
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
    /// It took too long.
    TimedOut,
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
            Self::TimedOut => "timed_out",
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
        use RunState::{
            AwaitingApproval, Cancelled, Failed, Held, Queued, Refused, Running, Succeeded, Superseded, TimedOut, Unknown, Verifying,
        };
        match self {
            Held => matches!(next, AwaitingApproval | Queued | Refused | Superseded | Cancelled),
            AwaitingApproval => matches!(next, Held | Queued | Refused | Superseded | Cancelled),
            Queued => matches!(next, Held | AwaitingApproval | Running | Refused | Superseded | Cancelled),
            Running => matches!(next, Verifying | Succeeded | Failed | TimedOut | Cancelled | Unknown),
            Verifying => matches!(next, Succeeded | Failed | TimedOut | Cancelled),
            Unknown => matches!(next, Running | Verifying | Failed | Cancelled),
            Succeeded | Failed | Cancelled | TimedOut | Refused | Superseded => false,
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
