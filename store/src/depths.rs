//! How much waits: for metrics and `/readyz`.

use std::collections::BTreeMap;

use domain::run::Attempt;
use jiff::{SignedDuration, Timestamp};

use crate::codec::{from_doc, micros};
use crate::runs::ACTIVE;
use crate::tx::{row, rows};
use crate::{Error, Tx};

/// How much waits, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// Events waiting to be handled.
    pub queue: i64,
    /// How long the oldest of them has waited.
    pub oldest_event_age: Option<SignedDuration>,
    /// Jobs that wait or are being carried out.
    pub jobs_waiting: i64,
    /// How long the most overdue waiting job has been due.
    pub oldest_job_age: Option<SignedDuration>,
    /// Jobs that failed for good.
    pub jobs_dead: i64,
    /// Cards that did not reach their channel for more than a minute: the platform cannot be reached, or refuses them.
    pub cards_late: i64,
    /// How long the oldest row of the audit log that is not sealed has waited.
    pub oldest_unsealed_age: Option<SignedDuration>,
    /// Events that failed too often.
    pub dead_letters: i64,
    /// Runs that have not ended.
    pub runs_active: i64,
    /// Those of them whose outcome nobody knows.
    pub runs_unknown: i64,
    /// How long the one of them that waits longest has waited for a person.
    pub oldest_unknown_age: Option<SignedDuration>,
}

impl Tx {
    /// Counts what waits.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn depths(&mut self) -> Result<Depths, Error> {
        let now = micros(self.core.clock.now());
        let age = |since: Option<i64>| since.map(|since| SignedDuration::from_micros(now.saturating_sub(since).max(0)));
        let events: Option<(i64, Option<i64>)> = row!(self, "select count(*), (select seen_at from queue order by id limit 1) from queue");
        let unopened: Option<(i64, Option<i64>)> = row!(
            self,
            "select cast(coalesce(sum(events), 0) as bigint), (select received_at from unopened order by id limit 1) from unopened"
        );
        let jobs: Option<(i64, Option<i64>, i64, i64)> = row!(
            self,
            "select count(case when state <> 'dead' then 1 end), min(case when state = 'waiting' and due_at <= $1 then due_at end), \
             count(case when state = 'dead' then 1 end), \
             count(case when state <> 'dead' and kind = 'chat.card' and error is not null and created_at < $1 - 60000000 then 1 end) from jobs",
            now
        );
        // Whatever stands there as its time.
        let unsealed: Option<(i64,)> = row!(self, "select cast(at as bigint) from audit where batch is null order by seq limit 1");
        let letters: Option<(i64,)> = row!(self, "select count(*) from dead_letters");
        let runs: Option<(i64, i64)> = row!(
            self,
            "select count(*), count(case when state = 'unknown' then 1 end) from runs \
             where state in ('held', 'awaiting_approval', 'queued', 'running', 'verifying', 'unknown')"
        );
        let ((queue, in_queue), (unopened, left)) = (events.unwrap_or_default(), unopened.unwrap_or_default());
        let oldest = in_queue.into_iter().chain(left).min();
        let (jobs_waiting, due, jobs_dead, cards_late) = jobs.unwrap_or_default();
        let (runs_active, runs_unknown) = runs.unwrap_or_default();
        let unknown_since = if runs_unknown > 0 { self.unknown_since().await?.map(micros) } else { None };
        Ok(Depths {
            queue: queue + unopened,
            oldest_event_age: age(oldest),
            jobs_waiting,
            oldest_job_age: age(due),
            jobs_dead,
            cards_late,
            oldest_unsealed_age: age(unsealed.map(|(at,)| at)),
            dead_letters: letters.unwrap_or_default().0,
            runs_active,
            runs_unknown,
            oldest_unknown_age: age(unknown_since),
        })
    }

    /// Since when people are asked about the run that waits longest: it became unknown with its newest attempt that is.
    async fn unknown_since(&mut self) -> Result<Option<Timestamp>, Error> {
        let found: Vec<(String, String)> = rows!(self, sqlx::AssertSqlSafe(unknown().as_str()));
        let mut newest: BTreeMap<String, Attempt> = BTreeMap::new();
        for (run, doc) in found {
            let attempt: Attempt = from_doc("attempts", &run, &doc)?;
            let place = |attempt: &Attempt| (attempt.index, attempt.attempt);
            if newest.get(&run).is_none_or(|known| place(known) < place(&attempt)) {
                newest.insert(run, attempt);
            }
        }
        Ok(newest.into_values().filter_map(|attempt| attempt.finished_at).min())
    }
}

/// The unknown attempts of unknown runs. An aborted run keeps its own for ever, so the runs are looked at first: SQLite keeps the order of a cross join.
pub(crate) fn unknown() -> String {
    format!(
        "select a.run_id, a.doc from runs r cross join attempts a \
         where a.run_id = r.id and r.{ACTIVE} and r.state = 'unknown' and a.state = 'unknown'"
    )
}
