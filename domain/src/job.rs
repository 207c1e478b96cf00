//! Obligations: what a decision left to be done, with when and how urgently.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::JobId;

/// A job as a decision makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Which kind: the name of a file in `handlers/src/jobs/`.
    pub kind: &'static str,
    /// Two waiting jobs of one kind and key are one: the sooner due time and the newer payload stay.
    pub key: String,
    /// Not before this time.
    pub due_at: Timestamp,
    /// Served in this order.
    pub urgency: Urgency,
    /// What its kind needs.
    pub payload: Value,
}

/// Who is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Answers to people, approvals.
    Person,
    /// Runs and pages.
    Action,
    /// Cards, thread entries.
    Tell,
    /// Timers, upkeep.
    Upkeep,
}

impl Urgency {
    /// Its number in the database: smaller is first.
    pub fn rank(self) -> i64 {
        self as i64
    }
}

/// A job as the worker claims it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// See [`NewJob::kind`].
    pub kind: String,
    /// See [`NewJob::key`].
    pub key: String,
    /// See [`NewJob::payload`].
    pub payload: Value,
    /// How often it was tried before.
    pub attempts: i64,
    /// When it was due.
    pub due_at: Timestamp,
    /// The claim's number: a finish with another number is refused.
    pub claim: i64,
    /// Changes when a newer job of the same key arrives while this one is being carried out.
    pub revision: i64,
}
