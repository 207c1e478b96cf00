//! State behind a lock that tests can wait on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A value whose every change wakes those who wait for a condition over it.
pub(crate) struct Shared<S> {
    state: Mutex<S>,
    changed: watch::Sender<()>,
}

impl<S> Shared<S> {
    pub(crate) fn new(state: S) -> Self {
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// Looks at the state, and may mark things as seen, without waking anybody.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state and wakes everybody who waits.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut S) -> T) -> T {
        let result = self.look(change);
        self.changed.send_replace(());
        result
    }

    /// Waits until `find` finds something; `None` once `within` has passed.
    pub(crate) async fn wait<T>(&self, within: Duration, mut find: impl FnMut(&mut S) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = self.look(&mut find) {
                return Some(found);
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                _ => return self.look(&mut find),
            }
        }
    }
}
