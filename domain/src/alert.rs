//! The life of one alert, as a pure function of what was heard.
//!
//! Identity is (source, fingerprint), never `startsAt`: Alertmanager's resolve after a flap carries another `startsAt`.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::{Labels, Sighting, Status};
use crate::id::IncidentId;

/// A firing identical to one seen before a resolve is a late duplicate only this long after that resolve.
pub const LATE_DUPLICATE: SignedDuration = SignedDuration::from_mins(2);
/// This many episodes within [`FLAP_WINDOW`] make an alert flapping.
pub const FLAP_EPISODES: usize = 3;
/// See [`FLAP_EPISODES`].
pub const FLAP_WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// What is known of an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The configured source.
    pub source: String,
    /// Identity within the source.
    pub fingerprint: String,
    /// Where it stands.
    pub state: AlertState,
    /// As last heard.
    pub labels: Labels,
    /// As last heard.
    pub annotations: Labels,
    /// Start of the present or last episode, as the source says.
    pub starts_at: Timestamp,
    /// End of the last episode, as the source says.
    pub ends_at: Option<Timestamp>,
    /// When the last resolve was heard.
    pub resolved_at: Option<Timestamp>,
    /// When a firing that came too late for the last resolve was heard; a resolve clears it.
    #[serde(default)]
    pub late_at: Option<Timestamp>,
    /// When it was first heard of.
    pub first_seen: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// How many episodes there were.
    pub episode: u32,
    /// When the latest episodes began, for flap detection; at most [`FLAP_EPISODES`].
    pub recent: Vec<Timestamp>,
    /// The incident that the present or last episode belongs to.
    pub incident: Option<IncidentId>,
    /// Links of the last sighting: graph and sender.
    pub generator_url: Option<String>,
    /// See [`Sighting::external_url`].
    pub external_url: Option<String>,
}

impl Alert {
    /// Whether a firing that is heard at `now` may be a late copy of one from before the last resolve. A resolve that is long past, or far ahead because
    /// the clock was set back since, makes none.
    pub fn was_just_resolved(&self, now: Timestamp) -> bool {
        self.resolved_at.is_some_and(|at| now.duration_since(at).abs() < LATE_DUPLICATE)
    }
}

/// Where an alert stands. `Flapping` and `Stale` alerts still count as firing; automation leaves them alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It holds.
    Firing,
    /// It no longer holds.
    Resolved,
    /// It holds, and a route or silence says not to tell.
    Suppressed,
    /// It comes and goes.
    Flapping,
    /// It was not refreshed in time: nobody knows.
    Stale,
}

impl AlertState {
    /// Whether its incident must stay open for it.
    pub fn is_active(self) -> bool {
        !matches!(self, Self::Resolved)
    }
}

/// What a sighting changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertChange {
    /// A new episode began: act on it.
    Fired,
    /// Still firing: only `last_seen` moved.
    Refreshed,
    /// The present episode ended: act on it.
    Resolved,
    /// A resolve that repeats the last one.
    StillResolved,
    /// A resolve of an alert never seen firing: recorded, nothing to do.
    UnknownResolved,
    /// A resolve older than the present firing: ignored.
    StaleResolve,
    /// A firing older than the last resolve: ignored, but looked at again at the end of [`LATE_DUPLICATE`].
    LateFiring,
}

/// Whether a firing of an active alert may be more than a repeat: it began later, or nobody knew whether the alert still held. It is a new episode
/// only if the incident of the present one is over. A plain repeat (the same `startsAt`) never is: a person closed its incident knowing that it fires.
pub fn may_be_new(before: &Alert, sighting: &Sighting) -> bool {
    let later = sighting.starts_at > before.starts_at || before.state == AlertState::Stale;
    sighting.status == Status::Firing && before.state.is_active() && later
}

/// What becomes of an alert when `sighting` is heard at `seen_at`. `None` is an alert never heard of. `over`: the incident of its present episode is
/// closed or gone; asked only where the sighting [may be new](may_be_new).
pub fn on_sighting(source: &str, before: Option<&Alert>, sighting: &Sighting, seen_at: Timestamp, over: bool) -> (Alert, AlertChange) {
    let mut alert = before.cloned().unwrap_or_else(|| unheard(source, sighting, seen_at));
    alert.last_seen = alert.last_seen.max(seen_at);
    let change = match sighting.status {
        Status::Firing if over && before.is_some_and(|before| may_be_new(before, sighting)) => {
            // Its resolve was lost, or is never told. Nobody looks at a closed incident any more.
            let starts_at = alert.starts_at.max(sighting.starts_at);
            begin_episode(&mut alert, starts_at, seen_at);
            AlertChange::Fired
        }
        Status::Firing => on_firing(&mut alert, before.is_none(), sighting, seen_at),
        Status::Resolved => on_resolved(&mut alert, before.is_none(), sighting, seen_at),
    };
    if !matches!(change, AlertChange::StaleResolve | AlertChange::LateFiring) {
        alert.labels.clone_from(&sighting.labels);
        alert.annotations.clone_from(&sighting.annotations);
        alert.generator_url.clone_from(&sighting.generator_url);
        alert.external_url.clone_from(&sighting.external_url);
    }
    (alert, change)
}

fn on_firing(alert: &mut Alert, new: bool, sighting: &Sighting, seen_at: Timestamp) -> AlertChange {
    if !new && alert.state.is_active() {
        alert.starts_at = alert.starts_at.max(sighting.starts_at);
        if alert.state == AlertState::Stale {
            alert.state = AlertState::Firing;
        }
        return AlertChange::Refreshed;
    }
    let older_than_resolve = alert.ends_at.is_some_and(|end| sighting.starts_at <= end);
    if !new && older_than_resolve && alert.was_just_resolved(seen_at) {
        alert.late_at = Some(seen_at);
        return AlertChange::LateFiring;
    }
    begin_episode(alert, sighting.starts_at, seen_at);
    AlertChange::Fired
}

/// A new episode of an alert that was resolved, or whose incident is over: also for a late firing that no resolve followed.
pub fn begin_episode(alert: &mut Alert, starts_at: Timestamp, seen_at: Timestamp) {
    alert.late_at = None;
    alert.starts_at = starts_at;
    alert.episode += 1;
    alert.recent.push(seen_at);
    alert.recent.retain(|at| seen_at.duration_since(*at) <= FLAP_WINDOW);
    let excess = alert.recent.len().saturating_sub(FLAP_EPISODES);
    alert.recent.drain(..excess);
    alert.state = if alert.recent.len() >= FLAP_EPISODES { AlertState::Flapping } else { AlertState::Firing };
}

fn on_resolved(alert: &mut Alert, new: bool, sighting: &Sighting, seen_at: Timestamp) -> AlertChange {
    // Without an end of its own it ends now; and not before it began, by a source's clock that is ahead of ours.
    let end = sighting.ends_at.unwrap_or_else(|| seen_at.max(alert.starts_at));
    if alert.starts_at <= end {
        alert.late_at = None;
    }
    if new {
        alert.state = AlertState::Resolved;
        alert.ends_at = Some(end);
        alert.resolved_at = Some(seen_at);
        return AlertChange::UnknownResolved;
    }
    if !alert.state.is_active() {
        alert.ends_at = alert.ends_at.max(Some(end));
        alert.resolved_at = alert.resolved_at.max(Some(seen_at));
        return AlertChange::StillResolved;
    }
    if end < alert.starts_at {
        return AlertChange::StaleResolve;
    }
    alert.state = AlertState::Resolved;
    alert.ends_at = Some(end);
    alert.resolved_at = Some(seen_at);
    AlertChange::Resolved
}

fn unheard(source: &str, sighting: &Sighting, seen_at: Timestamp) -> Alert {
    Alert {
        source: source.to_owned(),
        fingerprint: sighting.fingerprint.clone(),
        state: AlertState::Resolved,
        labels: sighting.labels.clone(),
        annotations: sighting.annotations.clone(),
        starts_at: sighting.starts_at,
        ends_at: None,
        resolved_at: None,
        late_at: None,
        first_seen: seen_at,
        last_seen: seen_at,
        episode: 0,
        recent: Vec::new(),
        incident: None,
        generator_url: None,
        external_url: None,
    }
}

#[cfg(test)]
mod tests;
