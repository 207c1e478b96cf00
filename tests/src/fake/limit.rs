//! Sliding-window rate limits, and who called again before the wait they were told was over.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The windows of one fake, by key. Off until a test switches them on.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) on: bool,
    /// Calls answered 429 by a limit.
    pub(crate) throttled: usize,
    /// Calls made although an earlier 429 had asked to wait longer.
    pub(crate) impatient: usize,
    windows: HashMap<String, VecDeque<Timestamp>>,
    closed_until: HashMap<String, Timestamp>,
}

/// Where a key stands after a call.
pub(crate) struct Room {
    pub(crate) left: usize,
    pub(crate) reset_after: Duration,
}

impl Limits {
    /// Counts one call under `key`, of which `max` fit into `per`.
    ///
    /// # Errors
    /// The time to wait, when there is no room.
    pub(crate) fn take(&mut self, key: &str, max: usize, per: Duration, now: Timestamp) -> Result<Room, Duration> {
        let window = self.windows.entry(key.to_owned()).or_default();
        while window.front().is_some_and(|oldest| since(*oldest, now) >= per) {
            window.pop_front();
        }
        let reset_after = window.front().map_or(per, |oldest| per.saturating_sub(since(*oldest, now)));
        if !self.on {
            return Ok(Room { left: max, reset_after });
        }
        if self.closed_until.get(key).is_some_and(|until| now < *until) {
            self.impatient += 1;
        }
        if window.len() >= max {
            self.throttled += 1;
            self.close(key, reset_after, now);
            return Err(reset_after);
        }
        window.push_back(now);
        Ok(Room { left: max - window.len(), reset_after })
    }

    /// Remembers that a caller was told to wait, by a limit or by a planted fault.
    pub(crate) fn close(&mut self, key: &str, wait: Duration, now: Timestamp) {
        let until = now.saturating_add(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)).unwrap_or(now);
        self.closed_until.insert(key.to_owned(), until);
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(then).try_into().unwrap_or_default()
}
