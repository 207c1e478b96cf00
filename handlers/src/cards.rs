//! Loads what a card shows and composes it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::card::{ButtonKind, Card};
use domain::composing::{self, CARD_ALERTS, Parts};
use domain::id::{IncidentId, JobId};
use domain::rules::Channel;
use store::{CardParts, CardPost};
use uuid::Uuid;

use crate::Cx;

/// What cards show that nobody has seen yet, by their jobs: the decision that opened the incident need not be read back.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<JobId, CardParts>>);

impl Known {
    /// Keeps it for a job that begins now.
    pub(crate) fn put(&self, job: JobId, parts: CardParts) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(job, parts);
    }

    /// Gives it, once.
    pub(crate) fn take(&self, job: JobId) -> Option<CardParts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&job)
    }
}

/// The card of an incident for a channel, as things stand, and where it is there if it was posted; `None` if there is no such incident.
///
/// # Errors
/// If the store cannot be asked.
pub(crate) async fn card_for(
    cx: &Cx,
    job: JobId,
    id: IncidentId,
    name: &str,
    channel: &Channel,
) -> Result<Option<(Card, Option<CardPost>)>, store::Error> {
    let found = match cx.wake.known.take(job) {
        Some(known) => Some(known),
        None if !cx.claim.stored().await => None,
        None => cx.store.glance().await?.card_parts(id, name, i64::try_from(CARD_ALERTS).unwrap_or(5)).await?,
    };
    let Some(CardParts { incident, alerts, runs, approval, post }) = found else { return Ok(None) };
    let rules = cx.rules.load();
    let parts =
        Parts { rules: &rules, incident: &incident, alerts: &alerts, runs: &runs, approval: approval.as_ref(), now: cx.clock.now() };
    let sign = |kind: ButtonKind, object: Uuid| cx.buttons.sign(kind, object, &channel.platform, &channel.id);
    Ok(Some((composing::card(parts, &sign), post)))
}
