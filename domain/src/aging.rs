//! The time by which things are old. Whatever goes for its age is gone for good, so a clock that was set ahead by mistake must make nothing old:
//! its time counts once the clock has been there for a day.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A clock that is this much ahead of what was lived through is believed at once: it was kept right, or the server was started anew.
const BELIEVED: SignedDuration = SignedDuration::from_hours(1);
/// One that is further ahead must have been there for so long.
const PROOF: SignedDuration = SignedDuration::from_hours(24);
/// Two looks prove that so much time passed between them, at most: they come every five minutes, and a clock that was set proves nothing.
const LONGEST: SignedDuration = SignedDuration::from_mins(10);

/// A clock of its own, never ahead of the wall clock. It is kept in the store: looks of several servers and starts count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgingClock {
    /// Whatever else, it is this late: by this time things are old.
    pub now: Timestamp,
    /// What the wall clock showed when it was looked at last.
    looked: Timestamp,
    /// Set while the wall clock is further ahead than is believed.
    doubt: Option<Doubt>,
}

/// A time that is not believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Doubt {
    /// Where the wall clock was when this began.
    from: Timestamp,
    /// How much time has passed since, for certain.
    lived: SignedDuration,
}

impl AgingClock {
    /// The first of a store, of which this is the newest time that is known to be right.
    pub fn new(newest: Option<Timestamp>, wall: Timestamp) -> Self {
        Self { now: newest.unwrap_or(wall), looked: wall, doubt: None }.look(wall)
    }

    /// A look at the wall clock.
    #[must_use]
    pub fn look(self, wall: Timestamp) -> Self {
        let lived = wall.duration_since(self.looked).clamp(SignedDuration::ZERO, LONGEST);
        let now = after(self.now, lived);
        if wall <= after(now, BELIEVED) {
            return Self { now: wall, looked: wall, doubt: None };
        }
        let doubt = match self.doubt {
            Some(doubt) => Doubt { from: doubt.from.min(wall), lived: doubt.lived.saturating_add(lived) },
            None => Doubt { from: wall, lived: SignedDuration::ZERO },
        };
        if doubt.lived < PROOF {
            return Self { now, looked: wall, doubt: Some(doubt) };
        }
        // What was seen a day ago is believed. If the clock was set further ahead meanwhile, that is another doubt.
        Self { now: after(doubt.from, doubt.lived).min(wall), looked: wall, doubt: None }.look(wall)
    }

    /// By how much the wall clock is ahead without being believed, when it was looked at last.
    pub fn doubted(&self) -> Option<SignedDuration> {
        self.doubt.map(|_| self.looked.duration_since(self.now))
    }
}

fn after(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.saturating_add(span).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: SignedDuration = SignedDuration::from_mins(1);
    const HOUR: SignedDuration = SignedDuration::from_hours(1);
    const DAY: SignedDuration = SignedDuration::from_hours(24);

    /// A wall clock and what is made of it.
    struct Life {
        wall: Timestamp,
        clock: AgingClock,
    }

    impl Life {
        fn begin() -> Self {
            let wall = "2026-03-01T00:00:00Z".parse().unwrap();
            Self { wall, clock: AgingClock::new(None, wall) }
        }

        /// The wall clock shows so much more; by how much this one is behind it then.
        fn step(&mut self, by: SignedDuration) -> SignedDuration {
            self.wall += by;
            self.clock = self.clock.look(self.wall);
            assert!(self.clock.now <= self.wall && self.clock.doubted().is_none_or(|by| by > BELIEVED), "{:?}", self.clock);
            self.wall.duration_since(self.clock.now)
        }

        /// So long with a look every five minutes.
        fn live(&mut self, long: SignedDuration) -> SignedDuration {
            (0..long.as_mins() / 5).fold(SignedDuration::ZERO, |_, _| self.step(MINUTE * 5))
        }
    }

    #[test]
    fn a_clock_that_goes_right_is_followed_through_short_absences() {
        let mut life = Life::begin();
        for by in [MINUTE * 5, SignedDuration::from_secs(2), HOUR, SignedDuration::ZERO, MINUTE * 5] {
            assert_eq!((life.step(by), life.clock.doubted()), (SignedDuration::ZERO, None), "{by:?}");
        }
    }

    #[test]
    fn one_that_is_set_ahead_is_believed_after_a_day() {
        let mut life = Life::begin();
        assert_eq!(life.step(DAY * 400), DAY * 400 - LONGEST);
        assert_eq!(life.live(DAY - MINUTE * 5), DAY * 400 - LONGEST, "what is lived through counts, and nothing else");
        assert_eq!(life.live(MINUTE * 5), SignedDuration::ZERO);
    }

    #[test]
    fn one_that_is_set_back_again_leaves_nothing_behind() {
        let mut life = Life::begin();
        life.step(DAY * 400);
        life.live(DAY - HOUR);
        assert_eq!(life.step(-DAY * 400), SignedDuration::ZERO);
        assert_eq!(life.step(DAY * 400), DAY * 400 - LONGEST, "the day begins anew");
        assert!(life.live(DAY - HOUR) > DAY);
        // It was ahead for a day, and is right from now on.
        life.live(HOUR * 2);
        assert_eq!((life.step(-DAY * 400), life.clock.doubted()), (SignedDuration::ZERO, None));
        assert!(life.step(DAY * 400) > DAY);
    }

    #[test]
    fn a_second_step_needs_a_day_of_its_own() {
        let mut life = Life::begin();
        life.step(HOUR * 3);
        life.live(DAY - HOUR);
        life.step(DAY * 400);
        assert!(life.live(HOUR * 2) > DAY * 399, "the first step is believed, the second is not");
        assert!(life.live(DAY - HOUR * 3) > DAY * 399);
        assert_eq!(life.live(HOUR * 2), SignedDuration::ZERO);
    }

    #[test]
    fn many_steps_prove_little() {
        let mut life = Life::begin();
        for _ in 0..100 {
            life.step(DAY * 4);
        }
        assert!(life.wall.duration_since(life.clock.now) > DAY * 398);
    }

    #[test]
    fn who_was_off_for_a_month_or_every_night_catches_up() {
        let mut life = Life::begin();
        assert!(life.step(DAY * 30) > DAY * 29);
        assert_eq!(life.live(DAY), SignedDuration::ZERO);
        let mut behind = SignedDuration::ZERO;
        for _ in 0..100 {
            life.step(HOUR * 16);
            behind = behind.max(life.live(HOUR * 8));
        }
        assert!(behind > HOUR && behind < DAY * 6, "{behind:?}");
    }

    #[test]
    fn a_store_from_before_begins_with_the_newest_time_in_it() {
        let wall = Life::begin().wall;
        assert_eq!(AgingClock::new(Some(wall - MINUTE), wall).now, wall);
        assert_eq!(AgingClock::new(Some(wall - DAY), wall).now, wall - DAY);
        assert_eq!(AgingClock::new(Some(wall + DAY), wall).now, wall, "written by a clock that was ahead");
    }
}
