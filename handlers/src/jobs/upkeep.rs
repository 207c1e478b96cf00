//! What must be looked at again and again: silent heartbeats, stale alerts, and the sign of life that we send out ourselves.

use std::collections::BTreeSet;

use async_trait::async_trait;
use domain::alert::AlertState;
use domain::job::{Job as Row, NewJob, Urgency};
use domain::timeline::EntryKind;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use store::HeartbeatRow;

use super::{Done, Job, JobError};
use crate::Cx;
use crate::batch::Batch;
use crate::on_heartbeat;

pub(crate) struct Upkeep;

/// Its kind, and the key of the one that there is.
pub(crate) const KIND: &str = "upkeep";
/// Time between two rounds.
pub(crate) const EVERY: SignedDuration = SignedDuration::from_secs(5);
/// Alerts made stale in one round.
const MOST_STALE: i64 = 500;

/// Sends our sign of life to an address outside, which raises the alarm when it stops.
#[async_trait]
pub trait Beat: Send + Sync {
    /// Sends one.
    ///
    /// # Errors
    /// Says what went wrong; it is logged, and tried again when the next one is due.
    async fn beat(&self, pulse: Pulse) -> Result<(), String>;

    /// Time between two.
    fn every(&self) -> SignedDuration;
}

/// What a sign of life says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// When it was sent.
    pub at: Timestamp,
}

#[async_trait]
impl Job for Upkeep {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn at_once(&self) -> usize {
        1
    }

    async fn run(&self, cx: &Cx, _row: &Row) -> Result<Done, JobError> {
        heartbeats(cx).await?;
        stale_alerts(cx).await?;
        beat(cx).await?;
        Ok(Done::Again(cx.clock.now() + EVERY))
    }
}

/// The job that does the first round; one for all replicas.
pub(crate) fn first(now: Timestamp) -> NewJob {
    NewJob { kind: KIND, key: KIND.to_owned(), due_at: now, urgency: Urgency::Upkeep, payload: json!({}) }
}

/// The configuration says which signs of life are waited for: one that never came is late like one that stopped, and nobody waits for one that it
/// names no more.
async fn heartbeats(cx: &Cx) -> Result<(), store::Error> {
    let rules = cx.rules.load_full();
    let named = |row: &HeartbeatRow| rules.sources.get(&row.source).and_then(|source| source.heartbeats.get(&row.name)).copied();
    let rows = cx.store.read().await?.heartbeats().await?;
    let known: BTreeSet<(&str, &str)> = rows.iter().map(|row| (row.source.as_str(), row.name.as_str())).collect();
    let wanted = rules.sources.values().flat_map(|source| source.heartbeats.keys().map(|name| (source.name.as_str(), name.as_str())));
    let new = wanted.filter(|key| !known.contains(key));
    let now = cx.clock.now();
    // One that was heard by a clock that has been set back since is waited for from now on.
    let odd = rows.iter().filter(|row| named(row) != Some(row.within) || row.is_overdue(now) || row.last_seen > now);
    let keys: Vec<_> = new.chain(odd.map(|row| (row.source.as_str(), row.name.as_str()))).collect();
    for (source, name) in keys {
        let mut batch = Batch::begin(cx).await?;
        // One may have come since: look again where it counts.
        let row = batch.tx.heartbeat(source, name).await?;
        let within = rules.sources.get(source).and_then(|source| source.heartbeats.get(name)).copied();
        match (row, within) {
            (Some(row), None) => {
                tracing::info!(source, heartbeat = name, "a heartbeat is not waited for any more: the configuration does not name it");
                on_heartbeat::forget(&mut batch, row).await?;
            }
            (None, Some(within)) => {
                let (source, name, last_seen) = (source.to_owned(), name.to_owned(), batch.now);
                batch.tx.put_heartbeat(&HeartbeatRow { source, name, within, last_seen, alarmed: false }).await?;
            }
            (Some(row), Some(within)) => {
                let row = HeartbeatRow { within, last_seen: row.last_seen.min(batch.now), ..row };
                if row.is_overdue(batch.now) {
                    tracing::warn!(source, heartbeat = name, "a heartbeat stopped");
                    on_heartbeat::silent(&mut batch, row).await?;
                } else {
                    batch.tx.put_heartbeat(&row).await?;
                }
            }
            (None, None) => {}
        }
        batch.commit().await?;
    }
    Ok(())
}

/// An alert that its source stopped repeating: nobody knows whether it holds, so automation leaves it alone.
async fn stale_alerts(cx: &Cx) -> Result<(), store::Error> {
    let rules = cx.rules.load_full();
    for source in rules.sources.keys() {
        let Some(after) = rules.stale_after(source) else { continue };
        let candidates = cx.store.read().await?.stale_candidates(source, cx.clock.now() - after, MOST_STALE).await?;
        if candidates.is_empty() {
            continue;
        }
        let mut batch = Batch::begin(cx).await?;
        let limit = batch.now - after;
        for candidate in candidates {
            let Some(mut alert) = batch.alert(&candidate.source, &candidate.fingerprint).await? else { continue };
            if alert.last_seen > limit || !matches!(alert.state, AlertState::Firing | AlertState::Flapping) {
                continue;
            }
            alert.state = AlertState::Stale;
            if let Some(id) = alert.incident {
                let name = domain::route::default_title(&crate::on_alert::as_sighting(&alert));
                batch.tell(id, EntryKind::Alert, None, format!("{name} is stale: {source} has not repeated it since {}.", alert.last_seen));
                batch.touch(id).await?;
            }
            batch.put_alert(alert);
        }
        batch.commit().await?;
    }
    Ok(())
}

/// Sent by the worker loop itself, so that a stuck worker falls silent.
async fn beat(cx: &Cx) -> Result<(), store::Error> {
    let Some(beat) = &cx.beat else { return Ok(()) };
    const LAST: &str = "beat.last";
    let now = cx.clock.now();
    let last = cx.store.read().await?.flag(LAST).await?.and_then(|at| serde_json::from_value::<Timestamp>(at).ok());
    // One that is still to come was sent before the clock was set back.
    if last.is_some_and(|last| (SignedDuration::ZERO..beat.every()).contains(&now.duration_since(last))) {
        return Ok(());
    }
    match beat.beat(Pulse { at: now }).await {
        Ok(()) => {
            metrics::gauge!("watchkeeper_heartbeat_last_success_timestamp_seconds").set(now.as_second() as f64);
            let mut tx = cx.store.begin().await?;
            tx.set_flag(LAST, &json!(now)).await?;
            tx.commit().await
        }
        Err(error) => {
            tracing::warn!(error, "our own heartbeat could not be sent");
            Ok(())
        }
    }
}
