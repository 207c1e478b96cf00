//! A wait of an incident is over: resolve it, close it, or ask again.

use async_trait::async_trait;
use domain::id::IncidentId;
use domain::incident::{Happening, IncidentState};
use domain::job::Job as Row;
use domain::timeline::EntryKind;

use super::{Done, Job, JobError, field};
use crate::Cx;
use crate::batch::Batch;

pub(crate) struct IncidentLook;

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
