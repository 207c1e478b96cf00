//! The budget of calls to a chat platform: a burst at once, then a steady trickle, and silence while the platform says to wait.
//!
//! Under a storm this is what turns a backlog into the newest state: jobs wait for their turn, and a card that changed ten times
//! meanwhile is drawn once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// Calls at once after a quiet time.
const BURST: f64 = 10.0;
/// Calls a second afterwards. Slack allows about one post a second and channel, and fifty updates a minute and workspace; Discord five
/// messages in five seconds and channel.
const RATE: f64 = 0.8;

/// What may be called when.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<HashMap<String, Bucket>>);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
    /// The platform said to wait until then.
    closed_until: Option<Timestamp>,
}

impl Pace {
    /// Takes a turn for a call of `platform`, or says when to ask again. The last turn is kept for what is urgent: a person waits for it.
    pub(crate) fn take(&self, platform: &str, urgent: bool, now: Timestamp) -> Result<(), Timestamp> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(platform.to_owned()).or_insert(Bucket { tokens: BURST, at: now, closed_until: None });
        if let Some(until) = bucket.closed_until.filter(|until| *until > now) {
            return Err(until);
        }
        let passed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed * RATE).min(BURST);
        bucket.at = bucket.at.max(now);
        let needed = if urgent { 1.0 } else { 2.0 };
        if bucket.tokens >= needed {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let wait = SignedDuration::try_from_secs_f64((needed - bucket.tokens) / RATE).unwrap_or(SignedDuration::from_secs(2));
        Err(now + wait)
    }

    /// The platform says to wait: nobody calls it until then.
    pub(crate) fn close(&self, platform: &str, until: Timestamp) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(platform.to_owned()).or_insert(Bucket { tokens: 1.0, at: until, closed_until: None });
        bucket.closed_until = bucket.closed_until.max(Some(until));
        bucket.tokens = bucket.tokens.min(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn a_burst_then_a_trickle() {
        let pace = Pace::default();
        let taken = (0..50).filter(|_| pace.take("slack", false, at(0)).is_ok()).count();
        assert_eq!(taken, 9);
        assert!(pace.take("slack", true, at(0)).is_ok(), "the last turn is for what is urgent");
        let next = pace.take("slack", true, at(0)).unwrap_err();
        assert_eq!(next, at(1250));
        assert!(pace.take("slack", true, next).is_ok());
        assert!(pace.take("discord", false, at(0)).is_ok(), "platforms do not wait for each other");
    }

    #[test]
    fn a_minute_under_load_stays_below_the_platforms_limits() {
        let pace = Pace::default();
        let calls = (0..60_000).step_by(10).filter(|millis| pace.take("slack", true, at(*millis)).is_ok()).count();
        assert!(calls <= 58, "{calls}");
    }

    #[test]
    fn closed_is_closed_for_everybody() {
        let pace = Pace::default();
        pace.close("slack", at(5000));
        assert_eq!(pace.take("slack", true, at(0)), Err(at(5000)));
        assert!(pace.take("slack", true, at(5000)).is_ok());
    }
}
