//! Following the audit log's chain page by page, beside a server that goes on writing.

use std::collections::VecDeque;

use domain::audit::{AuditRow, Cut, FaultKind, Link, Report, Seal, Unreadable, Verifier};

use crate::tx::row;
use crate::{Error, Store, Tx};

/// Rows read at a time. Each page is a transaction of its own: a long one would keep SQLite's log from being emptied.
const PAGE: i64 = 1000;

/// How often a log is followed anew because the server let go of rows meanwhile, which it does now and then.
const TRIES: usize = 5;

/// What is on the way from the first row to the last, in this order: the cut, the links of a batch, its seal, the next batch, the rows that wait.
#[derive(Debug)]
pub enum Step<'a> {
    /// What was let go of before all others.
    Cut(&'a Cut),
    /// A sealed row.
    Link(&'a Link),
    /// The end of a batch.
    Seal(&'a Seal),
    /// A row that is not sealed yet.
    Waiting(&'a AuditRow),
    /// One of those that cannot be read.
    Unreadable(&'a Unreadable),
}

impl Store {
    /// Hands the whole audit log as it stands now to `visit`, which may end the way by an error.
    ///
    /// # Errors
    /// As any use of the database, if a seal cannot be read, and what `visit` says. [`Error::Conflict`] at the end if rows were let
    /// go of on the way: walk again.
    pub async fn walk_audit<E: From<Error>>(&self, mut visit: impl FnMut(Step<'_>) -> Result<(), E>) -> Result<(), E> {
        // What is sealed while we walk belongs to the next walk.
        let mut tx = self.read().await?;
        let (end, cut) = (tx.last_batch().await?, tx.audit_cut().await?);
        drop(tx);
        if let Some(cut) = &cut {
            visit(Step::Cut(cut))?;
        }
        // From below all numbers that are ever given: what somebody put there is found, too.
        let mut seals = Seals { store: self, end, after: i64::MIN, page: VecDeque::new() };
        let mut place = (i64::MIN, i64::MIN);
        loop {
            let links = self.read().await?.audit_links(place, PAGE).await?;
            let Some(last) = links.last() else { break };
            place = (last.batch, last.seq);
            for link in links.iter().take_while(|link| link.batch <= end) {
                while let Some(seal) = seals.before(link.batch).await? {
                    visit(Step::Seal(&seal))?;
                }
                visit(Step::Link(link))?;
            }
            if place.0 > end {
                break;
            }
        }
        while let Some(seal) = seals.before(i64::MAX).await? {
            visit(Step::Seal(&seal))?;
        }
        let mut after = i64::MIN;
        loop {
            let waiting = self.read().await?.audit_waiting(after, PAGE).await?;
            let Some(last) = waiting.last() else { break };
            after = last.as_ref().map_or_else(|row| row.seq, |row| row.seq);
            for row in &waiting {
                visit(row.as_ref().map_or_else(Step::Unreadable, Step::Waiting))?;
            }
        }
        if self.read().await?.audit_cut().await? == cut { Ok(()) } else { Err(Error::Conflict.into()) }
    }

    /// Verifies the whole audit log; `told` hears of the progress now and then.
    ///
    /// # Errors
    /// As any use of the database. What cannot be read because somebody changed it is a finding, not an error.
    pub async fn verify_audit(&self, verifier: Verifier, mut told: impl FnMut(&Report)) -> Result<Report, Error> {
        let mut tries = TRIES;
        loop {
            match self.verify_once(verifier.clone(), &mut told).await {
                Err(Error::Conflict) if tries > 1 => tries -= 1,
                other => return other,
            }
        }
    }

    async fn verify_once(&self, mut verifier: Verifier, told: &mut impl FnMut(&Report)) -> Result<Report, Error> {
        let mut steps = 0_u64;
        let walked = self.walk_audit(|step| {
            match step {
                Step::Cut(cut) => verifier.cut(cut),
                Step::Link(link) => verifier.link(link),
                Step::Seal(seal) => verifier.seal(seal),
                Step::Waiting(row) => verifier.unsealed(row),
                Step::Unreadable(row) => verifier.unsealed_unreadable(row),
            }
            steps += 1;
            if steps.is_multiple_of(PAGE as u64) {
                told(verifier.so_far());
            }
            Ok::<(), Error>(())
        });
        match walked.await {
            Ok(()) => {}
            Err(Error::Corrupt { table, id, why }) => {
                verifier.malformed(FaultKind::Form, None, format!("row {id} of {table} cannot be read, and nothing behind it was: {why}"));
            }
            Err(error) => return Err(error),
        }
        Ok(verifier.end())
    }
}

impl Tx {
    /// The last batch of which anything is there.
    async fn last_batch(&mut self) -> Result<i64, Error> {
        let seals: Option<(Option<i64>,)> = row!(self, "select max(batch) from audit_seals");
        let rows: Option<(Option<i64>,)> = row!(self, "select max(batch) from audit where batch is not null");
        Ok(seals.and_then(|found| found.0).max(rows.and_then(|found| found.0)).unwrap_or_default())
    }
}

/// The seals, page by page.
struct Seals<'a> {
    store: &'a Store,
    end: i64,
    after: i64,
    page: VecDeque<Seal>,
}

impl Seals<'_> {
    /// The next one, if its batch is before this one.
    async fn before(&mut self, batch: i64) -> Result<Option<Seal>, Error> {
        if self.page.is_empty() && self.after < self.end {
            self.page = self.store.read().await?.audit_seals(self.after, PAGE).await?.into();
            self.page.retain(|seal| seal.batch <= self.end);
            self.after = self.page.back().map_or(self.end, |seal| seal.batch);
        }
        Ok(self.page.pop_front_if(|seal| seal.batch < batch))
    }
}
