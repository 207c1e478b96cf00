//! Who has a job: claimed for a while, renewed in time, free again when nobody holds it.

use std::sync::Arc;
use std::time::Duration;

use domain::id::JobId;
use domain::job::{Job, Urgency};
use jiff::SignedDuration;

use crate::codec::{from_doc, id, micros, time};
use crate::gate::Line;
use crate::jobs::{FREED, after};
use crate::open::Core;
use crate::sight::is_over;
use crate::tx::{exec, expect_found, rows, rows_built, rows_of};
use crate::{Change, Error, Store, Tx};

/// A claimed row, as read.
type Claimed = (String, String, String, String, i64, i64, i64, i64);

/// How often others' claims are looked at.
const LOOK: Duration = Duration::from_secs(1);

const URGENCIES: [Urgency; 4] = [Urgency::Person, Urgency::Action, Urgency::Tell, Urgency::Upkeep];

/// Goes on with a condition on jobs: none of these kinds.
macro_rules! but_not {
    ($sql:ident, $kinds:expr) => {
        if !$kinds.is_empty() {
            $sql.push(" and kind not in (").push_values($kinds.iter().copied(), |mut b, kind| {
                b.push_bind(kind);
            });
            $sql.push(")");
        }
    };
}

impl Tx {
    /// `most` says of how many of a kind more are not wanted.
    async fn claim(&mut self, due: &[i64], limit: i64, lease: SignedDuration, now: i64, most: &[(&str, i64)]) -> Result<Vec<Job>, Error> {
        let (instance, start) = (self.core.instance.clone(), self.core.start.to_string());
        let (lock, unwanted) = (self.lock(" for update skip locked"), unwanted(most));
        let mut jobs = Vec::new();
        for urgency in due {
            let rest = limit - i64::try_from(jobs.len()).unwrap_or(limit);
            if rest <= 0 {
                break;
            }
            // Of the first few those that are wanted: they may all be of one kind, and then the next look passes over that kind.
            let found: Vec<Claimed> = rows_built!(self, |sql| {
                sql.push("with first as materialized (select id, kind, due_at from jobs where state = 'waiting' and urgency = ");
                sql.push_bind(*urgency).push(" and due_at <= ").push_bind(now);
                but_not!(sql, unwanted);
                sql.push(" order by due_at, id limit ").push_bind(rest).push(lock);
                sql.push("), due as (select id from (select id, kind, row_number() over (partition by kind order by due_at, id) as n from first) f");
                if !most.is_empty() {
                    sql.push(" left join (").push_values(most, |mut b, one| {
                        b.push_bind(one.0).push_bind(one.1);
                    });
                    sql.push(") m on m.column1 = f.kind where m.column2 is null or f.n <= m.column2");
                }
                sql.push(") update jobs set state = 'claimed', claim = claim + 1, claimed_revision = revision, instance = ")
                    .push_bind(&instance);
                sql.push(", start_id = ").push_bind(&start).push(", lease_until = ").push_bind(after(now, lease));
                sql.push(" where id in (select id from due) returning id, kind, key, payload, attempts, due_at, claim, revision");
            });
            let mut claimed = Vec::with_capacity(found.len());
            for (text, kind, key, payload, attempts, due_at, claim, revision) in found {
                claimed.push(Job {
                    id: id("jobs", &text)?,
                    payload: from_doc("jobs", &text, &payload)?,
                    due_at: time("jobs", &text, due_at)?,
                    kind,
                    key,
                    attempts,
                    claim,
                    revision,
                });
            }
            claimed.sort_by_key(|job| (job.due_at, job.id));
            jobs.append(&mut claimed);
        }
        Ok(jobs)
    }

    /// Frees what earlier starts left claimed: on SQLite everybody's, for there is one process; on PostgreSQL those of our name, and nobody else
    /// has it now. What was interrupted is due at once, and the attempt counts.
    async fn free_left_over(&mut self) -> Result<u64, Error> {
        let now = self.db_now().await?;
        let (start, instance) = (self.core.start.to_string(), self.core.instance.clone());
        let whose = if self.is_postgres() { "instance = $2" } else { "$2 is not null" };
        let leases = format!("update leases set lease_until = 0, stamp = stamp + 1 where start_id <> $1 and {whose}");
        exec!(self, sqlx::AssertSqlSafe(leases.as_str()), &start, &instance);
        let jobs = format!("{} and start_id <> $1 and {whose}", interrupted(now));
        Ok(exec!(self, sqlx::AssertSqlSafe(jobs.as_str()), &start, &instance))
    }

    /// Frees claims, each under its number, where `whose` holds; gives the ids of those that it freed.
    async fn free_claims(&mut self, claims: &[(String, i64)], whose: &str, now: i64) -> Result<Vec<String>, Error> {
        let freed: Vec<(String,)> = rows_of!(
            self,
            format!("{} and {whose} and (id, claim) in (", interrupted(now)),
            claims,
            |b, one| b.push_bind(&one.0).push_bind(one.1),
            ") returning id"
        );
        Ok(freed.into_iter().map(|(id,)| id).collect())
    }

    /// Claims of other processes that are over. Ours never are: this process lives, and gives back what it does not hold.
    async fn lapsed(&mut self, now: i64, lease: SignedDuration) -> Result<Vec<(String, i64)>, Error> {
        let sql = "select id, claim, lease_until from jobs where state = 'claimed' and start_id <> $1";
        let claims: Vec<(String, i64, i64)> = rows!(self, sql, self.core.start.to_string());
        let core = Arc::clone(&self.core);
        let over = |(id, _, until): &(String, i64, i64)| {
            let unchanged = core.sightings.unchanged(&format!("job {id}"), *until);
            if core.server_time() { is_over(*until, now, unchanged, lease) } else { *until < now }
        };
        let keys: Vec<String> = claims.iter().map(|(id, ..)| format!("job {id}")).collect();
        self.core.sightings.keep("job ", &keys);
        Ok(claims.into_iter().filter(over).map(|(id, claim, _)| (id, claim)).collect())
    }

    /// Which urgencies have something due of any kind but these, by rank.
    async fn due(&mut self, now: i64, unwanted: &[&str]) -> Result<Vec<i64>, Error> {
        let found: Vec<(i64,)> = rows_built!(self, |sql| {
            sql.push("select cast(k.column1 as bigint) from (values (0), (1), (2), (3)) k where exists (select 1 from jobs where ");
            sql.push("state = 'waiting' and urgency = k.column1 and due_at <= ").push_bind(now);
            but_not!(sql, unwanted);
            sql.push(") order by 1");
        });
        Ok(found.into_iter().map(|(rank,)| rank).collect())
    }

    /// Refuses with [`Error::Conflict`] unless this job is still claimed by us under this number, and keeps it so until this transaction ends:
    /// for a transaction that must not last when somebody else has the job.
    ///
    /// # Errors
    /// [`Error::Conflict`], now or at the commit, or as any use of the database.
    pub async fn hold_claim(&mut self, job: JobId, claim: i64) -> Result<(), Error> {
        let (lock, start) = (self.lock(" for update"), self.core.start.to_string());
        expect_found!(self, |sql| {
            sql.push("select id from jobs where id = ").push_bind(job.to_string()).push(" and claim = ").push_bind(claim);
            sql.push(" and state = 'claimed' and start_id = ").push_bind(&start).push(lock)
        });
        Ok(())
    }
}

impl Store {
    /// Takes jobs that are due, the urgent first, then the longest due. They are ours for `lease`; renew them in time. On PostgreSQL what other
    /// processes claimed and did not renew for so long is free again, and its attempt counts.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn claim_jobs(&self, limit: i64, lease: SignedDuration) -> Result<Vec<Job>, Error> {
        self.claim_some_jobs(limit, lease, &[]).await
    }

    /// The same, of each of these kinds at most so many: what is not taken is left to others.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn claim_some_jobs(&self, limit: i64, lease: SignedDuration, most: &[(&str, i64)]) -> Result<Vec<Job>, Error> {
        if limit < 1 {
            return Ok(Vec::new());
        }
        // Looking does not disturb the writer.
        let mut look = self.glance().await?;
        let now = look.db_now().await?;
        let shared = look.is_postgres() && (!self.core.server_time() || self.core.sightings.is_time(LOOK));
        let over = if shared { look.lapsed(now, lease).await? } else { Vec::new() };
        let mut due = look.due(now, &unwanted(most)).await?;
        drop(look);
        if over.is_empty() && due.is_empty() {
            return Ok(Vec::new());
        }
        if !over.is_empty() {
            due = URGENCIES.map(Urgency::rank).into();
        }
        let mut tx = self.core.begin(Line::Other).await?;
        let others = format!("start_id <> '{}'", self.core.start);
        for job in tx.free_claims(&over, &others, now).await? {
            metrics::counter!("watchkeeper_claims_lapsed_total").increment(1);
            tracing::warn!(job, "the process that had claimed a job is silent: it is free again");
        }
        let jobs = tx.claim(&due, limit, lease, now, most).await?;
        tx.commit().await?;
        Ok(jobs)
    }

    /// Keeps claimed jobs, each under its claim's number, for another `lease`; gives those that are still ours.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn renew_jobs(&self, jobs: &[(JobId, i64)], lease: SignedDuration) -> Result<Vec<JobId>, Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let until = after(tx.db_now().await?, lease);
        let start = self.core.start.to_string();
        let mut claims: Vec<(String, i64)> = jobs.iter().map(|(job, claim)| (job.to_string(), *claim)).collect();
        claims.sort_unstable();
        let renewed: Vec<(String,)> = rows_of!(
            tx,
            format!("update jobs set lease_until = {until} where state = 'claimed' and start_id = '{start}' and (id, claim) in ("),
            claims,
            |b, one| b.push_bind(&one.0).push_bind(one.1),
            ") returning id"
        );
        tx.commit().await?;
        renewed.iter().map(|(text,)| id("jobs", text)).collect()
    }

    /// What this start has claimed, by the database.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn claims(&self) -> Result<Vec<(JobId, i64)>, Error> {
        let mut tx = self.read().await?;
        let sql = "select id, claim from jobs where state = 'claimed' and start_id = $1";
        let found: Vec<(String, i64)> = rows!(tx, sql, self.core.start.to_string());
        found.into_iter().map(|(text, claim)| Ok((id("jobs", &text)?, claim))).collect()
    }

    /// Frees claims of this start that nobody holds: how far the job came is not known, so the attempt counts.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn free_jobs(&self, claims: &[(JobId, i64)]) -> Result<(), Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let claims: Vec<(String, i64)> = claims.iter().map(|(job, claim)| (job.to_string(), *claim)).collect();
        let ours = format!("start_id = '{}'", self.core.start);
        tx.free_claims(&claims, &ours, micros(self.core.clock.now())).await?;
        tx.changed(Change::Jobs);
        tx.commit().await
    }
}

impl Core {
    /// Frees what an earlier start left claimed.
    pub(crate) async fn free_left_over(self: &Arc<Self>) -> Result<(), Error> {
        let mut tx = self.begin(Line::Other).await?;
        let freed = tx.free_left_over().await?;
        if freed > 0 {
            tracing::info!(jobs = freed, "jobs of an earlier start are free again");
        }
        tx.commit().await
    }
}

/// Frees claimed jobs that were interrupted, as far as a condition goes that follows: they are due at once, and the attempt counts.
fn interrupted(now: i64) -> String {
    format!(
        "update jobs set {FREED}, attempts = attempts + 1, due_at = case when due_at > {now} then {now} else due_at end where state = 'claimed'"
    )
}

/// The kinds of which there is none to be.
fn unwanted<'k>(most: &[(&'k str, i64)]) -> Vec<&'k str> {
    most.iter().filter(|(_, most)| *most < 1).map(|(kind, _)| *kind).collect()
}
