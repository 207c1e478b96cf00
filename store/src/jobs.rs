//! Obligations: finished once, put off, or buried.

use std::collections::HashSet;

use domain::job::Job;
use jiff::{SignedDuration, Timestamp};

use crate::codec::{clean, micros, time};
use crate::gate::Line;
use crate::tx::{exec, row, rows_of};
use crate::{Change, Error, Store, Tx};

/// What frees a claimed job.
pub(crate) const FREED: &str = "state = 'waiting', instance = null, start_id = null, lease_until = null";

impl Tx {
    /// Deletes those of these claimed jobs that are ours and have no newer one; gives their ids and claims. Each is locked while it is looked at, so that one
    /// to which a newer one is being added at the moment is judged as it is afterwards.
    pub(crate) async fn delete_jobs(&mut self, jobs: &[&Job]) -> Result<HashSet<(String, i64)>, Error> {
        let lock = self.lock(" for update of j");
        let deleted: Vec<(String, i64)> = rows_of!(
            self,
            "delete from jobs where id in (select j.id from (",
            jobs,
            |b, job| b.push_bind(job.id.to_string()).push_bind(job.claim).push_bind(job.revision),
            format!(
                ") v join jobs j on j.id = v.column1 and j.claim = v.column2 and j.revision = v.column3 and j.state = 'claimed'{lock}) \
                 returning id, claim"
            )
        );
        Ok(deleted.into_iter().collect())
    }

    /// These claimed jobs are done and newer ones of their keys came meanwhile, whose times hold. Gives the ids and claims of those that were ours.
    pub(crate) async fn give_back(&mut self, jobs: &[&Job]) -> Result<HashSet<(String, i64)>, Error> {
        let back: Vec<(String, i64)> = rows_of!(
            self,
            format!("update jobs set {FREED}, attempts = 0, error = null where state = 'claimed' and (id, claim) in ("),
            jobs,
            |b, job| b.push_bind(job.id.to_string()).push_bind(job.claim),
            ") returning id, claim"
        );
        if !back.is_empty() {
            self.changed(Change::Jobs);
        }
        Ok(back.into_iter().collect())
    }

    /// Gives a claimed job back. Where a newer one came meanwhile, that one's time holds and attempts are counted afresh; that there was one is
    /// not forgotten, because it may have done what it was for. Without a word about an error the last one stays.
    async fn free(&mut self, job: &Job, due_at: Option<Timestamp>, attempts: i64, error: Option<&str>) -> Result<(), Error> {
        let freed = exec!(
            self,
            sqlx::AssertSqlSafe(format!(
                "update jobs set {FREED}, due_at = case when revision = $1 or $2 < due_at then $2 else due_at end, \
                 attempts = case when revision = $1 or $3 = 0 then $3 else 1 end, error = nullif(coalesce($4, error), '') \
                 where id = $5 and claim = $6 and state = 'claimed'"
            )),
            job.revision,
            due_at.map_or(i64::MAX, micros),
            attempts,
            error.map(clean),
            job.id.to_string(),
            job.claim
        );
        self.changed(Change::Jobs);
        if freed == 1 { Ok(()) } else { Err(Error::Conflict) }
    }

    /// When the job of this kind and key that waits is due, if there is one.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn job_due(&mut self, kind: &str, key: &str) -> Result<Option<Timestamp>, Error> {
        let sql = "select due_at from jobs where kind = $1 and key = $2 and state = 'waiting'";
        let found: Option<(i64,)> = row!(self, sql, clean(kind), clean(key));
        found.map(|(due,)| time("jobs", key, due)).transpose()
    }
}

impl Store {
    /// A claimed job did not work: it waits until `due_at`, or for a newer one's sooner time.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the claim is no longer ours.
    pub async fn retry_job(&self, job: &Job, due_at: Timestamp, error: &str) -> Result<(), Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        tx.free(job, Some(due_at), job.attempts + 1, Some(error)).await?;
        tx.commit().await
    }

    /// A claimed job waits until `due_at` of its own will, or because somebody said when: that is no failed attempt.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the claim is no longer ours.
    pub async fn wait_job(&self, job: &Job, due_at: Timestamp) -> Result<(), Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        tx.free(job, Some(due_at), job.attempts, None).await?;
        tx.commit().await
    }

    /// The same, and why is kept for as long as it waits.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the claim is no longer ours.
    pub async fn hold_job(&self, job: &Job, due_at: Timestamp, why: &str) -> Result<(), Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        tx.free(job, Some(due_at), job.attempts, Some(why)).await?;
        tx.commit().await
    }

    /// Jobs of a kind that were given up get another chance, the newest of each key that has none waiting. That they were tried is not forgotten.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn revive_jobs(&self, kind: &str) -> Result<u64, Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let revived = exec!(
            tx,
            "update jobs set state = 'waiting', due_at = $1 where state = 'dead' and kind = $2 \
             and id in (select max(id) from jobs where state = 'dead' and kind = $2 group by key) \
             and not exists (select 1 from jobs j where j.kind = $2 and j.key = jobs.key and j.state <> 'dead')",
            micros(self.core.clock.now()),
            clean(kind)
        );
        if revived > 0 {
            tx.changed(Change::Jobs);
        }
        tx.commit().await?;
        Ok(revived)
    }

    /// A claimed job will never work: it stays for people to look at. A newer one of its key gets its own chance.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the claim is no longer ours.
    pub async fn bury_job(&self, job: &Job, error: &str) -> Result<(), Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let dead = exec!(
            tx,
            "update jobs set state = 'dead', attempts = attempts + 1, error = $1, instance = null, start_id = null, lease_until = null \
             where id = $2 and claim = $3 and state = 'claimed' and revision = $4",
            clean(error),
            job.id.to_string(),
            job.claim,
            job.revision
        );
        if dead != 1 {
            tx.free(job, None, 1, Some(error)).await?;
        }
        tx.commit().await
    }
}

pub(crate) fn after(now: i64, span: SignedDuration) -> i64 {
    now.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}
