//! What the worker carries out. One file a kind, one line in the list below.

use async_trait::async_trait;
use domain::job::Job as Row;
use jiff::{SignedDuration, Timestamp};

use crate::Cx;

/// A kind of job. Safe to carry out again, unless its file says otherwise.
#[async_trait]
pub(crate) trait Job: Send + Sync {
    /// Its name in the database.
    fn kind(&self) -> &'static str;

    /// How many of this kind may run at once in one process.
    fn at_once(&self) -> usize {
        4
    }

    /// The longest pause before one that failed is tried again. Those that have one are tried until they work; others are given up some day.
    fn keeps_trying(&self) -> Option<SignedDuration> {
        None
    }

    /// Carries one out.
    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError>;
}

/// How a job ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It is over.
    Finished,
    /// It is over, and did this.
    Did(store::Did),
    /// It wants to be carried out again at this time: that is no failure.
    Again(Timestamp),
}

/// How a job failed. The decision whether to retry is made where the error happens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JobError {
    /// Later, with back-off.
    #[error("{0}")]
    Retry(String),
    /// At this time: somebody said when.
    #[error("{1}")]
    RetryAt(Timestamp, String),
    /// Looked at again at this time, however often: it cannot be done as things stand, and people can change that.
    #[error("{1}")]
    Hold(Timestamp, String),
    /// Never again.
    #[error("{0}")]
    Fail(String),
}

impl From<store::Error> for JobError {
    fn from(error: store::Error) -> Self {
        Self::Retry(error.to_string())
    }
}

macro_rules! jobs {
    ($($module:ident :: $name:ident),* $(,)?) => {
        $(pub(crate) mod $module;)*

        /// All kinds.
        pub(crate) static ALL: &[&dyn Job] = &[$(&$module::$name),*];
    };
}

jobs! {
    alert_recheck::AlertRecheck,
    approval_expire::ApprovalExpire,
    chat_card::ChatCard,
    chat_message::ChatMessage,
    chat_reply::ChatReply,
    chat_thread::ChatThread,
    incident_look::IncidentLook,
    lifecycle_publish::LifecyclePublish,
    prune::Prune,
    run_advance::RunAdvance,
    upkeep::Upkeep,
}

/// The kind of this name.
pub(crate) fn find(kind: &str) -> Option<&'static dyn Job> {
    ALL.iter().copied().find(|job| job.kind() == kind)
}

/// A payload field, typed.
pub(crate) fn field<T: serde::de::DeserializeOwned>(row: &Row, name: &str) -> Result<T, JobError> {
    let value = row.payload.get(name).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|error| JobError::Fail(format!("job {} has a bad `{name}`: {error}", row.kind)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn kinds_are_unique() {
        let kinds: BTreeSet<&str> = super::ALL.iter().map(|job| job.kind()).collect();
        assert_eq!(kinds.len(), super::ALL.len());
    }
}
