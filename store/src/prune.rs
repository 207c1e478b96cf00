//! Letting go of what is old, a little at a time: nobody who writes waits for long, and nothing that is open or referred to goes.

use std::time::{Duration, Instant};

use domain::id::DeliveryId;
use domain::incident::Incident;
use jiff::Timestamp;

use crate::codec::{from_doc, micros};
use crate::gate::Line;
use crate::tx::{exec, exec_rows, row, rows};
use crate::{Error, Store, Tx};

/// What may grow old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aging {
    /// Bodies as they were received.
    Deliveries,
    /// What was heard, with the outcomes of people's acts. What waits to be handled stays, and so does what failed.
    Events,
    /// Closed incidents with their timeline, alerts, runs and cards. One with a run that has not ended stays.
    Incidents,
    /// Runs that belong to no incident and have ended.
    Runs,
    /// Alerts that are over and belong to no incident.
    Alerts,
    /// Jobs that failed for good.
    DeadJobs,
    /// Events that failed too often.
    DeadLetters,
    /// Bodies that could not be read.
    Samples,
    /// Counted refusals of the unknown.
    Refusals,
}

impl Aging {
    /// All of them, in an order in which nothing is left that refers to what is gone.
    pub const ALL: [Self; 9] = [
        Self::Incidents,
        Self::Runs,
        Self::Alerts,
        Self::DeadLetters,
        Self::DeadJobs,
        Self::Samples,
        Self::Refusals,
        Self::Events,
        Self::Deliveries,
    ];

    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deliveries => "deliveries",
            Self::Events => "events",
            Self::Incidents => "incidents",
            Self::Runs => "runs",
            Self::Alerts => "alerts",
            Self::DeadJobs => "dead_jobs",
            Self::DeadLetters => "dead_letters",
            Self::Samples => "samples",
            Self::Refusals => "refusals",
        }
    }
}

/// Where a round stands with one kind: it looks at everything once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows that went; those that belong to them are not counted.
    pub rows: u64,
    /// Look further from here; `None` when nothing is left.
    pub next: Option<i64>,
    /// How long other writers were kept waiting.
    pub held: Duration,
}

impl Store {
    /// Lets go of at most `limit` rows of one kind that are older than `before`, from where the last call of this round ended (0 at first).
    ///
    /// # Errors
    /// As any use of the database. [`Error::Retry`] if others are busy: try later.
    pub async fn prune(&self, what: Aging, before: Timestamp, from: i64, limit: i64) -> Result<Pruned, Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let began = Instant::now();
        let cut = micros(before);
        let (rows, next) = match what {
            Aging::Deliveries => tx.prune_deliveries(before, limit).await?,
            Aging::Events => tx.prune_events(cut, from, limit).await?,
            Aging::Incidents => tx.prune_incidents(cut, from, limit).await?,
            Aging::Runs => tx.prune_runs(cut, limit).await?,
            Aging::Alerts => tx.prune_simply("alerts", OLD_ALERTS, cut, limit).await?,
            Aging::DeadJobs => tx.prune_simply("jobs", OLD_DEAD_JOBS, cut, limit).await?,
            Aging::DeadLetters => tx.prune_simply("dead_letters", OLD_LETTERS, cut, limit).await?,
            Aging::Samples => tx.prune_simply("samples", OLD_SAMPLES, cut, limit).await?,
            Aging::Refusals => tx.prune_simply("refusals", OLD_REFUSALS, cut, limit).await?,
        };
        tx.commit().await?;
        Ok(Pruned { rows, next, held: began.elapsed() })
    }
}

/// Key and condition of what goes by itself.
const OLD_ALERTS: [&str; 2] = ["(source, fingerprint)", "incident is null and last_seen < $1 and state in ('resolved', 'stale')"];
const OLD_DEAD_JOBS: [&str; 2] = ["id", "state = 'dead' and due_at < $1"];
const OLD_LETTERS: [&str; 2] = ["event_seq", "at < $1"];
const OLD_SAMPLES: [&str; 2] = ["id", "at < $1"];
const OLD_REFUSALS: [&str; 2] = ["(source, reason, minute)", "minute < $1 / 60000000"];

impl Tx {
    /// Each row is locked while it is looked at: one that is being changed at the moment is not old.
    async fn prune_simply(&mut self, table: &str, [key, old]: [&str; 2], cut: i64, limit: i64) -> Result<(u64, Option<i64>), Error> {
        let (columns, lock) = (key.trim_matches(['(', ')']), self.lock(" for update skip locked"));
        let sql = format!("delete from {table} where {key} in (select {columns} from {table} where {old} limit $2{lock})");
        let gone = exec!(self, sqlx::AssertSqlSafe(sql.as_str()), cut, limit);
        Ok((gone, more(gone, limit)))
    }

    /// Their ids begin with their time.
    async fn prune_deliveries(&mut self, before: Timestamp, limit: i64) -> Result<(u64, Option<i64>), Error> {
        let mut end = DeliveryId::new(before).0.into_bytes();
        end[6..].fill(0);
        let sql = "delete from deliveries where id in (select id from deliveries where id < $1 and id not in (select delivery_id from unopened) \
                   order by id limit $2)";
        let gone = exec!(self, sql, &end[..], limit);
        Ok((gone, more(gone, limit)))
    }

    /// In the order in which they came. Whoever accepts a repeat looks its event up and then queues it: on PostgreSQL nobody may be between the
    /// two while it goes. After that the repeat is an event of its own, which finds its alert as it is.
    async fn prune_events(&mut self, cut: i64, from: i64, limit: i64) -> Result<(u64, Option<i64>), Error> {
        let looked: Vec<(i64, i64)> = rows!(self, "select seq, received_at from events where seq > $1 order by seq limit $2", from, limit);
        let old: Vec<i64> = looked.iter().take_while(|(_, at)| *at < cut).map(|(seq, _)| *seq).collect();
        let Some(last) = old.last().copied() else { return Ok((0, None)) };
        if self.is_postgres() {
            exec!(self, "set local lock_timeout = '200ms'");
            exec!(self, "lock table events in share row exclusive mode");
        }
        let sql = "delete from events where seq > $1 and seq <= $2 and received_at < $3 \
                   and seq not in (select event_seq from queue where event_seq <= $2) and seq not in (select event_seq from dead_letters)";
        let gone = exec!(self, sql, from, last, cut);
        let sql = "delete from outcomes where event_seq > $1 and event_seq <= $2 \
                   and event_seq not in (select seq from events where seq > $1 and seq <= $2)";
        exec!(self, sql, from, last);
        let further = old.len() == looked.len() && looked.len() == usize::try_from(limit).unwrap_or(usize::MAX);
        Ok((gone, further.then_some(last)))
    }

    /// In the order of their numbers, which is that of their opening.
    async fn prune_incidents(&mut self, cut: i64, from: i64, limit: i64) -> Result<(u64, Option<i64>), Error> {
        // One incident may have very many entries.
        let limit = limit.min(20);
        let sql = "select number, doc from incidents where number > $1 and state = 'closed' order by number limit $2";
        let looked: Vec<(i64, String)> = rows!(self, sql, from, limit);
        let mut gone = 0;
        for (number, doc) in &looked {
            let incident: Incident = from_doc("incidents", number, doc)?;
            if micros(incident.opened_at) >= cut {
                return Ok((gone, None));
            }
            if incident.closed_at.is_some_and(|at| micros(at) < cut) && self.forget_incident(&incident.id.to_string()).await? {
                gone += 1;
            }
        }
        let next = looked.last().map(|(number, _)| *number);
        Ok((gone, next.filter(|_| more(looked.len() as u64, limit).is_some())))
    }

    /// False if something of it is still under way.
    async fn forget_incident(&mut self, id: &str) -> Result<bool, Error> {
        let active: Option<(String,)> = row!(
            self,
            "select id from runs where incident = $1 and state in ('held', 'awaiting_approval', 'queued', 'running', 'verifying', 'unknown') limit 1",
            id
        );
        let firing: Option<(String,)> =
            row!(self, "select fingerprint from alerts where incident = $1 and state not in ('resolved', 'stale') limit 1", id);
        if active.is_some() || firing.is_some() {
            return Ok(false);
        }
        let runs: Vec<(String,)> = rows!(self, "select id from runs where incident = $1", id);
        self.forget_runs(&runs).await?;
        for table in ["timeline", "alerts", "cards"] {
            let sql = format!("delete from {table} where incident = $1");
            exec!(self, sqlx::AssertSqlSafe(sql.as_str()), id);
        }
        exec!(self, "delete from incidents where id = $1", id);
        Ok(true)
    }

    async fn prune_runs(&mut self, cut: i64, limit: i64) -> Result<(u64, Option<i64>), Error> {
        let runs: Vec<(String,)> = rows!(
            self,
            "select id from runs where incident is null and finished_at < $1 \
             and state not in ('held', 'awaiting_approval', 'queued', 'running', 'verifying', 'unknown') limit $2",
            cut,
            limit
        );
        self.forget_runs(&runs).await?;
        let gone = runs.len() as u64;
        Ok((gone, more(gone, limit)))
    }

    async fn forget_runs(&mut self, runs: &[(String,)]) -> Result<(), Error> {
        for (table, key) in [("attempts", "run_id"), ("approvals", "run_id"), ("run_targets", "run_id"), ("runs", "id")] {
            exec_rows!(self, format!("delete from {table} where {key} in ("), runs, |b, run| b.push_bind(&run.0), ")");
        }
        Ok(())
    }

    /// How many rows there are of what may grow old, for tests and `doctor`.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn count_aging(&mut self, what: Aging) -> Result<i64, Error> {
        let from = match what {
            Aging::DeadJobs => "jobs where state = 'dead'",
            other => other.as_str(),
        };
        let sql = format!("select count(*) from {from}");
        let found: Option<(i64,)> = row!(self, sqlx::AssertSqlSafe(sql.as_str()));
        Ok(found.unwrap_or_default().0)
    }
}

/// Whether there may be more: then the next call begins where it likes.
fn more(gone: u64, limit: i64) -> Option<i64> {
    (gone >= limit.unsigned_abs()).then_some(0)
}
