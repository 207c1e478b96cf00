//! Locks on targets: one run at a time changes a target, and fences, which tell a late one from the present one.

use std::collections::BTreeMap;

use domain::id::RunId;
use domain::run::Fence;
use jiff::Timestamp;

use crate::codec::{clean, id, micros, time};
use crate::tx::{exec_rows, rows, rows_of};
use crate::{Error, Tx};

impl Tx {
    /// Locks all these targets for a run, or none of them. True also for those that it has locked already.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn lock_targets(&mut self, run: RunId, targets: &[&str]) -> Result<bool, Error> {
        let now = micros(self.core.clock.now());
        let mut targets: Vec<_> = targets.iter().map(|target| clean(target)).collect();
        targets.sort_unstable();
        targets.dedup();
        let taken: Vec<(String,)> = rows_of!(
            self,
            "insert into target_locks (target, run_id, at) ",
            targets,
            |b, target| b.push_bind(&**target).push_bind(run.to_string()).push_bind(now),
            " on conflict (target) do nothing returning target"
        );
        let held: Vec<(String,)> = rows_of!(
            self,
            format!("select target from target_locks where run_id = '{run}' and target in ("),
            targets,
            |b, target| b.push_bind(&**target),
            ")"
        );
        if held.len() == targets.len() {
            self.raise_fences(&taken).await?;
            return Ok(true);
        }
        exec_rows!(self, "delete from target_locks where target in (", taken, |b, target| b.push_bind(&target.0), ")");
        Ok(false)
    }

    /// Every target that is locked afresh gets a higher fence than any run had on it before.
    async fn raise_fences(&mut self, targets: &[(String,)]) -> Result<(), Error> {
        let epoch = self.epoch().await?;
        exec_rows!(
            self,
            "insert into fences (target, epoch, n) ",
            targets,
            |b, target| b.push_bind(&target.0).push_bind(epoch).push_bind(1_i64),
            " on conflict (target) do update set epoch = excluded.epoch, n = fences.n + 1"
        );
        Ok(())
    }

    /// The fences of the targets that a run has locked now, by target.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn fences_of(&mut self, run: RunId) -> Result<BTreeMap<String, Fence>, Error> {
        let found: Vec<(String, i64, i64)> = rows!(
            self,
            "select l.target, f.epoch, f.n from target_locks l join fences f on f.target = l.target where l.run_id = $1",
            run.to_string()
        );
        Ok(found.into_iter().map(|(target, epoch, n)| (target, Fence { epoch, n })).collect())
    }

    /// The locked targets: by which run, since when.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn locked_targets(&mut self) -> Result<Vec<(String, RunId, Timestamp)>, Error> {
        let found: Vec<(String, String, i64)> = rows!(self, "select target, run_id, at from target_locks order by target");
        let one = |(target, run, at): (String, String, i64)| Ok((target, id("target_locks", &run)?, time("target_locks", &run, at)?));
        found.into_iter().map(one).collect()
    }

    /// Unlocks what a run has locked.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn unlock_targets(&mut self, run: RunId) -> Result<(), Error> {
        exec_rows!(self, "delete from target_locks where run_id in (", [run], |b, run| b.push_bind(run.to_string()), ")");
        Ok(())
    }
}
