//! Loads what a card shows and composes it for the place where it stands or goes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::card::{ButtonKind, Card};
use domain::composing::{self, CARD_ALERTS, Parts};
use domain::id::{IncidentId, JobId};
use domain::rules::RuleSet;
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

/// A channel of a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) platform: String,
    pub(crate) channel_id: String,
}

impl Spot {
    /// Where a channel's cards go, as it is configured now.
    pub(crate) fn configured(rules: &RuleSet, name: &str) -> Option<Self> {
        let channel = rules.channels.get(name)?;
        Some(Self { platform: channel.platform.clone(), channel_id: channel.id.clone() })
    }

    /// Where a card was posted or tried to be. The configuration may name another place by now: people press its buttons here.
    pub(crate) fn of(post: &CardPost) -> Self {
        Self { platform: post.platform.clone(), channel_id: post.channel_id.clone() }
    }
}

/// What the card of an incident shows as things stand, and where it is in a channel if it was posted; `None` if there is no such incident.
///
/// # Errors
/// If the store cannot be asked.
pub(crate) async fn parts_for(cx: &Cx, job: JobId, id: IncidentId, name: &str) -> Result<Option<CardParts>, store::Error> {
    match cx.wake.known.take(job) {
        Some(known) => Ok(Some(known)),
        None if !cx.claim.stored().await => Ok(None),
        None => cx.store.glance().await?.card_parts(id, name, i64::try_from(CARD_ALERTS).unwrap_or(5)).await,
    }
}

/// The card, with buttons that count at `spot`.
pub(crate) fn card_at(cx: &Cx, rules: &RuleSet, parts: &CardParts, spot: &Spot) -> Card {
    let CardParts { incident, alerts, runs, approval, .. } = parts;
    let parts = Parts { rules, incident, alerts, runs, approval: approval.as_ref(), now: cx.clock.now() };
    let sign = |kind: ButtonKind, object: Uuid| cx.buttons.sign(kind, object, &spot.platform, &spot.channel_id);
    composing::card(parts, &sign)
}
