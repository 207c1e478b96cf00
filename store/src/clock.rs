//! The database's clock, which all replicas share: what is due and whose lease has lapsed does not depend on the clock of one machine.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::time::Clock;
use jiff::{SignedDuration, Timestamp};

use crate::codec::micros;
use crate::gate::Line;
use crate::jobs::after;
use crate::tx::{exec, row};
use crate::{Change, Error, Store, Tx};

/// PostgreSQL's time in microseconds. The setting moves it, for tests alone: they cannot turn the server's clock.
pub(crate) const SERVER_NOW: &str = "select cast(extract(epoch from clock_timestamp()) * 1000000 as bigint) \
     + coalesce(cast(nullif(current_setting('watchkeeper.clock_offset_us', true), '') as bigint), 0)";
/// What a busy network does to an answer's time. A smaller difference changes nothing.
const JITTER: SignedDuration = SignedDuration::from_millis(100);
/// A clock that differs by more was set, and people should know.
const STEP: SignedDuration = SignedDuration::from_secs(30);

/// The server's clock as last heard, carried on by the clock of this machine that nobody can set.
#[derive(Debug)]
pub(crate) struct ServerClock(Mutex<(Instant, Timestamp)>);

impl ServerClock {
    pub(crate) fn heard(asked: Instant, micros: i64) -> Result<Self, Error> {
        Ok(Self(Mutex::new((middle(asked), timestamp(micros)?))))
    }

    /// The server said what time it is, to a question of `asked`.
    pub(crate) fn hear(&self, asked: Instant, micros: i64) -> Result<(), Error> {
        let (middle, heard) = (middle(asked), timestamp(micros)?);
        let mut anchor = self.anchor();
        let off = heard.duration_since(carry(*anchor, middle));
        if off.abs() > JITTER {
            if off.abs() > STEP {
                tracing::warn!(by = %off, "the database's clock was set: what is due follows it");
                metrics::counter!("watchkeeper_clock_steps_total").increment(1);
            }
            *anchor = (middle, heard);
        }
        Ok(())
    }

    fn anchor(&self) -> MutexGuard<'_, (Instant, Timestamp)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        let anchor = *self.anchor();
        carry(anchor, Instant::now())
    }
}

fn carry((at, time): (Instant, Timestamp), now: Instant) -> Timestamp {
    let span = |duration: Duration| SignedDuration::from_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
    match now.checked_duration_since(at) {
        Some(passed) => time.saturating_add(span(passed)).unwrap_or(time),
        None => time.saturating_sub(span(at.duration_since(now))).unwrap_or(time),
    }
}

/// The answer was made about half-way between the question and now.
fn middle(asked: Instant) -> Instant {
    asked + asked.elapsed() / 2
}

fn timestamp(micros: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(micros).map_err(|error| Error::Unavailable(format!("the database's clock is out of range: {error}")))
}

impl Tx {
    /// The time by which leases are judged and jobs become due, in microseconds: PostgreSQL's own, asked now; on SQLite this process's.
    pub(crate) async fn db_now(&mut self) -> Result<i64, Error> {
        if !self.core.server_time() {
            return Ok(micros(self.core.clock.now()));
        }
        let found: Option<(i64,)> = row!(self, SERVER_NOW);
        found.map(|(now,)| now).ok_or_else(|| Error::Unavailable("the database does not say what time it is".to_owned()))
    }
}

impl Store {
    /// The clock was set back by so much: what waits for a time that lies ahead waits for so much less, or for nothing if that time was reached by the clock
    /// as it was. Gives how many jobs do. For some it may be too early now; they look for themselves.
    ///
    /// So it is with runs, whose times cooldowns and budgets are counted from; what the run itself says stays what the clock showed. A request for
    /// approval whose beginning lies ahead cannot be given the time that is left of it: whoever waits for it looks now, and ends it.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn bring_forward(&self, by: SignedDuration) -> Result<u64, Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let now = tx.db_now().await?;
        // What the clock showed.
        let shown = after(now, by);
        let mut moved = [0; 4];
        for (count, (table, time, of)) in moved.iter_mut().zip([
            ("jobs", "due_at", "state <> 'dead'"),
            ("queue", "not_before", "not_before > 0"),
            ("runs", "finished_at", "finished_at is not null"),
            ("runs", "created_at", "1 = 1"),
        ]) {
            let sql =
                format!("update {table} set {time} = case when {time} > $1 then {time} - ($1 - $2) else $2 end where {of} and {time} > $2");
            *count = exec!(tx, sqlx::AssertSqlSafe(sql.as_str()), shown, now);
        }
        for (kind, key, state) in [("approval.expire", "id", "pending"), ("run.advance", "run_id", "approved")] {
            let of = format!("select {key} from approvals where created_at > $1 and state = '{state}'");
            let sql = format!("update jobs set due_at = $1 where kind = '{kind}' and state <> 'dead' and due_at > $1 and key in ({of})");
            exec!(tx, sqlx::AssertSqlSafe(sql.as_str()), now);
        }
        tx.changed(Change::Jobs);
        tx.changed(Change::Events);
        tx.commit().await?;
        Ok(moved[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_jitter_changes_nothing_and_a_step_is_followed() {
        let now = Instant::now();
        let clock = ServerClock::heard(now, 1_000_000_000).unwrap();
        let began = clock.now();
        clock.hear(now, 1_000_050_000).unwrap();
        assert!(clock.now().duration_since(began) < SignedDuration::from_millis(45), "{}", clock.now());
        clock.hear(Instant::now(), 4_600_000_000).unwrap();
        assert!(clock.now().as_second() >= 4_600);
    }
}
