//! A sign of life came: note it, and end the incident about its silence.

use domain::event::{Event, Heartbeat, Sighting, Status};
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
        let back = silence(&row, Status::Resolved, batch.now);
        on_alert::handle(batch, &as_event(&back, batch.now), &back, None).await?;
    }
    Ok(())
}

/// Opens an incident about a heartbeat that stopped.
pub(crate) async fn silent(batch: &mut Batch<'_>, mut row: HeartbeatRow) -> Result<(), store::Error> {
    row.alarmed = true;
    batch.tx.put_heartbeat(&row).await?;
    let sighting = silence(&row, Status::Firing, batch.now);
    on_alert::handle(batch, &as_event(&sighting, batch.now), &sighting, None).await
}

fn silence(row: &HeartbeatRow, status: Status, now: jiff::Timestamp) -> Sighting {
    let summary = format!(
        "{} of source {} was last heard at {} and must come every {}. Its monitoring may be down: look there first.",
        row.name, row.source, row.last_seen, row.within
    );
    Sighting {
        fingerprint: format!("silence/{}/{}", row.source, row.name),
        status,
        labels: [("alertname", "HeartbeatMissing"), ("severity", "critical"), ("source", &row.source), ("heartbeat", &row.name)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        annotations: [("summary".to_owned(), summary)].into(),
        starts_at: row.last_seen,
        ends_at: (status == Status::Resolved).then_some(now),
        generator_url: None,
        external_url: None,
        cut: 0,
    }
}

/// An alert of our own as an event; it is decided in the transaction that found it, so it passes no inbox.
pub(crate) fn as_event(sighting: &Sighting, now: jiff::Timestamp) -> Event {
    let new = domain::event::NewEvent::sighting(SELF, sighting.clone());
    Event { seq: 0, key: new.key, source: SELF.to_owned(), received_at: now, last_seen: now, seen: 1, attempts: 0, payload: new.payload }
}
