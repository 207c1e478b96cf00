//! What people ask for, on any platform: the buttons, commands and API calls in one shape.

use serde::{Deserialize, Serialize};

use crate::id::{ApprovalId, IncidentId, RunId};
use crate::run::Settlement;

/// The store's flag that stops all automation: `{paused, reason, at}`.
pub const PAUSED_FLAG: &str = "automation.paused";

/// A person's request, as an edge heard it. Nothing in it is authority: who the actor is, and whether they may, is decided later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// Who asked, by the platform's own immutable names.
    pub actor: Identity,
    /// What they asked for.
    pub verb: Verb,
    /// The button's token, where a button was pressed. Checked by the handlers, so that forgeries are audited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub button: Option<String>,
    /// Where it was pressed: channel and message, to bind a button to its card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// How to answer the person in private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<ReplyTo>,
}

impl Act {
    /// Acts on one object are handled in order.
    pub fn order_key(&self) -> String {
        match self.verb.object() {
            Some(object) => object.to_string(),
            None => format!("{}/{}", self.actor.platform, self.actor.user),
        }
    }
}

/// A person on a platform. Display names are for display only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// `slack`, `discord`, `console`, `api`.
    pub platform: String,
    /// Slack's team id, Discord's guild id; empty where there is none.
    pub workspace: String,
    /// The immutable user id.
    pub user: String,
    /// The name to show. Untrusted.
    #[serde(default)]
    pub display: String,
    /// Anything that forbids the person to decide: a bot, a guest, another organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barred: Option<Barred>,
}

/// Why an identity may never act, whatever it is linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Barred {
    /// A bot or an app.
    Bot,
    /// A guest of the workspace.
    Guest,
    /// A member of another workspace.
    Stranger,
}

/// The channel and message of a card.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Channel id on the platform.
    pub channel: String,
    /// Message id on the platform (`ts` on Slack, a snowflake on Discord).
    pub message: String,
}

/// How to answer in private. Its content belongs to the platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The platform that can read `token`.
    pub platform: String,
    /// Opaque: Slack's `response_url`, Discord's interaction token.
    pub token: String,
}

/// What a person can ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Take the incident.
    Acknowledge {
        /// Which.
        incident: IncidentId,
    },
    /// Give it back.
    Unacknowledge {
        /// Which.
        incident: IncidentId,
    },
    /// Call it resolved.
    Resolve {
        /// Which.
        incident: IncidentId,
    },
    /// Open it again.
    Reopen {
        /// Which.
        incident: IncidentId,
    },
    /// Close it for good.
    Close {
        /// Which.
        incident: IncidentId,
    },
    /// Write on its timeline.
    Note {
        /// Which.
        incident: IncidentId,
        /// What. Untrusted.
        text: String,
    },
    /// Ask for a run of a runbook.
    Run {
        /// For which incident, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incident: Option<IncidentId>,
        /// Its name. Empty, with an incident: the one that the incident's route suggests.
        runbook: String,
        /// Its parameters. Untrusted.
        #[serde(default)]
        params: serde_json::Map<String, serde_json::Value>,
    },
    /// Vote for a run.
    Approve {
        /// Which approval.
        approval: ApprovalId,
    },
    /// Vote against a run: one is enough.
    Deny {
        /// Which approval.
        approval: ApprovalId,
        /// Why. Untrusted.
        reason: String,
    },
    /// Stop a run.
    Cancel {
        /// Which.
        run: RunId,
    },
    /// Say what became of a step whose outcome nobody knew.
    Settle {
        /// Which run.
        run: RunId,
        /// What is done now.
        how: Settlement,
        /// How the person knows. Untrusted.
        reason: String,
    },
    /// Stop or restart all automation.
    Pause {
        /// True stops it.
        paused: bool,
        /// Why. Untrusted.
        reason: String,
    },
}

impl Verb {
    /// The object that the verb is about, for ordering.
    pub fn object(&self) -> Option<uuid::Uuid> {
        match self {
            Self::Acknowledge { incident }
            | Self::Unacknowledge { incident }
            | Self::Resolve { incident }
            | Self::Reopen { incident }
            | Self::Close { incident }
            | Self::Note { incident, .. } => Some(incident.0),
            Self::Run { incident, .. } => incident.map(|id| id.0),
            Self::Approve { approval } | Self::Deny { approval, .. } => Some(approval.0),
            Self::Cancel { run } | Self::Settle { run, .. } => Some(run.0),
            Self::Pause { .. } => None,
        }
    }

    /// The right that it needs.
    pub fn right(&self) -> crate::permission::Right {
        use crate::permission::Right;
        match self {
            Self::Acknowledge { .. } | Self::Unacknowledge { .. } => Right::Acknowledge,
            Self::Resolve { .. } | Self::Reopen { .. } | Self::Close { .. } => Right::Resolve,
            Self::Note { .. } => Right::Note,
            Self::Run { .. } | Self::Cancel { .. } => Right::Run,
            // To say that it ran, or to run it again, is as much as to approve it.
            Self::Approve { .. } | Self::Deny { .. } | Self::Settle { .. } => Right::Approve,
            Self::Pause { .. } => Right::Pause,
        }
    }

    /// Its name, as in the audit log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Acknowledge { .. } => "acknowledge",
            Self::Unacknowledge { .. } => "unacknowledge",
            Self::Resolve { .. } => "resolve",
            Self::Reopen { .. } => "reopen",
            Self::Close { .. } => "close",
            Self::Note { .. } => "note",
            Self::Run { .. } => "run",
            Self::Approve { .. } => "approve",
            Self::Deny { .. } => "deny",
            Self::Cancel { .. } => "cancel",
            Self::Settle { .. } => "settle",
            Self::Pause { .. } => "pause",
        }
    }
}

/// What became of an act: told to the person, returned by the API, kept with the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActOutcome {
    /// True if it took effect.
    pub done: bool,
    /// A stable word for programs: `acknowledged`, `already_decided`, `not_linked`.
    pub code: String,
    /// A sentence for the person, saying what to do where it was refused.
    pub text: String,
    /// The run that it is about, where a run was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

impl ActOutcome {
    /// It took effect.
    pub fn done(code: &str, text: impl Into<String>) -> Self {
        Self { done: true, code: code.to_owned(), text: text.into(), run: None }
    }

    /// It was refused.
    pub fn refused(code: &str, text: impl Into<String>) -> Self {
        Self { done: false, code: code.to_owned(), text: text.into(), run: None }
    }

    /// The same, about this run.
    #[must_use]
    pub fn of(mut self, run: RunId) -> Self {
        self.run = Some(run);
        self
    }
}
