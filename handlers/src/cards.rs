//! Loads what a card shows and composes it.

use domain::card::{ButtonKind, Card};
use domain::composing::{self, CARD_ALERTS, Parts};
use domain::id::IncidentId;
use store::{CardParts, Tx};
use uuid::Uuid;

use crate::Cx;

/// The card of an incident for one place, as things stand; `None` if there is no such incident.
///
/// # Errors
/// If the store cannot be asked.
pub async fn card_of(cx: &Cx, tx: &mut Tx, id: IncidentId, platform: &str, channel: &str) -> Result<Option<Card>, store::Error> {
    let most = i64::try_from(CARD_ALERTS).unwrap_or(5);
    let Some(CardParts { incident, alerts, runs, approval }) = tx.card_parts(id, most).await? else { return Ok(None) };
    let rules = cx.rules.load();
    let parts =
        Parts { rules: &rules, incident: &incident, alerts: &alerts, runs: &runs, approval: approval.as_ref(), now: cx.clock.now() };
    let sign = |kind: ButtonKind, object: Uuid| cx.buttons.sign(kind, object, platform, channel);
    Ok(Some(composing::card(parts, &sign)))
}
