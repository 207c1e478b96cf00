//! The clock. Nothing else in the workspace reads the wall clock.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// Tells the time. A parameter everywhere, so that tests can move it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present time, for display, deadlines and signatures.
    fn now(&self) -> Timestamp;

    /// Whether it moves only when told to: then nothing else may tell the time in its place.
    fn is_manual(&self) -> bool {
        false
    }
}

/// The machine's clock, cut to microseconds: what the databases can hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the one home of the wall clock")]
        let now = Timestamp::now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

/// A clock that moves only when told to.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Timestamp>>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(start)))
    }

    /// Moves the clock: forward, or back by a negative span.
    pub fn advance(&self, by: SignedDuration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_manual(&self) -> bool {
        true
    }
}
