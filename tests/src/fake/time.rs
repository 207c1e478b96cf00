//! The clock of a fake: real time, moved ahead by a test, or a test's own clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

type Source = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the platform believes the time to be. Clones share one clock.
#[derive(Clone, Default)]
pub struct Time(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    source: Option<Source>,
    ahead: SignedDuration,
}

impl Time {
    /// The platform's present.
    pub fn now(&self) -> Timestamp {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let base = inner.source.as_ref().map_or_else(real, |source| source());
        base.saturating_add(inner.ahead).unwrap_or(base)
    }

    /// Lets `by` pass at once: limits refill, tokens and links expire.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ahead = inner.ahead.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX));
    }

    /// Follows `source` (a test's manual clock) from now on, plus whatever was advanced.
    pub fn follow(&self, source: impl Fn() -> Timestamp + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).source = Some(Arc::new(source));
    }
}

#[expect(clippy::disallowed_methods, reason = "a platform has a clock of its own")]
fn real() -> Timestamp {
    Timestamp::now()
}
