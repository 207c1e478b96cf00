//! The audit log: one row for every decision, in the transaction of the change itself, and the chain that binds the rows together.

mod chain;
mod cut;
mod verify;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use chain::{AuditKeys, Checkpoint, Content, Link, START, Seal, chain, chain_unreadable};
pub use cut::Cut;
pub use verify::{Fault, FaultKind, Report, Verifier};

/// A row as a decision makes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewAudit {
    /// When.
    pub at: Timestamp,
    /// Who: `principal:ann`, `identity:slack/T1/U7`, `automation`, `system`.
    pub actor: String,
    /// What was asked for: a verb's or a job's name.
    pub action: String,
    /// About what: `incident:…`, `run:…`, `approval:…`.
    pub object: String,
    /// Whether it happened.
    pub decision: AuditDecision,
    /// Why, in a stable word.
    pub reason: String,
    /// What an auditor needs: digests, votes, arguments. Redacted before it comes here.
    pub detail: Value,
}

/// Whether what was asked for happened. A version that does not know a word seals its row as unreadable, for ever: a new one must be known for a
/// release before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditDecision {
    /// It did.
    Allowed,
    /// It was refused.
    Refused,
}

/// A stored row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Its place.
    pub seq: i64,
    /// What it says.
    #[serde(flatten)]
    pub row: NewAudit,
    /// Keyed hash of this row alone, in hex.
    pub mac: String,
    /// The batch with which it was sealed into the chain; absent for the moment until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<i64>,
}

/// A stored row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Its place.
    pub seq: i64,
    /// What is wrong with it.
    pub why: String,
    /// Its keyed hash, as far as that can be read.
    pub mac: String,
}
