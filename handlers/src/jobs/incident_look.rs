//! A wait of an incident is over: resolve it, close it, or ask again.

use async_trait::async_trait;
use domain::id::IncidentId;
use domain::incident::{Happening, IncidentState};
use domain::job::Job as Row;
use domain::timeline::EntryKind;

use store::Asks;

use super::{Done, Job, JobError, field};
use crate::Cx;
use crate::batch::Batch;
use crate::on_alert::as_sighting;

pub(crate) struct IncidentLook;

/// Alerts handed over in one transaction.
const MOST_MOVED: usize = 500;
/// Of so many the timeline tells the names.
const NAMED: usize = 3;

/// How far a hand-over came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// None is left, or none had to move.
    All,
    /// There may be more.
    Some,
}

#[async_trait]
impl Job for IncidentLook {
    fn kind(&self) -> &'static str {
        "incident.look"
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let (id, what): (IncidentId, String) = (field(row, "incident")?, field(row, "what")?);
        let mut batch = Batch::begin(cx).await?;
        let happening = if what == "quiet" {
            let busy = batch.tx.runs_of(id).await?.iter().any(|run| run.state.is_active() && run.started_at.is_some());
            Happening::QuietEnough { busy }
        } else {
            if hand_over(&mut batch, id).await? == Moved::Some {
                batch.commit().await?;
                return Ok(Done::Again(cx.clock.now()));
            }
            Happening::Aged
        };
        let before = batch.incident(id).await?.map(|incident| incident.state);
        if let Ok(incident) = batch.happen(id, &happening).await?
            && before != Some(incident.state)
        {
            match incident.state {
                IncidentState::Resolved | IncidentState::Closed if before.is_some_and(IncidentState::is_open) => {
                    let took = incident.opened_at.duration_until(batch.now);
                    metrics::histogram!("watchkeeper_resolve_seconds").record(took.as_secs_f64());
                    batch.tell(id, EntryKind::Resolved, None, "Resolved: none of its alerts fires any more.");
                }
                IncidentState::Closed => batch.tell(id, EntryKind::Resolved, None, "Closed."),
                _ => batch.tell(id, EntryKind::Opened, None, "Opened again: it was called resolved, and its alerts still fire."),
            }
            crate::runs::supersede_waiting(&mut batch, &incident).await?;
        }
        batch.commit().await?;
        Ok(Done::Finished)
    }
}

/// It is time to ask again about an incident that a person resolved, but another one is open for the same grouping key, and there is only ever one.
/// What still fires is told there; this one stays resolved.
async fn hand_over(batch: &mut Batch<'_>, id: IncidentId) -> Result<Moved, store::Error> {
    let Some(mut from) = batch.incident(id).await?.filter(|incident| incident.asks_again(batch.now)) else { return Ok(Moved::All) };
    let latest = batch.latest_incident(&from.source, &from.group_key).await?;
    let Some(mut to) = latest.filter(|other| other.id != id && other.state.is_open()) else { return Ok(Moved::All) };
    let found = batch.tx.incident_alerts(id, MOST_MOVED as i64).await?;
    let found: Vec<_> = found.into_iter().map(|alert| (alert.source, alert.fingerprint)).collect();
    let more = found.len() == MOST_MOVED;
    batch.preload(Asks { alerts: found.iter().cloned().collect(), ..Asks::default() }).await?;
    let mut moved = Vec::new();
    for (source, fingerprint) in found {
        let known = batch.alert(&source, &fingerprint).await?;
        let Some(mut alert) = known.filter(|alert| alert.state.is_active() && alert.incident == Some(id)) else { continue };
        moved.push(domain::route::default_title(&as_sighting(&alert)));
        alert.incident = Some(to.id);
        batch.put_alert(alert);
    }
    let count = i64::try_from(moved.len()).unwrap_or(i64::MAX);
    // Active ones come first: with room to spare there is none left.
    let more = more && moved.len() == MOST_MOVED;
    from.alerts_active = if more { (from.alerts_active - count).max(1) } else { 0 };
    from.version += 1;
    to.alerts_total += count;
    to.alerts_active += count;
    to.version += 1;
    if from.severity < to.severity {
        to.severity = from.severity;
        to.severity_name.clone_from(&from.severity_name);
    }
    let (from_number, to_number, to_id) = (from.number, to.number, to.id);
    batch.put_incident(from);
    batch.put_incident(to);
    if count > 0 {
        let _unchanged = batch.happen(to_id, &Happening::Fired).await?;
        let rest = moved.len().saturating_sub(NAMED);
        moved.truncate(NAMED);
        let names = if rest > 0 { format!("{} and {rest} more", moved.join(", ")) } else { moved.join(", ") };
        batch.tell(id, EntryKind::Alert, None, format!("Still firing, and told with #{to_number} from now on: {names}."));
        batch.tell(to_id, EntryKind::Alert, None, format!("Still firing, from #{from_number}, which was called resolved: {names}."));
    }
    Ok(if more { Moved::Some } else { Moved::All })
}
