//! The life of one incident, as a pure function of what happens to it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::Labels;
use crate::id::IncidentId;

/// How long a person's resolve holds while the alert still fires, before they are asked again.
pub const ASK_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// One incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// Its number for people: `#142`.
    pub number: i64,
    /// The source whose alerts it gathers.
    pub source: String,
    /// What its alerts have in common. At most one open incident exists per source and grouping key.
    pub group_key: String,
    /// The route that opened it.
    pub route: String,
    /// One line for people. Untrusted.
    pub title: String,
    /// A paragraph for people, from the annotations. Untrusted.
    pub summary: String,
    /// Index into the rule set's severities: 0 is the worst.
    pub severity: usize,
    /// That severity's name when it opened, in the user's own scheme.
    pub severity_name: String,
    /// Where it stands.
    pub state: IncidentState,
    /// The labels that its alerts were grouped by. Untrusted.
    pub labels: Labels,
    /// The configured channels that hold its card.
    pub channels: BTreeSet<String>,
    /// When it opened.
    pub opened_at: Timestamp,
    /// When somebody took it, and who.
    pub acked: Option<(Timestamp, String)>,
    /// By when it should be taken.
    pub ack_due: Option<Timestamp>,
    /// Since when all members are resolved; `None` while one is active.
    pub quiet_since: Option<Timestamp>,
    /// When it was resolved, and by whom (`None` is by its alerts).
    pub resolved: Option<(Timestamp, Option<String>)>,
    /// When it was closed.
    pub closed_at: Option<Timestamp>,
    /// How often it was reopened.
    pub reopened: u32,
    /// How many alerts belong to it.
    pub alerts_total: i64,
    /// How many of them are active.
    pub alerts_active: i64,
    /// What the automation does about it, in one line for people.
    pub automation: Option<String>,
    /// Digest of the rule set that opened it.
    pub rule_set: String,
    /// Links for people: name and address. Untrusted.
    pub links: Vec<(String, String)>,
    /// Grows with every change that a card would show.
    pub version: i64,
}

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// Nobody has it.
    Open,
    /// Somebody has it.
    Acknowledged,
    /// A remedy passed its verification; the alerts have not resolved yet.
    Mitigated,
    /// Over, but a re-fire reopens it.
    Resolved,
    /// Over.
    Closed,
}

impl IncidentState {
    /// Whether it counts as open: one such incident per source and grouping key.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Acknowledged | Self::Mitigated)
    }

    /// Its word, as in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Mitigated => "mitigated",
            Self::Resolved => "resolved",
            Self::Closed => "closed",
        }
    }
}

/// The waits of an incident, from the rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// All members resolved for this long resolves it.
    pub resolve_after: SignedDuration,
    /// A re-fire within this long after the resolve reopens it.
    pub reopen_within: SignedDuration,
    /// Resolved for this long closes it.
    pub close_after: SignedDuration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            resolve_after: SignedDuration::from_mins(2),
            reopen_within: SignedDuration::from_mins(30),
            close_after: SignedDuration::from_hours(24),
        }
    }
}

/// What can happen to an incident.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// One of its alerts began a new episode.
    Fired,
    /// Its last active alert resolved.
    Quiet,
    /// The wait after `Quiet` is over; `busy` if a run is active.
    QuietEnough {
        /// A run is active: it must end first.
        busy: bool,
    },
    /// A remedy passed its verification.
    Remedied,
    /// The time to ask again, or to close, has come.
    Aged,
    /// Somebody took it.
    Acknowledge(String),
    /// Somebody gave it back.
    Unacknowledge(String),
    /// Somebody calls it resolved.
    Resolve(String),
    /// Somebody opens it again.
    Reopen(String),
    /// Somebody closes it.
    Close(String),
}

/// What must follow a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Follow {
    /// Look again at this time, with [`Happening::QuietEnough`].
    LookWhenQuiet(Timestamp),
    /// Look again at this time, with [`Happening::Aged`].
    LookWhenAged(Timestamp),
}

/// Why nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unchanged {
    /// It was so already.
    #[error("#{number} is already {state}{by}.")]
    Already {
        /// Its number.
        number: i64,
        /// Its state.
        state: &'static str,
        /// ` by NAME`, or nothing.
        by: String,
    },
    /// It is closed: nothing changes it any more.
    #[error("#{0} is closed. A new alert opens a new incident.")]
    Closed(i64),
    /// Too late to reopen.
    #[error("#{0} was resolved too long ago to be reopened. A new alert opens a new incident.")]
    TooLate(i64),
    /// The happening is about a moment that has passed.
    #[error("nothing to do")]
    Passed,
}

impl Incident {
    /// What becomes of it.
    ///
    /// # Errors
    /// Says why nothing changed; that is no fault.
    pub fn on(&self, happening: &Happening, now: Timestamp, waits: &Waits) -> Result<(Self, Vec<Follow>), Unchanged> {
        let mut next = self.clone();
        let follow = match happening {
            Happening::Fired => next.fired(now, waits)?,
            Happening::Quiet => {
                if self.quiet_since.is_some() || !self.state.is_open() {
                    return Err(Unchanged::Passed);
                }
                next.quiet_since = Some(now);
                vec![Follow::LookWhenQuiet(now + waits.resolve_after)]
            }
            Happening::QuietEnough { busy } => next.quiet_enough(*busy, now, waits)?,
            Happening::Remedied => {
                if !matches!(self.state, IncidentState::Open | IncidentState::Acknowledged) {
                    return Err(Unchanged::Passed);
                }
                next.state = IncidentState::Mitigated;
                Vec::new()
            }
            Happening::Aged => next.aged(now, waits)?,
            Happening::Acknowledge(who) => {
                next.refuse_unless(self.state == IncidentState::Open || (self.state == IncidentState::Mitigated && self.acked.is_none()))?;
                next.acked = Some((now, who.clone()));
                if self.state == IncidentState::Open {
                    next.state = IncidentState::Acknowledged;
                }
                Vec::new()
            }
            Happening::Unacknowledge(_) => {
                next.refuse_unless(self.state == IncidentState::Acknowledged)?;
                next.acked = None;
                next.state = IncidentState::Open;
                Vec::new()
            }
            Happening::Resolve(who) => {
                next.refuse_unless(self.state.is_open())?;
                next.resolve(now, Some(who.clone()), waits)
            }
            Happening::Reopen(_) => {
                next.refuse_unless(self.state == IncidentState::Resolved)?;
                next.reopen(now, waits)?
            }
            Happening::Close(_) => {
                next.refuse_unless(self.state != IncidentState::Closed)?;
                next.close(now);
                Vec::new()
            }
        };
        next.version += 1;
        Ok((next, follow))
    }

    /// Whether a re-fire now would reopen it rather than open another.
    pub fn may_reopen(&self, now: Timestamp, waits: &Waits) -> bool {
        self.state == IncidentState::Resolved && self.resolved.as_ref().is_some_and(|(at, _)| now.duration_since(*at) < waits.reopen_within)
    }

    /// Whether it is time to ask again: a person called it resolved, and its alerts still fire.
    pub fn asks_again(&self, now: Timestamp) -> bool {
        self.state == IncidentState::Resolved
            && self.alerts_active > 0
            && self.resolved.as_ref().is_some_and(|(at, _)| now >= *at + ASK_AGAIN)
    }

    fn fired(&mut self, now: Timestamp, waits: &Waits) -> Result<Vec<Follow>, Unchanged> {
        if self.state.is_open() {
            self.quiet_since = None;
            if self.state == IncidentState::Mitigated {
                self.state = if self.acked.is_some() { IncidentState::Acknowledged } else { IncidentState::Open };
            }
            return Ok(Vec::new());
        }
        self.reopen(now, waits)
    }

    fn reopen(&mut self, now: Timestamp, waits: &Waits) -> Result<Vec<Follow>, Unchanged> {
        if !self.may_reopen(now, waits) {
            return Err(Unchanged::TooLate(self.number));
        }
        self.state = if self.acked.is_some() { IncidentState::Acknowledged } else { IncidentState::Open };
        self.resolved = None;
        self.quiet_since = None;
        self.reopened += 1;
        Ok(if self.alerts_active == 0 { Vec::new() } else { vec![Follow::LookWhenAged(now + ASK_AGAIN)] })
    }

    fn quiet_enough(&mut self, busy: bool, now: Timestamp, waits: &Waits) -> Result<Vec<Follow>, Unchanged> {
        let since = self.quiet_since.filter(|_| self.state.is_open()).ok_or(Unchanged::Passed)?;
        // Told by a clock that has been set back since: the wait begins anew.
        let since = since.min(now);
        self.quiet_since = Some(since);
        let due = since + waits.resolve_after;
        if now < due {
            return Ok(vec![Follow::LookWhenQuiet(due)]);
        }
        if busy {
            // The run's end asks again.
            return Err(Unchanged::Passed);
        }
        Ok(self.resolve(now, None, waits))
    }

    fn resolve(&mut self, now: Timestamp, who: Option<String>, waits: &Waits) -> Vec<Follow> {
        self.state = IncidentState::Resolved;
        self.resolved = Some((now, who));
        if self.alerts_active > 0 {
            return vec![Follow::LookWhenAged(now + ASK_AGAIN)];
        }
        if waits.close_after.is_zero() {
            self.close(now);
            return Vec::new();
        }
        vec![Follow::LookWhenAged(now + waits.close_after)]
    }

    fn aged(&mut self, now: Timestamp, waits: &Waits) -> Result<Vec<Follow>, Unchanged> {
        let Some((at, who)) = self.resolved.take().filter(|_| self.state == IncidentState::Resolved) else {
            return Err(Unchanged::Passed);
        };
        // As with the quiet: never later than now.
        let at = at.min(now);
        self.resolved = Some((at, who));
        if self.alerts_active > 0 {
            if now < at + ASK_AGAIN {
                return Ok(vec![Follow::LookWhenAged(at + ASK_AGAIN)]);
            }
            self.state = if self.acked.is_some() { IncidentState::Acknowledged } else { IncidentState::Open };
            self.resolved = None;
            self.reopened += 1;
            return Ok(Vec::new());
        }
        if now < at + waits.close_after {
            return Ok(vec![Follow::LookWhenAged(at + waits.close_after)]);
        }
        self.close(now);
        Ok(Vec::new())
    }

    fn close(&mut self, now: Timestamp) {
        if self.resolved.is_none() {
            self.resolved = Some((now, None));
        }
        self.state = IncidentState::Closed;
        self.closed_at = Some(now);
    }

    fn refuse_unless(&self, fine: bool) -> Result<(), Unchanged> {
        if fine {
            return Ok(());
        }
        if self.state == IncidentState::Closed {
            return Err(Unchanged::Closed(self.number));
        }
        let by = match (&self.state, &self.acked, &self.resolved) {
            (IncidentState::Acknowledged, Some((_, who)), _) | (_, _, Some((_, Some(who)))) => format!(" by {who}"),
            _ => String::new(),
        };
        Err(Unchanged::Already { number: self.number, state: self.state.as_str(), by })
    }
}

#[cfg(test)]
mod tests;
