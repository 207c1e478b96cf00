//! Hands that are free: what a decision leaves to be done now is claimed in the decision's own transaction and begins with its commit.
//! A card of which all is known is drawn before, and posted then.
//!
//! Without a free hand, in a process that has no worker, or when the worker stops, a job waits in the database for whoever takes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use domain::job::Job as Row;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::jobs;

/// How many jobs of each kind may be under way in this process, and who carries out what is taken at once.
pub(crate) struct Hands {
    slots: HashMap<&'static str, Arc<Semaphore>>,
    freed: Arc<Notify>,
    worker: Mutex<Option<Box<Start>>>,
}

/// A hand, for one job.
#[derive(Debug)]
pub(crate) struct Hand {
    slot: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

/// How a job is begun.
type Start = dyn Fn(Taken) + Send + Sync;

/// A job that is ours since it was made.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) row: Row,
    /// Before its claim was stored.
    pub(crate) asked: Instant,
    pub(crate) hand: Hand,
    /// True once its claim is stored; closed if it is not.
    pub(crate) stored: watch::Receiver<bool>,
}

impl Default for Hands {
    fn default() -> Self {
        let slots = jobs::ALL.iter().map(|job| (job.kind(), Arc::new(Semaphore::new(job.at_once())))).collect();
        Self { slots, freed: Arc::default(), worker: Mutex::default() }
    }
}

impl Hands {
    /// From now on jobs may be taken at once, and `start` begins them.
    pub(crate) fn open(&self, start: impl Fn(Taken) + Send + Sync + 'static) {
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(start));
    }

    /// Nothing is taken at once any more.
    pub(crate) fn close(&self) {
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A hand for a job of this kind, if there is a worker and one is free.
    pub(crate) fn take(&self, kind: &str) -> Option<Hand> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?;
        self.one(kind)
    }

    /// A hand for a job of this kind, if one is free.
    pub(crate) fn one(&self, kind: &str) -> Option<Hand> {
        let slot = self.slots.get(kind)?.clone().try_acquire_owned().ok()?;
        Some(Hand { slot: Some(slot), freed: Arc::clone(&self.freed) })
    }

    /// How many are free, by kind.
    pub(crate) fn free(&self) -> Vec<(&'static str, i64)> {
        let free = |slots: &Semaphore| i64::try_from(slots.available_permits()).unwrap_or(i64::MAX);
        self.slots.iter().map(|(kind, slots)| (*kind, free(slots))).collect()
    }

    /// Until a kind that had none has a hand again.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Begins what was taken. A worker that stopped meanwhile leaves it claimed: whoever looks for claims that nobody holds frees it.
    pub(crate) fn give(&self, taken: Taken) {
        if let Some(start) = &*self.worker.lock().unwrap_or_else(PoisonError::into_inner) {
            start(taken);
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let none_was_free = slot.semaphore().available_permits() == 0;
        drop(slot);
        if none_was_free {
            self.freed.notify_one();
        }
    }
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands").field("slots", &self.slots).finish_non_exhaustive()
    }
}
