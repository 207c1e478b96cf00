//! The inbox: deliveries that arrive together share one transaction, and nobody is answered before it is on disk.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::act::ActOutcome;
use domain::event::Delivery;
use domain::inbox::{Accepted, Inbox, InboxError, Sealed};
use tokio::sync::{mpsc, oneshot};

use crate::at_once::Arrivals;
use crate::gate::Line;
use crate::open::Core;
use crate::prepared::Prepared;
use crate::{Change, Error, Store};

/// A transaction takes at most this many deliveries, and no further one once it has this many events.
const BATCH: usize = 256;
const BATCH_EVENTS: usize = 2_000;
/// A store that does not answer for this long, and a millisecond more per event, is called unavailable.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the outcome of an act is looked up without a hint.
const LOOK: Duration = Duration::from_millis(250);

/// The way to the one task that stores deliveries.
#[derive(Clone, Debug)]
pub(crate) struct Intake(mpsc::Sender<Waiting>);

/// A delivery in line, and whom to tell.
#[derive(Debug)]
struct Waiting {
    delivery: Prepared,
    reply: oneshot::Sender<Result<Accepted, InboxError>>,
}

impl Waiting {
    /// Whether it is to be stored. Somebody whose act was not answered in time was told to try again: it must not happen twice. What a machine sent is stored all the
    /// same: a repeat of it is found out.
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() || !self.delivery.rows().iter().any(|row| row.person)
    }
}

#[async_trait]
impl Inbox for Store {
    async fn accept(&self, delivery: Delivery) -> Result<Accepted, InboxError> {
        self.intake.take(Prepared::new(delivery).await?).await
    }

    fn wants_sealed(&self, events: usize) -> bool {
        self.core.unopened.opener().is_some() && self.core.decider(events).is_none()
    }

    async fn accept_sealed(&self, sealed: Sealed) -> Result<Accepted, InboxError> {
        self.intake.take(Prepared::sealed(sealed).await?).await
    }

    async fn outcome(&self, seq: i64, wait: Duration) -> Result<Option<ActOutcome>, InboxError> {
        let mut changes = self.changes();
        // Whoever does not wait still gets what is known, however slow the answer is.
        if let Some(outcome) = self.read().await?.outcome(seq).await? {
            return Ok(Some(outcome));
        }
        let wanted = async {
            loop {
                if let Some(outcome) = self.read().await?.outcome(seq).await? {
                    return Ok::<_, Error>(outcome);
                }
                // A hint that was missed, or a decision by another replica, is found by looking again.
                let hint = async { while !matches!(changes.recv().await, Ok(Change::Outcome(n)) if n == seq) {} };
                let _ = tokio::time::timeout(LOOK, hint).await;
            }
        };
        match tokio::time::timeout(wait, wanted).await {
            Ok(outcome) => Ok(Some(outcome?)),
            Err(_) => Ok(None),
        }
    }
}

impl Intake {
    /// Waits until a delivery is stored.
    async fn take(&self, delivery: Prepared) -> Result<Accepted, InboxError> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Waiting { delivery, reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => InboxError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => InboxError::Unavailable("the store is closed".to_owned()),
        })?;
        answer.await.map_err(|_| InboxError::Unavailable("the store is closed".to_owned()))?
    }

    /// How many wait for the one that is being stored.
    #[cfg(test)]
    pub(crate) fn in_line(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }

    pub(crate) fn start(core: Arc<Core>, max_waiting: usize) -> Self {
        let (line, mut arrivals) = mpsc::channel(max_waiting.max(1));
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while arrivals.recv_many(&mut batch, BATCH).await > 0 {
                batch.retain(Waiting::is_wanted);
                if let Err(why) = store_all(&core, &mut batch).await {
                    // Whoever waited behind them hears it now: each would wait as long for the same answer.
                    batch.extend(std::iter::from_fn(|| arrivals.try_recv().ok()));
                    refuse(std::mem::take(&mut batch), &why);
                }
            }
        });
        Self(line)
    }
}

/// Stores what waits, in transactions of bounded size, and answers everybody; or says why the store is unavailable, with the rest unanswered.
async fn store_all(core: &Arc<Core>, waiting: &mut Vec<Waiting>) -> Result<(), String> {
    while !waiting.is_empty() {
        let mut events = 0;
        let fitting = waiting.iter().take_while(|w| {
            let fits = events < BATCH_EVENTS;
            events += w.delivery.events();
            fits
        });
        let count = fitting.count();
        let batch: Vec<Waiting> = waiting.drain(..count).collect();
        let deliveries: Vec<&Prepared> = batch.iter().map(|waiting| &waiting.delivery).collect();
        match store(core, &deliveries).await {
            Ok(accepted) => {
                for (waiting, accepted) in batch.into_iter().zip(accepted) {
                    // Somebody who went away meanwhile is stored all the same.
                    let _ = waiting.reply.send(Ok(accepted));
                }
            }
            // One bad delivery must not fail the others.
            Err(Error::Unavailable(why)) => {
                refuse(batch, &why);
                return Err(why);
            }
            Err(_) if batch.len() > 1 => {
                for waiting in batch {
                    let answer = store(core, &[&waiting.delivery]).await.and_then(|mut one| one.pop().ok_or(Error::Retry));
                    let _ = waiting.reply.send(answer.map_err(InboxError::from));
                }
            }
            Err(error) => refuse(batch, &error.to_string()),
        }
    }
    Ok(())
}

fn refuse(batch: Vec<Waiting>, why: &str) {
    for waiting in batch {
        let _ = waiting.reply.send(Err(InboxError::Unavailable(why.to_owned())));
    }
}

/// One transaction. A deadlock between replicas that accept the same alerts in another order is resolved by trying again.
async fn store(core: &Arc<Core>, batch: &[&Prepared]) -> Result<Vec<Accepted>, Error> {
    let events: usize = batch.iter().map(|delivery| delivery.events()).sum();
    let patience = PATIENCE + Duration::from_millis(u64::try_from(events).unwrap_or(u64::MAX));
    let begun = std::time::Instant::now();
    let mut decider = core.decider(events).filter(|_| !batch.iter().any(|delivery| delivery.is_sealed()));
    let mut guessed = true;
    for _ in 0..4 {
        let once = async {
            match &decider {
                Some(decider) => {
                    let mut accepted = Vec::new();
                    decider.decide(Arrivals::new(core, batch, &mut accepted)).await?;
                    Ok(accepted)
                }
                None => {
                    let mut tx = core.begin(Line::Ingest).await?;
                    let accepted = tx.store_deliveries(batch).await?;
                    tx.changed(Change::Events);
                    tx.commit().await?;
                    Ok(accepted)
                }
            }
        };
        match tokio::time::timeout(patience, once).await {
            // Somebody had heard of it: this time it is asked.
            Ok(Err(Error::Conflict)) if decider.is_some() && std::mem::take(&mut guessed) => {}
            // A decision's failure is not the delivery's: it is stored without one, and whoever decides later finds out what it is.
            Ok(Err(_)) | Err(_) if decider.is_some() => decider = None,
            Ok(Err(Error::Retry)) => {}
            Ok(done) => {
                metrics::histogram!("watchkeeper_store_accept_duration_seconds").record(begun.elapsed().as_secs_f64());
                metrics::histogram!("watchkeeper_store_accept_batch_size").record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
                return done;
            }
            Err(_) => return Err(Error::Unavailable(format!("no answer within {patience:?}"))),
        }
    }
    Err(Error::Retry)
}
