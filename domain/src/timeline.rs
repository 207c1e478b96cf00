//! What happened to an incident, in the words that people read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::IncidentId;

/// One entry. Its text is data: renderers escape it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The incident.
    pub incident: IncidentId,
    /// When.
    pub at: Timestamp,
    /// A stable word for programs and icons.
    pub kind: EntryKind,
    /// Who: a principal's name, or `None` for Watchkeeper itself.
    pub who: Option<String>,
    /// One sentence.
    pub text: String,
    /// Longer text, shown as a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// Opened or reopened.
    Opened,
    /// An alert fired or resolved.
    Alert,
    /// Somebody took it or gave it back.
    Acknowledged,
    /// It was mitigated, resolved or closed.
    Resolved,
    /// A person's note.
    Note,
    /// A request for approval, a vote, its end.
    Approval,
    /// A run or a step began or ended.
    Run,
    /// A guard held something back, or something was refused.
    Refused,
}

impl EntryKind {
    /// Its word, as in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Alert => "alert",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Note => "note",
            Self::Approval => "approval",
            Self::Run => "run",
            Self::Refused => "refused",
        }
    }
}
