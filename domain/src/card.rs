//! The card: the one message per incident and channel, kept current, free of any platform.
//!
//! Every text in it is data: a renderer escapes all of it and adds markup of its own only.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{ApprovalId, IncidentId};
use crate::incident::IncidentState;
use crate::run::Settlement;

/// A card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The incident.
    pub incident: IncidentId,
    /// `#142`.
    pub number: i64,
    /// Grows with every change: an older card never replaces a newer one.
    pub version: i64,
    /// One line.
    pub title: String,
    /// Where the incident stands.
    pub state: IncidentState,
    /// Severity name in the user's scheme.
    pub severity: String,
    /// 0 is the worst: decides emoji and colour of the tag.
    pub severity_rank: usize,
    /// A paragraph.
    pub summary: String,
    /// Short facts: name and value.
    pub fields: Vec<(String, String)>,
    /// The first few alerts, one line each.
    pub alerts: Vec<CardAlert>,
    /// How many alerts are not shown.
    pub alerts_more: i64,
    /// What automation did, does, waits for or was refused.
    pub automation: Vec<String>,
    /// The request for approval, while one stands or after it was decided.
    pub approval: Option<ApprovalCard>,
    /// In the order in which they are shown.
    pub buttons: Vec<Button>,
    /// Name and address; only http and https.
    pub links: Vec<(String, String)>,
    /// When the incident opened: platforms show it in the reader's zone.
    pub opened_at: Timestamp,
    /// When the card last changed.
    pub updated_at: Timestamp,
}

/// One alert on a card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CardAlert {
    /// Whether it still fires.
    pub active: bool,
    /// One line: name and what tells it apart.
    pub text: String,
    /// Since when.
    pub since: Timestamp,
}

/// What people are asked to approve: exactly what runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalCard {
    /// Its id.
    pub id: ApprovalId,
    /// The runbook.
    pub runbook: String,
    /// Who asked: a name, or `automation`.
    pub requester: String,
    /// One line per step, arguments and target included.
    pub steps: Vec<String>,
    /// The worst risk of the steps.
    pub risk: String,
    /// The first digits of the plan digest.
    pub digest: String,
    /// `1/2 approved`, or `approved by ann`, or `expired`.
    pub status: String,
    /// Who may decide: role names.
    pub roles: Vec<String>,
    /// Until when; `None` once decided.
    pub expires_at: Option<Timestamp>,
}

/// A button. Its token names an object and carries a check code; it is never authority.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Button {
    /// What it does.
    pub kind: ButtonKind,
    /// Its label.
    pub label: String,
    /// How it looks.
    pub style: ButtonStyle,
    /// What comes back when it is pressed; at most 100 bytes (Discord's `custom_id`).
    pub token: String,
    /// A question to answer first, where the platform can ask one.
    pub confirm: Option<String>,
}

/// What a button does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ButtonKind {
    /// Take the incident.
    Acknowledge,
    /// Give it back.
    Unacknowledge,
    /// Call it resolved.
    Resolve,
    /// Open it again.
    Reopen,
    /// Approve a run.
    Approve,
    /// Deny a run; asks for a reason.
    Deny,
    /// Ask for a run of the runbook that the route suggests.
    Run,
    /// A step of unknown outcome ran; asks for a reason, as do the next three.
    Ran,
    /// It did not run.
    DidNotRun,
    /// Run it once more, whatever happened.
    Again,
    /// Stop the run, whatever happened.
    Abort,
}

impl ButtonKind {
    /// All of them, for parsing.
    pub const ALL: [Self; 11] = [
        Self::Acknowledge,
        Self::Unacknowledge,
        Self::Resolve,
        Self::Reopen,
        Self::Approve,
        Self::Deny,
        Self::Run,
        Self::Ran,
        Self::DidNotRun,
        Self::Again,
        Self::Abort,
    ];

    /// Its short code in a token.
    pub fn code(self) -> &'static str {
        match self {
            Self::Acknowledge => "ack",
            Self::Unacknowledge => "unack",
            Self::Resolve => "resolve",
            Self::Reopen => "reopen",
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Run => "run",
            Self::Ran => "ran",
            Self::DidNotRun => "notran",
            Self::Again => "again",
            Self::Abort => "abort",
        }
    }

    /// What a person says with it of a step whose outcome nobody knew.
    pub fn settlement(self) -> Option<Settlement> {
        match self {
            Self::Ran => Some(Settlement::Ran),
            Self::DidNotRun => Some(Settlement::DidNotRun),
            Self::Again => Some(Settlement::Again),
            Self::Abort => Some(Settlement::Abort),
            _ => None,
        }
    }

    /// The button that says so.
    pub fn of_settlement(settlement: Settlement) -> Self {
        match settlement {
            Settlement::Ran => Self::Ran,
            Settlement::DidNotRun => Self::DidNotRun,
            Settlement::Again => Self::Again,
            Settlement::Abort => Self::Abort,
        }
    }

    /// The title of the dialog that asks for the text; at most 24 characters, Slack's limit of one.
    pub fn question(self) -> &'static str {
        match self {
            Self::Deny => "Deny the run",
            Self::Ran => "The step ran",
            Self::DidNotRun => "The step did not run",
            Self::Again => "Run the step again",
            Self::Abort => "Abort the run",
            _ => "Why?",
        }
    }

    /// What the text is asked by.
    pub fn asks(self) -> &'static str {
        if self.settlement().is_some() { "How do you know?" } else { "Why?" }
    }

    /// Whether pressing it needs a text from the person.
    pub fn asks_reason(self) -> bool {
        self == Self::Deny || self.settlement().is_some()
    }
}

/// How a button looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ButtonStyle {
    /// The one to press.
    Primary,
    /// The others.
    Plain,
    /// The one to think about.
    Danger,
}

impl IncidentState {
    /// The bar's colour: 0xRRGGBB.
    pub fn colour(self) -> u32 {
        match self {
            Self::Open => 0x00a3_0200,
            Self::Acknowledged => 0x00da_a038,
            Self::Mitigated => 0x001d_7fc4,
            Self::Resolved => 0x002e_b886,
            Self::Closed => 0x0086_8e96,
        }
    }

    /// The sign in front of a title.
    pub fn emoji(self) -> &'static str {
        match self {
            Self::Open => "🔴",
            Self::Acknowledged => "👀",
            Self::Mitigated => "🩹",
            Self::Resolved => "✅",
            Self::Closed => "☑️",
        }
    }
}

/// A message in a card's thread, or a plain one in a channel. Its text is data, as in a card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// One or more lines.
    pub text: String,
    /// Shown as it is, in a fixed-width block: output of a command.
    pub block: Option<String>,
    /// When it happened.
    pub at: Timestamp,
}
