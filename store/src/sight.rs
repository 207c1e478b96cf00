//! What was seen of others' leases, and for how long it has not changed, by the clock of this machine that nobody can set.
//!
//! A lease that lapsed by the database's clock may have lapsed because that clock was set. Its holder renews three times within a lease, so
//! one that was not seen to change for longer than the holder itself would trust it is given up as well: see `handlers/src/claim.rs`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;

/// Keys with the stamp that each had when it was first seen.
#[derive(Debug, Default)]
pub(crate) struct Sightings(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    stamps: HashMap<String, (i64, Instant)>,
    looked: Option<Instant>,
}

impl Sightings {
    /// For how long this key has been seen with this stamp.
    pub(crate) fn unchanged(&self, key: &str, stamp: i64) -> Duration {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.stamps.get(key) {
            Some((same, since)) if *same == stamp => since.elapsed(),
            _ => {
                seen.stamps.insert(key.to_owned(), (stamp, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Forgets all keys of this kind (their beginning) but these.
    pub(crate) fn keep(&self, kind: &str, keys: &[String]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.stamps.retain(|key, _| !key.starts_with(kind) || keys.contains(key));
    }

    /// Whether `every` has passed since this last said yes.
    pub(crate) fn is_time(&self, every: Duration) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let time = seen.looked.is_none_or(|at| at.elapsed() >= every);
        if time {
            seen.looked = Some(Instant::now());
        }
        time
    }
}

/// Whether a lease is over: it has lapsed and its holder has been silent for longer than it would trust it, or it has been silent for so long
/// that the clock must have been set back.
pub(crate) fn is_over(until: i64, now: i64, unchanged: Duration, lease: SignedDuration) -> bool {
    let lease = lease.unsigned_abs();
    (until < now && unchanged > lease * 4 / 5) || unchanged > lease * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_when_both_clocks_say_so() {
        let lease = SignedDuration::from_secs(15);
        let over = |until, unchanged| is_over(until, 100, Duration::from_secs(unchanged), lease);
        assert!(over(99, 13));
        assert!(!over(99, 11), "the database's clock was set forward: the holder still trusts it");
        assert!(!over(101, 44) && over(101, 46), "it was set back: not for ever");
    }
}
