//! Loads what a card shows and composes it.

use domain::card::{ButtonKind, Card};
use domain::composing::{self, CARD_ALERTS, Parts};
use domain::id::IncidentId;
use store::Tx;
use uuid::Uuid;

use crate::Cx;

/// The card of an incident for one place, as things stand; `None` if there is no such incident.
///
/// # Errors
/// If the store cannot be asked.
pub async fn card_of(cx: &Cx, tx: &mut Tx, id: IncidentId, platform: &str, channel: &str) -> Result<Option<Card>, store::Error> {
    let Some(incident) = tx.incident(id).await? else { return Ok(None) };
    let alerts = tx.incident_alerts(id, i64::try_from(CARD_ALERTS).unwrap_or(5)).await?;
    let mut runs = tx.runs_of(id).await?;
    runs.sort_by_key(|run| std::cmp::Reverse((run.created_at, run.id)));
    let approval = match runs.first() {
        Some(run) => tx.approval_of(run.id).await?,
        None => None,
    };
    let rules = cx.rules.load();
    let parts =
        Parts { rules: &rules, incident: &incident, alerts: &alerts, runs: &runs, approval: approval.as_ref(), now: cx.clock.now() };
    let sign = |kind: ButtonKind, object: Uuid| cx.buttons.sign(kind, object, platform, channel);
    Ok(Some(composing::card(parts, &sign)))
}
