//! The budget of calls to a chat platform: a burst at once, then a steady trickle, and silence while the platform says to wait.
//!
//! Under a storm this is what turns a backlog into the newest state: jobs wait for their turn, and a card that changed ten times
//! meanwhile is drawn once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::chat::{Budget, Chat};
use jiff::{SignedDuration, Timestamp};

/// Edits of one card without a wait, after it was left alone for a while: what a person's press leads to is seen at once.
const EDITS_AT_ONCE: u32 = 3;
/// The wait before the next one; it doubles for as long as the card goes on changing.
const FIRST_GAP: SignedDuration = SignedDuration::from_secs(1);
/// Doublings of the wait: never more than eight seconds.
const MOST_DOUBLINGS: u32 = 3;
/// Cards remembered: those that were not touched of late are forgotten.
const MOST_CARDS: usize = 10_000;

/// What may be called when.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    platforms: Mutex<HashMap<String, Bucket>>,
    cards: Mutex<HashMap<String, Edits>>,
}

/// How often a card was drawn lately.
#[derive(Clone, Copy, Debug)]
struct Edits {
    last: Timestamp,
    count: u32,
}

impl Edits {
    /// How long after the last drawing the next one may be.
    fn gap(self) -> SignedDuration {
        match self.count.checked_sub(EDITS_AT_ONCE) {
            Some(doublings) => FIRST_GAP * (1 << doublings.min(MOST_DOUBLINGS)),
            None => SignedDuration::ZERO,
        }
    }

    /// Whether the card was left alone for so long that it starts afresh.
    fn rested(self, now: Timestamp) -> bool {
        now.duration_since(self.last) >= (self.gap() * 2).max(FIRST_GAP * 2)
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
    /// The platform said to wait until then.
    closed_until: Option<Timestamp>,
}

impl Pace {
    /// Takes a turn for a call of `platform`, or says when to ask again. The last turn is kept for what is urgent: a person waits for it.
    pub(crate) fn take(&self, chat: &dyn Chat, urgent: bool, now: Timestamp) -> Result<(), Timestamp> {
        let (platform, budget) = (chat.platform(), chat.budget());
        self.take_of(platform, budget, urgent, now)
    }

    fn take_of(&self, platform: &str, Budget { burst, per_second }: Budget, urgent: bool, now: Timestamp) -> Result<(), Timestamp> {
        let mut buckets = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(platform.to_owned()).or_insert(Bucket { tokens: burst, at: now, closed_until: None });
        if let Some(until) = bucket.closed_until.filter(|until| *until > now) {
            return Err(until);
        }
        let passed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed * per_second).min(burst);
        bucket.at = bucket.at.max(now);
        let needed = if urgent { 1.0 } else { 2.0 };
        if bucket.tokens >= needed {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let wait = SignedDuration::try_from_secs_f64((needed - bucket.tokens) / per_second).unwrap_or(SignedDuration::from_secs(2));
        Err(now + wait)
    }

    /// Takes a turn for drawing a card, or says when to ask again: ten thousand alerts change it for seconds, and are a handful of edits.
    pub(crate) fn draw(&self, card: &str, now: Timestamp) -> Result<(), Timestamp> {
        let mut cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        let before = cards.get(card).copied().filter(|edits| !edits.rested(now));
        if let Some(edits) = before
            && now < edits.last + edits.gap()
        {
            return Err(edits.last + edits.gap());
        }
        if before.is_none() && cards.len() >= MOST_CARDS {
            cards.retain(|_, edits| !edits.rested(now));
        }
        cards.insert(card.to_owned(), Edits { last: now, count: before.map_or(0, |edits| edits.count) + 1 });
        Ok(())
    }

    /// The platform says to wait: nobody calls it until then.
    pub(crate) fn close(&self, platform: &str, until: Timestamp) {
        let mut buckets = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
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
        let taken = (0..50).filter(|_| pace.take_of("slack", Budget::default(), false, at(0)).is_ok()).count();
        assert_eq!(taken, 9);
        assert!(pace.take_of("slack", Budget::default(), true, at(0)).is_ok(), "the last turn is for what is urgent");
        let next = pace.take_of("slack", Budget::default(), true, at(0)).unwrap_err();
        assert_eq!(next, at(1250));
        assert!(pace.take_of("slack", Budget::default(), true, next).is_ok());
        assert!(pace.take_of("discord", Budget::default(), false, at(0)).is_ok(), "platforms do not wait for each other");
    }

    #[test]
    fn a_card_that_goes_on_changing_is_drawn_less_and_less_often() {
        let pace = Pace::default();
        let drawn: Vec<i64> = (0..20_000).step_by(10).filter(|millis| pace.draw("one", at(*millis)).is_ok()).collect();
        assert_eq!(drawn, [0, 10, 20, 1_020, 3_020, 7_020, 15_020]);
        assert!(pace.draw("two", at(15_020)).is_ok(), "cards do not wait for each other");
        assert_eq!(pace.draw("one", at(20_000)), Err(at(23_020)));
        for millis in [31_020, 31_030, 31_040] {
            assert!(pace.draw("one", at(millis)).is_ok(), "it was left alone");
        }
    }

    #[test]
    fn a_minute_under_load_stays_below_the_platforms_limits() {
        let pace = Pace::default();
        let calls = (0..60_000).step_by(10).filter(|millis| pace.take_of("slack", Budget::default(), true, at(*millis)).is_ok()).count();
        assert!(calls <= 58, "{calls}");
    }

    #[test]
    fn closed_is_closed_for_everybody() {
        let pace = Pace::default();
        pace.close("slack", at(5000));
        assert_eq!(pace.take_of("slack", Budget::default(), true, at(0)), Err(at(5000)));
        assert!(pace.take_of("slack", Budget::default(), true, at(5000)).is_ok());
    }
}
