//! Whether a job that is being carried out is still ours: asked before every effect.
//!
//! A process may be stopped for longer than its claims hold, by the machine or by its debugger, and go on as if nothing had happened. So a
//! claim is trusted for two thirds of its lease since the last renewal, by the clock that nobody can set; others take it after four fifths.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::id::JobId;
use domain::job::Job as Row;
use jiff::SignedDuration;
use store::Tx;
use tokio::sync::watch;

/// How long a claim holds without renewal.
pub(crate) const LEASE: SignedDuration = SignedDuration::from_secs(15);
/// How long it is trusted without renewal.
const TRUSTED: Duration = Duration::from_secs(10);

/// The claim under which a job is carried out. Outside of jobs there is none, and it always holds.
#[derive(Clone, Debug, Default)]
pub struct Claim(Option<Arc<Held>>);

#[derive(Debug)]
struct Held {
    job: JobId,
    number: i64,
    /// When the last successful renewal was asked for.
    renewed: Mutex<Instant>,
    lost: AtomicBool,
    /// True once it is stored; `None` if it was from the start.
    stored: Option<watch::Receiver<bool>>,
}

impl Claim {
    /// The claim of this row, which was asked for at `asked` and may still be on its way to the disk.
    pub(crate) fn new(row: &Row, asked: Instant, stored: Option<watch::Receiver<bool>>) -> Self {
        let (renewed, lost) = (Mutex::new(asked), AtomicBool::new(false));
        Self(Some(Arc::new(Held { job: row.id, number: row.claim, renewed, lost, stored })))
    }

    /// Waits until what made the job is stored: before that nobody may hear of it. False if it never will be, or nobody can tell; then there is nothing to do.
    pub(crate) async fn stored(&self) -> bool {
        match self.0.as_ref().and_then(|held| held.stored.clone()) {
            Some(mut stored) => stored.wait_for(|stored| *stored).await.is_ok(),
            None => true,
        }
    }

    /// The same as it is now.
    pub(crate) fn is_stored(&self) -> bool {
        self.0.as_ref().and_then(|held| held.stored.as_ref()).is_none_or(|stored| *stored.borrow())
    }

    /// Whether an effect may begin. Costs nothing; ask as late as possible. After a no, end the job with [`crate::jobs::JobError::Retry`] or
    /// `Done::Again`: if it is ours after all it goes on, and otherwise that is refused and nothing is lost.
    pub fn still_ours(&self) -> bool {
        let Some(held) = &self.0 else { return true };
        !held.lost.load(Ordering::SeqCst) && held.renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < TRUSTED
    }

    /// The same, asked of the database inside a transaction that must not last if somebody else has the job: for the intent of a step.
    ///
    /// # Errors
    /// [`store::Error::Conflict`] if it is not ours, or as any use of the database.
    pub async fn hold(&self, tx: &mut Tx) -> Result<(), store::Error> {
        match &self.0 {
            Some(held) => tx.hold_claim(held.job, held.number).await,
            None => Ok(()),
        }
    }

    /// What the store renews.
    pub(crate) fn key(&self) -> Option<(JobId, i64)> {
        self.0.as_ref().map(|held| (held.job, held.number))
    }

    /// It was renewed, as asked for at `asked`.
    pub(crate) fn renew(&self, asked: Instant) {
        if let Some(held) = &self.0 {
            *held.renewed.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        }
    }

    /// Somebody else has it, or nobody. True the first time.
    pub(crate) fn lose(&self) -> bool {
        self.0.as_ref().is_some_and(|held| !held.lost.swap(true, Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_trusted_for_a_while_and_never_after_it_was_lost() {
        let row = Row {
            id: JobId::new(jiff::Timestamp::UNIX_EPOCH),
            kind: "k".to_owned(),
            key: "k".to_owned(),
            payload: serde_json::Value::Null,
            attempts: 0,
            due_at: jiff::Timestamp::UNIX_EPOCH,
            claim: 1,
            revision: 1,
        };
        let now = Instant::now();
        let claim = Claim::new(&row, now, None);
        assert!(claim.still_ours());
        claim.renew(now.checked_sub(TRUSTED).unwrap());
        assert!(!claim.still_ours(), "its renewals failed for two thirds of the lease");
        claim.renew(now);
        assert!(claim.still_ours());
        assert!(claim.lose() && !claim.lose());
        claim.renew(now);
        assert!(!claim.still_ours());
        assert!(Claim::default().still_ours());
    }
}
