//! Letting go of the audit log's oldest rows: whole batches, from the beginning, only where they verify and a signed checkpoint covers them,
//! and behind them a cut that says so with the chain's own key.

use domain::audit::{AuditDecision, Checkpoint, Cut, Link, NewAudit, Report, Seal, Verifier};
use jiff::Timestamp;
use serde_json::json;

use crate::chain::hash_from;
use crate::codec::{corrupt, micros, time};
use crate::gate::Line;
use crate::tx::{exec, row};
use crate::{Error, Store, Tx};

/// Rows of one step, and more only if the first batch has more: their going takes a few milliseconds of the writer's time.
const ROWS: i64 = 1000;
/// Batches of one step: on a quiet server each holds a row or two.
const BATCHES: i64 = 500;

/// Whoever signs a cut: their public key and their signature, in hex.
pub type Signature = (String, String);

/// What a step did.
#[derive(Debug)]
pub enum AuditPruned {
    /// Nothing is old enough, nothing old is covered, or another replica was quicker.
    Nothing,
    /// So many rows went.
    Gone(u64),
    /// What is old enough is not what was written. It stays: it is evidence.
    Unsound(Box<Report>),
}

type Row = (i64, i64, i64, Vec<u8>, i64, i64, String, String, String);

impl Store {
    /// Lets go of the oldest batches that were sealed before `before`, as many as one step takes. `seen` is a signed checkpoint; what is not in
    /// front of it stays, so that it can always be met again. The going has an audit row of its own, in the same transaction.
    ///
    /// # Errors
    /// As any use of the database. [`Error::Retry`] if others are busy: try later.
    pub async fn prune_audit(
        &self,
        before: Timestamp,
        seen: &Checkpoint,
        sign: impl Fn(&Cut) -> Signature + Send,
    ) -> Result<AuditPruned, Error> {
        let old = self.read().await?.old_audit(before, seen).await?;
        let Some(last) = old.seals.last() else { return Ok(AuditPruned::Nothing) };
        let report = old.verified(self);
        if !report.is_sound() {
            return Ok(AuditPruned::Unsound(Box::new(report)));
        }
        let now = Timestamp::from_microsecond(micros(self.core.clock.now())).unwrap_or(last.at);
        let cut = self.core.audit_keys.cut(Cut::behind(last, now));
        let (public_key, signature) = sign(&cut);
        let cut = Cut { public_key, signature, ..cut };
        let mut tx = self.core.begin(Line::Other).await?;
        match tx.cut_audit(old.cut.as_ref(), &cut, old.links.len() as u64).await {
            Ok(()) => tx.commit().await?,
            Err(Error::Conflict) => {
                tx.rollback().await?;
                return Ok(AuditPruned::Nothing);
            }
            Err(error) => return Err(error),
        }
        Ok(AuditPruned::Gone(old.links.len() as u64))
    }
}

/// The oldest batches, as they stand.
struct Old {
    cut: Option<Cut>,
    links: Vec<Link>,
    seals: Vec<Seal>,
}

impl Old {
    fn verified(&self, store: &Store) -> Report {
        let mut verifier = Verifier::new(Some(store.core.audit_keys.clone()), []);
        if let Some(cut) = &self.cut {
            verifier.cut(cut);
        }
        let mut links = self.links.iter().peekable();
        for seal in &self.seals {
            while let Some(link) = links.next_if(|link| link.batch <= seal.batch) {
                verifier.link(link);
            }
            verifier.seal(seal);
        }
        verifier.end()
    }
}

impl Tx {
    /// Where the log begins, if something of it went.
    ///
    /// # Errors
    /// As any use of the database, and if it cannot be read.
    pub async fn audit_cut(&mut self) -> Result<Option<Cut>, Error> {
        let found: Option<Row> =
            row!(self, "select batch, seq, rows_gone, hash, sealed_at, at, mac, public_key, signature from audit_cut where one = 1");
        found.map(cut).transpose()
    }

    async fn old_audit(&mut self, before: Timestamp, seen: &Checkpoint) -> Result<Old, Error> {
        let cut = self.audit_cut().await?;
        let (from, gone) = cut.as_ref().map_or((0, 0), |cut| (cut.batch, cut.rows));
        let mut old = Old { cut, links: Vec::new(), seals: Vec::new() };
        // After a restore the checkpoint may be of a chain that is not there any more.
        let met = self.audit_seals(seen.batch - 1, 1).await?;
        if !met.iter().any(|seal| (seal.batch, seal.hash, seal.rows, seal.seq) == (seen.batch, seen.hash, seen.rows, seen.seq)) {
            return Ok(old);
        }
        let mut seals = self.audit_seals(from, BATCHES).await?;
        let ripe = seals.iter().take_while(|seal| seal.at < before && seal.batch < seen.batch);
        let few = ripe.enumerate().take_while(|(n, seal)| *n == 0 || seal.rows.saturating_sub(gone) <= ROWS).count();
        seals.truncate(few);
        let Some(last) = seals.last() else { return Ok(old) };
        // One more than there should be: it would be found to be too much.
        let rows = last.rows.saturating_sub(gone).clamp(0, ROWS * 10) + 1;
        old.links = self.audit_links((from, i64::MAX), rows).await?;
        old.links.retain(|link| link.batch <= last.batch);
        old.seals = seals;
        Ok(old)
    }

    async fn cut_audit(&mut self, before: Option<&Cut>, cut: &Cut, rows: u64) -> Result<(), Error> {
        // First: of two replicas the second fails here, before any row is touched.
        let cut_before = exec!(self, "delete from audit_cut where one = 1 and batch = $1", before.map_or(0, |cut| cut.batch));
        if cut_before != u64::from(before.is_some()) {
            return Err(Error::Conflict);
        }
        exec!(
            self,
            "insert into audit_cut (one, batch, seq, rows_gone, hash, sealed_at, at, mac, public_key, signature) \
             values (1, $1, $2, $3, $4, $5, $6, $7, $8, $9)",
            cut.batch,
            cut.seq,
            cut.rows,
            cut.hash.0.to_vec(),
            micros(cut.until),
            micros(cut.at),
            &cut.mac,
            &cut.public_key,
            &cut.signature
        );
        let gone = exec!(self, "delete from audit where batch is not null and batch <= $1", cut.batch);
        exec!(self, "delete from audit_seals where batch <= $1", cut.batch);
        if gone != rows {
            return Err(Error::Conflict);
        }
        let Cut { batch, seq, rows: rows_gone, hash, until, at, .. } = cut;
        let detail = json!({ "rows": rows, "rows_gone": rows_gone, "until": until, "batch": batch, "seq": seq, "hash": hash });
        self.audit(&NewAudit {
            at: *at,
            actor: "system".to_owned(),
            action: "audit.prune".to_owned(),
            object: "audit".to_owned(),
            decision: AuditDecision::Allowed,
            reason: "retention".to_owned(),
            detail,
        })
        .await
    }
}

fn cut((batch, seq, rows, hash, until, at, mac, public_key, signature): Row) -> Result<Cut, Error> {
    let hash = hash_from(&hash).ok_or_else(|| corrupt("audit_cut", batch, "its hash has not 32 bytes"))?;
    let [until, at] = [time("audit_cut", batch, until)?, time("audit_cut", batch, at)?];
    Ok(Cut { batch, seq, rows, hash, until, at, mac, public_key, signature })
}
