//! A sign of life came: note it, and end the incident about its silence.

use domain::event::{Event, Heartbeat, Sighting, Status};
use jiff::Timestamp;
use store::HeartbeatRow;

use crate::batch::Batch;
use crate::on_alert;

/// The source of alerts about Watchkeeper itself and about its sources' silence.
pub(crate) const SELF: &str = "watchkeeper";

/// Handles one sign of life.
pub(crate) async fn handle(batch: &mut Batch<'_>, event: &Event, heartbeat: &Heartbeat) -> Result<(), store::Error> {
    let before = batch.tx.heartbeat(&event.source, &heartbeat.name).await?;
    let row = HeartbeatRow {
        source: event.source.clone(),
        name: heartbeat.name.clone(),
        within: heartbeat.within,
        last_seen: event.last_seen.max(before.as_ref().map_or(event.last_seen, |row| row.last_seen)),
        alarmed: false,
    };
    batch.tx.put_heartbeat(&row).await?;
    if before.is_some_and(|row| row.alarmed) {
        // It ended when the sign was heard, not now: the next silence may be shorter than the time between the two.
        over(batch, &row, row.last_seen).await?;
    }
    Ok(())
}

/// Opens an incident about a heartbeat that stopped.
pub(crate) async fn silent(batch: &mut Batch<'_>, mut row: HeartbeatRow) -> Result<(), store::Error> {
    row.alarmed = true;
    batch.tx.put_heartbeat(&row).await?;
    let sighting = silence(&row, row.within.after(row.last_seen), None);
    on_alert::handle(batch, &as_event(&sighting, batch.now), &sighting, None).await
}

/// Nobody waits for it any more.
pub(crate) async fn forget(batch: &mut Batch<'_>, row: HeartbeatRow) -> Result<(), store::Error> {
    batch.tx.forget_heartbeat(&row.source, &row.name).await?;
    if row.alarmed {
        over(batch, &row, batch.now).await?;
    }
    Ok(())
}

/// Its silence ended at `end`; not before it began, which is when the sign was due.
async fn over(batch: &mut Batch<'_>, row: &HeartbeatRow, end: Timestamp) -> Result<(), store::Error> {
    let began = batch.alert(SELF, &fingerprint(row)).await?.map_or(end, |alert| alert.starts_at);
    let sighting = silence(row, began, Some(end.max(began)));
    on_alert::handle(batch, &as_event(&sighting, batch.now), &sighting, None).await
}

fn fingerprint(row: &HeartbeatRow) -> String {
    format!("silence/{}/{}", row.source, row.name)
}

fn silence(row: &HeartbeatRow, starts_at: Timestamp, ends_at: Option<Timestamp>) -> Sighting {
    let summary = format!(
        "{} of source {} was not heard since {} and must come every {}. Its monitoring may be down: look there first.",
        row.name, row.source, row.last_seen, row.within
    );
    Sighting {
        fingerprint: fingerprint(row),
        status: if ends_at.is_some() { Status::Resolved } else { Status::Firing },
        labels: [("alertname", "HeartbeatMissing"), ("severity", "critical"), ("source", &row.source), ("heartbeat", &row.name)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        annotations: [("summary".to_owned(), summary)].into(),
        starts_at,
        ends_at,
        generator_url: None,
        external_url: None,
        cut: 0,
    }
}

/// An alert of our own as an event; it is decided in the transaction that found it, so it passes no inbox.
pub(crate) fn as_event(sighting: &Sighting, now: Timestamp) -> Event {
    let new = domain::event::NewEvent::sighting(SELF, sighting.clone());
    Event { seq: 0, key: new.key, source: SELF.to_owned(), received_at: now, last_seen: now, seen: 1, attempts: 0, payload: new.payload }
}
