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
/// So many calls in a row that did not come through are more than one card's bad luck.
const FAILURES_IN_A_ROW: u32 = 5;
/// The longest that a platform is left alone because it cannot be reached.
const MOST_AWAY: SignedDuration = SignedDuration::from_secs(30);
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
    /// The platform said to wait until then, or could not be reached.
    closed_until: Option<Timestamp>,
    /// How many calls in a row did not come through.
    failed: u32,
}

impl Pace {
    /// Takes a turn for a call of `platform`, or says when to ask again. The last turn is kept for what is urgent: a person waits for it.
    pub(crate) fn take(&self, chat: &dyn Chat, urgent: bool, now: Timestamp) -> Result<(), Timestamp> {
        let (platform, budget) = (chat.platform(), chat.budget());
        self.take_of(platform, budget, urgent, now)
    }

    fn take_of(&self, platform: &str, Budget { burst, per_second }: Budget, urgent: bool, now: Timestamp) -> Result<(), Timestamp> {
        let mut buckets = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(platform.to_owned()).or_insert(Bucket { tokens: burst, at: now, closed_until: None, failed: 0 });
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

    /// Takes a turn for drawing a card with a call of `chat`, or says when to ask again: ten thousand alerts change it for seconds, and are a handful
    /// of edits. A turn that the platform has not left is none of the card's either.
    pub(crate) fn draw(&self, card: &str, chat: &dyn Chat, urgent: bool, now: Timestamp) -> Result<(), Timestamp> {
        self.draw_if(card, now, || self.take(chat, urgent, now))
    }

    fn draw_if(&self, card: &str, now: Timestamp, take: impl FnOnce() -> Result<(), Timestamp>) -> Result<(), Timestamp> {
        let mut cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        let before = cards.get(card).copied().filter(|edits| !edits.rested(now));
        if let Some(edits) = before
            && now < edits.last + edits.gap()
        {
            return Err(edits.last + edits.gap());
        }
        take()?;
        if before.is_none() && cards.len() >= MOST_CARDS {
            cards.retain(|_, edits| !edits.rested(now));
        }
        cards.insert(card.to_owned(), Edits { last: now, count: before.map_or(0, |edits| edits.count) + 1 });
        Ok(())
    }

    /// The platform says to wait: nobody calls it until then.
    pub(crate) fn close(&self, platform: &str, until: Timestamp) {
        let mut buckets = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(platform.to_owned()).or_insert(Bucket { tokens: 1.0, at: until, closed_until: None, failed: 0 });
        bucket.closed_until = bucket.closed_until.max(Some(until));
        bucket.tokens = bucket.tokens.min(1.0);
    }

    /// Begins anew, as with a start: the clock by which everything was reckoned was set back.
    pub(crate) fn forget(&self) {
        self.platforms.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.cards.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A call came through, or did not. A platform that cannot be reached time after time is left alone for a while, so that what waits for it does not
    /// knock all the time.
    pub(crate) fn heard(&self, platform: &str, reached: bool, now: Timestamp) {
        let mut buckets = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = buckets.get_mut(platform) else { return };
        if reached {
            bucket.failed = 0;
            return;
        }
        bucket.failed += 1;
        if let Some(doublings) = bucket.failed.checked_sub(FAILURES_IN_A_ROW) {
            let pause = (SignedDuration::from_secs(1) * (1 << doublings.min(10))).min(MOST_AWAY);
            bucket.closed_until = bucket.closed_until.max(Some(now + pause));
            bucket.tokens = bucket.tokens.min(1.0);
        }
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

    fn draw(pace: &Pace, card: &str, millis: i64) -> Result<(), Timestamp> {
        pace.draw_if(card, at(millis), || Ok(()))
    }

    #[test]
    fn a_card_that_goes_on_changing_is_drawn_less_and_less_often() {
        let pace = Pace::default();
        let drawn: Vec<i64> = (0..20_000).step_by(10).filter(|millis| draw(&pace, "one", *millis).is_ok()).collect();
        assert_eq!(drawn, [0, 10, 20, 1_020, 3_020, 7_020, 15_020]);
        assert!(draw(&pace, "two", 15_020).is_ok(), "cards do not wait for each other");
        assert_eq!(draw(&pace, "one", 20_000), Err(at(23_020)));
        for millis in [31_020, 31_030, 31_040] {
            assert!(draw(&pace, "one", millis).is_ok(), "it was left alone");
        }
    }

    #[test]
    fn a_turn_that_the_platform_has_not_left_is_no_edit() {
        let pace = Pace::default();
        for millis in 0..20 {
            assert_eq!(pace.draw_if("one", at(millis * 1500), || Err(at(millis * 1500 + 1250))), Err(at(millis * 1500 + 1250)));
        }
        for millis in [30_000, 30_010, 30_020, 31_020] {
            assert!(draw(&pace, "one", millis).is_ok(), "it was not drawn yet: {millis}");
        }
    }

    #[test]
    fn a_platform_out_of_reach_is_left_alone_for_a_while_and_never_for_long() {
        let pace = Pace::default();
        let mut now = 0;
        let mut tries = 0;
        while now < 3_600_000 {
            match pace.take_of("slack", Budget::default(), true, at(now)) {
                Ok(()) => {
                    tries += 1;
                    pace.heard("slack", false, at(now));
                }
                Err(until) => {
                    assert!(until <= at(now + 30_000), "{until}");
                    now = until.as_millisecond() - at(0).as_millisecond();
                }
            }
        }
        assert!((100..300).contains(&tries), "{tries}");
        let until = pace.take_of("slack", Budget::default(), true, at(now)).err().unwrap_or(at(now));
        assert!(pace.take_of("slack", Budget::default(), true, until).is_ok());
        pace.heard("slack", true, until);
        for _ in 0..4 {
            pace.heard("slack", false, until);
        }
        let again = until + SignedDuration::from_secs(2);
        assert!(pace.take_of("slack", Budget::default(), true, again).is_ok(), "one word from it, and a few failures are bad luck again");
    }

    #[test]
    fn a_minute_under_load_stays_below_the_platforms_limits() {
        let pace = Pace::default();
        let calls = (0..60_000).step_by(10).filter(|millis| pace.take_of("slack", Budget::default(), true, at(*millis)).is_ok()).count();
        assert!(calls <= 58, "{calls}");
    }

    #[test]
    fn what_a_clock_that_was_set_back_had_closed_is_open_again() {
        let pace = Pace::default();
        let hour = 3_600_000;
        for n in 0..4 {
            assert_eq!(draw(&pace, "one", hour).is_ok(), n < 3);
        }
        pace.close("slack", at(hour));
        pace.forget();
        assert!(draw(&pace, "one", 0).is_ok());
        assert!(pace.take_of("slack", Budget::default(), false, at(0)).is_ok());
    }

    #[test]
    fn closed_is_closed_for_everybody() {
        let pace = Pace::default();
        pace.close("slack", at(5000));
        assert_eq!(pace.take_of("slack", Budget::default(), true, at(0)), Err(at(5000)));
        assert!(pace.take_of("slack", Budget::default(), true, at(5000)).is_ok());
    }
}
