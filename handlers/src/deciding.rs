//! Decides what waits in the inbox: many events in one transaction, fewer where that fails, and sets aside what cannot be handled.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::event::{Event, Payload};
use domain::route::Routed;
use futures::FutureExt;
use store::{Arrivals, Asks, Decider, Key, Stored};

use crate::batch::Batch;
use crate::{Cx, on_act, on_alert, on_heartbeat};

/// Events decided in one transaction.
const BATCH: i64 = 500;
/// How often an event alone loses to other workers before it counts as one that failed: what cannot be stored may look like that, for ever.
const MOST_CLASHES: usize = 50;

/// So few events say that the worker keeps up: what comes next is decided in the transaction that stores it.
const FEW: usize = 64;

/// Decides what comes in while it is stored, as long as the worker keeps up.
pub(crate) struct AtOnce {
    cx: Cx,
    free: AtomicBool,
}

impl AtOnce {
    pub(crate) fn new(cx: Cx) -> Self {
        Self { cx, free: AtomicBool::new(false) }
    }

    /// The worker has just decided so many that waited.
    pub(crate) fn found(&self, waited: usize) {
        self.free.store(waited <= FEW, Ordering::Relaxed);
    }
}

#[async_trait]
impl Decider for AtOnce {
    fn is_free(&self) -> bool {
        self.free.load(Ordering::Relaxed) && !self.cx.wake.stopping()
    }

    async fn decide(&self, arrivals: Arrivals<'_>) -> Result<(), store::Error> {
        unless_it_panics(store_and_handle(&self.cx, arrivals))
            .await
            .inspect_err(|error| tracing::debug!(%error, "not decided at once: the worker will"))
    }
}

/// Asks the routes before anything is stored, so that one trip to the database stores what came and reads what its decision needs.
async fn store_and_handle(cx: &Cx, arrivals: Arrivals<'_>) -> Result<(), store::Error> {
    let rules = cx.rules.load_full();
    let routed: Vec<_> = arrivals.events().map(|(source, payload)| on_alert::expect(&rules, None, source, payload)).collect();
    let asks = Asks { alerts: alerts_of(arrivals.events()), groups: groups_of(arrivals.events(), &routed) };
    let (tx, stored) = arrivals.store(&asks).await?;
    let mut batch = Batch::over(cx, rules.clone(), tx);
    match stored {
        Stored::Claimed(events, known) => {
            batch.learn(asks, known);
            handle_routed(&mut batch, &events, routed).await?;
        }
        Stored::Queued(stored) => {
            let waiting = batch.tx.claim_events(BATCH).await?;
            if waiting.len() < stored {
                batch.tx.events_wait();
            }
            handle_all(&mut batch, &waiting).await?;
        }
    }
    batch.commit().await
}

/// Decides what waits in the inbox, in one transaction. Where that fails, or another worker was faster, in smaller ones, until as much is done as was in it:
/// whoever cannot be handled ends up alone, and what people wait for is first in each.
pub(crate) async fn decide(cx: &Cx) -> Result<usize, store::Error> {
    let (mut most, mut wanted, mut done, mut clashes) = (BATCH, 1, 0, 0);
    while done < wanted {
        let mut batch = Batch::begin(cx).await?;
        let mut events = batch.tx.claim_events(most).await?;
        let unopened = events.is_empty();
        if unopened {
            events = batch.tx.open_deliveries(most).await?;
        }
        if events.is_empty() {
            // That nothing is left unopened is true once it is committed.
            batch.tx.commit().await?;
            break;
        }
        let Err(error) = decide_all(batch, &events).await else {
            (done, clashes) = (done + events.len(), 0);
            most = BATCH.min(most * 2);
            continue;
        };
        if is_clash(&error) {
            clashes += usize::from(events.len() == 1);
            step_aside(cx).await;
        }
        match &events[..] {
            [event] if !unopened && (!is_clash(&error) || clashes > MOST_CLASHES) => {
                set_aside(cx, event, error).await?;
                (done, clashes) = (done + 1, 0);
            }
            failed => {
                tracing::debug!(%error, events = failed.len(), "a batch failed: a smaller one");
                if unopened {
                    // The deliveries that they came from are unopened again: only in the queue can one event fail alone.
                    cx.store.queue_unopened(BATCH).await?;
                }
                wanted = wanted.max(failed.len());
                most = i64::try_from(failed.len() / 2).unwrap_or(BATCH).max(1);
            }
        }
    }
    Ok(done)
}

/// Lets the one who was faster finish, for a time that is not the same for two.
async fn step_aside(cx: &Cx) {
    metrics::counter!("watchkeeper_decision_clashes_total").increment(1);
    let spread = u64::from(domain::id::uuid_at(cx.clock.now()).as_bytes()[15]) % 20;
    tokio::time::sleep(Duration::from_millis(5 + spread)).await;
}

/// An event failed alone: it is tried again later, and not for ever. If nothing can be stored now, that is not its fault.
async fn set_aside(cx: &Cx, event: &Event, error: store::Error) -> Result<(), store::Error> {
    if matches!(error, store::Error::Unavailable(_)) {
        return Err(error);
    }
    let dead = cx.store.fail_event(event.seq, &error.to_string(), cx.clock.now()).await?;
    tracing::error!(event.id = event.seq, %error, dead, "an event could not be handled");
    if dead {
        raise_dead_letter(cx, event, &error.to_string()).await;
    }
    Ok(())
}

/// An event that nobody could handle is an incident about ourselves; it comes in by the front door.
async fn raise_dead_letter(cx: &Cx, event: &Event, error: &str) {
    if event.source == on_heartbeat::SELF {
        return;
    }
    let now = cx.clock.now();
    let sighting = domain::event::Sighting {
        fingerprint: format!("dead-letter/{}", event.source),
        status: domain::event::Status::Firing,
        labels: [("alertname", "EventDeadLettered"), ("severity", "high"), ("source", event.source.as_str())]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        annotations: [("summary".to_owned(), format!("Event {} could not be handled and was set aside: {error}", event.seq))].into(),
        starts_at: now,
        ends_at: None,
        generator_url: None,
        external_url: None,
        cut: 0,
    };
    let delivery = domain::event::Delivery {
        source: on_heartbeat::SELF.to_owned(),
        events: vec![domain::event::NewEvent::sighting(on_heartbeat::SELF, sighting)],
        raw: bytes::Bytes::new(),
        received_at: now,
    };
    if let Err(error) = domain::inbox::Inbox::accept(&cx.store, delivery).await {
        tracing::error!(%error, "the incident about a dead letter could not be stored");
    }
}

/// Two workers decided about the same thing: the one who lost decides again.
fn is_clash(error: &store::Error) -> bool {
    matches!(error, store::Error::Conflict | store::Error::Retry)
}

/// Decides these events and commits. If it cannot, they are free for the next try when this is said.
async fn decide_all(mut batch: Batch<'_>, events: &[Event]) -> Result<(), store::Error> {
    match unless_it_panics(handle_all(&mut batch, events)).await {
        Ok(()) => unless_it_panics(batch.commit()).await,
        Err(error) => Err(batch.take_back(error).await),
    }
}

/// A decision that panics is one that failed.
async fn unless_it_panics(decision: impl Future<Output = Result<(), store::Error>>) -> Result<(), store::Error> {
    let decided = AssertUnwindSafe(decision).catch_unwind().await;
    decided.unwrap_or_else(|_| Err(store::Error::Refused("its decision panicked".to_owned())))
}

async fn handle_all(batch: &mut Batch<'_>, events: &[Event]) -> Result<(), store::Error> {
    let rules = batch.rules.clone();
    let said = || events.iter().map(|event| (event.source.as_str(), &event.payload));
    // Asking the routes about a few alerts that turn out to be active costs less than another trip to the database.
    if events.len() > FEW {
        batch.preload(Asks { alerts: alerts_of(said()), ..Asks::default() }).await?;
    }
    let routed: Vec<_> =
        said().map(|(source, payload)| on_alert::expect(&rules, batch.known_alert(source, payload), source, payload)).collect();
    batch.preload(Asks { alerts: alerts_of(said()), groups: groups_of(said(), &routed) }).await?;
    handle_routed(batch, events, routed).await
}

/// The alerts that events are about.
fn alerts_of<'e>(events: impl Iterator<Item = (&'e str, &'e Payload)>) -> BTreeSet<Key> {
    let alerts = events.filter_map(|(source, payload)| match payload {
        Payload::Alert(sighting) => Some((source.to_owned(), sighting.fingerprint.clone())),
        _ => None,
    });
    alerts.collect()
}

/// The grouping keys by which they are gathered.
fn groups_of<'e>(events: impl Iterator<Item = (&'e str, &'e Payload)>, routed: &[Option<Routed<'_>>]) -> BTreeSet<Key> {
    let groups = events.zip(routed);
    groups.filter_map(|((source, _), routed)| Some((source.to_owned(), routed.as_ref()?.incident.as_ref()?.group_key.clone()))).collect()
}

async fn handle_routed(batch: &mut Batch<'_>, events: &[Event], routed: Vec<Option<Routed<'_>>>) -> Result<(), store::Error> {
    let mut finished = Vec::with_capacity(events.len());
    for (event, routed) in events.iter().zip(routed) {
        let outcome = match &event.payload {
            Payload::Alert(sighting) => on_alert::handle(batch, event, sighting, routed).await.map(|()| None)?,
            Payload::Heartbeat(heartbeat) => on_heartbeat::handle(batch, event, heartbeat).await.map(|()| None)?,
            Payload::Act(act) => Some(on_act::handle(batch, event.seq, act).await?),
        };
        finished.push((event.seq, outcome));
    }
    batch.tx.finish_events(&finished).await
}
