//! Counts refused senders. Nobody has proved who they are, so each gets a number in the audit log and not a row: per source, reason and minute.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::time::Clock;
use jiff::Timestamp;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::auth::Refusal;

/// Counts that are not written down yet.
pub(crate) struct Refusals {
    counts: Mutex<BTreeMap<(String, &'static str, Timestamp), i64>>,
    store: Store,
    clock: Arc<dyn Clock>,
    every: Duration,
    stopping: CancellationToken,
}

impl Refusals {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, every: Duration, stopping: CancellationToken) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), store, clock, every, stopping })
    }

    /// Counts one. `source` is a configured name, or `unknown`: senders cannot make up new ones.
    ///
    /// The first count of a period starts its writing, so that however many come, the store is written once per period.
    pub(crate) fn count(self: &Arc<Self>, source: &str, why: Refusal) {
        let labels = [("source", source.to_owned()), ("reason", why.as_str().to_owned())];
        metrics::counter!("watchkeeper_events_rejected_total", &labels).increment(1);
        let now = self.clock.now();
        let minute = Timestamp::from_second(now.as_second() - now.as_second().rem_euclid(60)).unwrap_or(now);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let first = counts.is_empty();
        *counts.entry((source.to_owned(), why.as_str(), minute)).or_default() += 1;
        drop(counts);
        if first {
            let me = Arc::clone(self);
            tokio::spawn(async move {
                let _ = tokio::time::timeout(me.every, me.stopping.cancelled()).await;
                me.write().await;
            });
        }
    }

    /// Writes down what was counted. What cannot be written is logged instead.
    pub(crate) async fn write(&self) {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        if counts.is_empty() {
            return;
        }
        let written = async {
            let mut tx = self.store.begin().await?;
            for ((source, why, minute), n) in &counts {
                tx.count_refusal(source, why, *minute, *n).await?;
            }
            tx.commit().await
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, ?counts, "refused senders could not be counted in the store");
        }
    }
}
