//! Acknowledge, give back, resolve, reopen, close, note.

use domain::act::ActOutcome;
use domain::audit::AuditDecision;
use domain::id::IncidentId;
use domain::incident::{Happening, Unchanged};
use domain::permission::Granted;
use domain::text::clean_block;
use domain::timeline::EntryKind;
use serde_json::json;

use super::unknown;
use crate::batch::Batch;

/// The most text that a note keeps, in characters.
const NOTE_CHARS: usize = 4000;

/// What a person wants of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Acknowledge,
    Unacknowledge,
    Resolve,
    Reopen,
    Close,
}

impl Change {
    fn happening(self, who: &str) -> Happening {
        let who = who.to_owned();
        match self {
            Self::Acknowledge => Happening::Acknowledge(who),
            Self::Unacknowledge => Happening::Unacknowledge(who),
            Self::Resolve => Happening::Resolve(who),
            Self::Reopen => Happening::Reopen(who),
            Self::Close => Happening::Close(who),
        }
    }

    /// Audit word, outcome code and what the timeline says.
    fn words(self) -> (&'static str, &'static str, &'static str, EntryKind) {
        match self {
            Self::Acknowledge => ("acknowledge", "acknowledged", "took it", EntryKind::Acknowledged),
            Self::Unacknowledge => ("unacknowledge", "unacknowledged", "gave it back", EntryKind::Acknowledged),
            Self::Resolve => ("resolve", "resolved", "resolved it", EntryKind::Resolved),
            Self::Reopen => ("reopen", "reopened", "reopened it", EntryKind::Opened),
            Self::Close => ("close", "closed", "closed it", EntryKind::Resolved),
        }
    }
}

/// Changes an incident's state.
pub(super) async fn change(batch: &mut Batch<'_>, granted: &Granted, id: IncidentId, change: Change) -> Result<ActOutcome, store::Error> {
    let who = granted.principal().name.clone();
    let Some(incident) = batch.incident(id).await? else { return Ok(unknown("incident")) };
    if change == Change::Reopen
        && let Some(other) = batch.latest_incident(&incident.source, &incident.group_key).await?
        && other.id != id
        && other.state.is_open()
    {
        let text = format!("#{} is open for the same alerts: go on there. Only one can be open.", other.number);
        return Ok(ActOutcome::refused("already", text));
    }
    let (verb, code, text, kind) = change.words();
    match batch.happen(id, &change.happening(&who)).await? {
        Ok(incident) => {
            if change == Change::Acknowledge {
                let waited = batch.now.duration_since(incident.opened_at).as_secs_f64();
                metrics::histogram!("watchkeeper_ack_seconds").record(waited);
            }
            batch.tell(id, kind, Some(&who), format!("{who} {text}."));
            crate::runs::supersede_waiting(batch, &incident).await?;
            batch.hurry(id);
            batch.audit(&format!("principal:{who}"), verb, format!("incident:{id}"), AuditDecision::Allowed, code, json!({}));
            Ok(ActOutcome::done(code, format!("#{} is now {}.", incident.number, incident.state.as_str())))
        }
        Err(unchanged @ (Unchanged::Already { .. } | Unchanged::Passed)) => Ok(ActOutcome::refused("already", unchanged.to_string())),
        Err(unchanged @ Unchanged::Closed(_)) => Ok(ActOutcome::refused("closed", unchanged.to_string())),
        Err(unchanged @ Unchanged::TooLate(_)) => Ok(ActOutcome::refused("too_late", unchanged.to_string())),
    }
}

/// Writes a person's note on the timeline.
pub(super) async fn note(batch: &mut Batch<'_>, granted: &Granted, id: IncidentId, text: &str) -> Result<ActOutcome, store::Error> {
    let who = granted.principal().name.clone();
    let Some(incident) = batch.incident(id).await? else { return Ok(unknown("incident")) };
    let text = clean_block(text, NOTE_CHARS);
    if text.trim().is_empty() {
        return Ok(ActOutcome::refused("empty", "The note is empty: write something."));
    }
    batch.tell(id, EntryKind::Note, Some(&who), text);
    batch.audit(&format!("principal:{who}"), "note", format!("incident:{id}"), AuditDecision::Allowed, "noted", json!({}));
    Ok(ActOutcome::done("noted", format!("Noted on #{}.", incident.number)))
}
