//! The time by which things are old, kept beside them: a look every few minutes, by whichever server it is.

use domain::aging::AgingClock;
use jiff::Timestamp;
use serde_json::json;

use crate::gate::Line;
use crate::{Error, Store, Tx};

/// Where it is kept.
const CLOCK: &str = "retention.clock";

impl Store {
    /// Looks at the clock, and gives the time by which things are old from now on. To be called every few minutes.
    ///
    /// # Errors
    /// As any use of the database. [`Error::Retry`] if others are busy: try later.
    pub async fn look_at_age(&self) -> Result<Timestamp, Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let wall = self.core.clock.now();
        let before = tx.aging_clock().await?;
        let clock = match before {
            Some(before) => before.look(wall),
            None => AgingClock::new(tx.last_heard().await?, wall),
        };
        tx.set_flag(CLOCK, &json!(clock)).await?;
        tx.commit().await?;
        let doubted = clock.doubted();
        metrics::gauge!("watchkeeper_retention_clock_behind_seconds").set(doubted.unwrap_or_default().as_secs_f64());
        if let Some(by) = doubted.filter(|_| before.is_none_or(|before| before.doubted().is_none())) {
            tracing::warn!(
                by = %by,
                now = %clock.now,
                "the clock is ahead of what this store has lived through: nothing more goes for its age until the clock has been there for a day"
            );
        }
        Ok(clock.now)
    }
}

impl Tx {
    /// The time by which things are old, as of the last look; `None` before the first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn old_by(&mut self) -> Result<Option<Timestamp>, Error> {
        let wall = self.core.clock.now();
        Ok(self.aging_clock().await?.map(|clock| clock.now.min(wall)))
    }

    /// One that cannot be read is begun anew, carefully.
    async fn aging_clock(&mut self) -> Result<Option<AgingClock>, Error> {
        Ok(self.flag(CLOCK).await?.and_then(|kept| serde_json::from_value(kept).ok()))
    }
}
