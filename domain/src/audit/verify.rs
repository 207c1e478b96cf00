//! Follows the chain row by row and says what is wrong with it, where.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{AuditKeys, AuditRow, Checkpoint, Content, Cut, Link, START, Seal, Unreadable, chain, chain_unreadable};
use crate::canonical::Digest;

/// Faults that are told in full; further ones are counted.
const MOST_TOLD: usize = 100;

/// Follows a chain: the cut if there is one, then the links of a batch in the order of their numbers, its seal, the next batch; at last the rows
/// that wait.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// Without keys the chain is followed, and believed as far as a checkpoint covers it.
    keys: Option<AuditKeys>,
    checkpoints: BTreeMap<i64, Vec<Checkpoint>>,
    /// Where the chain stands; `None` before the first link of a part of a chain.
    head: Option<Digest>,
    /// Where the open batch began.
    begin: Option<Digest>,
    /// Rows since the beginning of the chain, if that was seen.
    rows: Option<i64>,
    open: Option<Open>,
    closed: Option<i64>,
    keyed: (u64, u64),
    report: Report,
}

/// The batch that is being read.
#[derive(Clone, Debug)]
struct Open {
    batch: i64,
    seq: i64,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Sealed rows.
    pub rows: u64,
    /// Of these, how many are covered by a signed checkpoint.
    pub covered: u64,
    /// Of these, how many were left out, only their digests being known.
    pub left_out: u64,
    /// Batches.
    pub batches: u64,
    /// Rows that are not sealed yet: the last second's.
    pub unsealed: u64,
    /// Checkpoints that the chain met.
    pub checkpoints: u64,
    /// What was let go of before the first row, if anything.
    pub pruned: Option<Cut>,
    /// Whether keyed hashes were checked.
    pub keyed: bool,
    /// Where the chain ends.
    pub head: Option<Digest>,
    /// The first of what is wrong.
    pub faults: Vec<Fault>,
    /// How much is wrong.
    pub faulty: u64,
}

/// Something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// In what way.
    pub kind: FaultKind,
    /// At which row.
    pub seq: Option<i64>,
    /// In which batch.
    pub batch: Option<i64>,
    /// In words.
    pub text: String,
}

/// The ways in which an audit log can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A row is not what was sealed.
    Changed,
    /// A row cannot be read: nobody knows what it says.
    Unreadable,
    /// A row or a seal does not fit its keyed hash: somebody without the key wrote it.
    Forged,
    /// What stands before a row is not what stood there: rows were removed, inserted or moved.
    Broken,
    /// Rows or whole batches are not there.
    Missing,
    /// The end of the chain is not there, although a checkpoint saw it.
    Truncated,
    /// Another chain than the one that a checkpoint saw.
    Replaced,
    /// A checkpoint itself is wrong.
    Checkpoint,
    /// No keyed hash fits.
    WrongKey,
    /// What was read does not have the form of an audit log.
    Form,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faulty == 0
    }

    /// Adds something that is wrong.
    pub fn fault(&mut self, kind: FaultKind, seq: Option<i64>, batch: Option<i64>, text: String) {
        self.faulty += 1;
        if self.faults.len() < MOST_TOLD {
            self.faults.push(Fault { kind, seq, batch, text });
        }
    }
}

impl Verifier {
    /// Begins at the first row of all. `checkpoints` are those whose signatures are right and trusted.
    pub fn new(keys: Option<AuditKeys>, checkpoints: impl IntoIterator<Item = Checkpoint>) -> Self {
        Self { head: Some(START), begin: Some(START), rows: Some(0), closed: Some(0), ..Self::of_part(keys, checkpoints) }
    }

    /// Begins somewhere in the chain: what was before is not judged.
    pub fn of_part(keys: Option<AuditKeys>, checkpoints: impl IntoIterator<Item = Checkpoint>) -> Self {
        let mut by_batch: BTreeMap<i64, Vec<Checkpoint>> = BTreeMap::new();
        for checkpoint in checkpoints {
            by_batch.entry(checkpoint.batch).or_default().push(checkpoint);
        }
        let report = Report { keyed: keys.is_some(), ..Report::default() };
        Self { keys, checkpoints: by_batch, head: None, begin: None, rows: None, open: None, closed: None, keyed: (0, 0), report }
    }

    /// What came out so far, for progress.
    pub fn so_far(&self) -> &Report {
        &self.report
    }

    /// Where the log begins, if its oldest rows were let go of. Without the key the caller must know the signature to be right.
    pub fn cut(&mut self, cut: &Cut) {
        if let Some(keys) = &self.keys {
            let fits = keys.made_cut(cut);
            let text = format!("the cut behind row {} does not fit its keyed hash: it was changed, or the log was made shorter", cut.seq);
            self.count_keyed(fits, Some(cut.seq), Some(cut.batch), text);
        }
        (self.head, self.begin) = (Some(cut.hash), Some(cut.hash));
        (self.rows, self.closed) = (Some(cut.rows), Some(cut.batch));
        self.meet(cut.batch, (cut.hash, cut.rows, cut.seq));
        self.report.pruned = Some(cut.clone());
    }

    /// The next row.
    pub fn link(&mut self, link: &Link) {
        let (seq, batch) = (Some(link.seq), Some(link.batch));
        match &self.open {
            Some(open) if open.batch == link.batch => {
                if link.seq <= open.seq {
                    self.report.fault(FaultKind::Form, seq, batch, format!("row {} stands behind row {}", link.seq, open.seq));
                }
            }
            other => {
                if let Some(open) = other {
                    let text = format!("batch {} has no seal", open.batch);
                    self.report.fault(FaultKind::Missing, None, Some(open.batch), text);
                    self.closed = Some(open.batch);
                }
                self.expect_batch(link.batch);
                self.begin = self.head;
            }
        }
        self.open = Some(Open { batch: link.batch, seq: link.seq });
        self.report.rows += 1;
        self.rows = self.rows.map(|rows| rows + 1);
        self.judge(link);
        self.head = link.hash.or(self.head);
    }

    /// The end of a batch.
    pub fn seal(&mut self, seal: &Seal) {
        let batch = Some(seal.batch);
        match self.open.take() {
            Some(open) if open.batch == seal.batch => {
                if open.seq != seal.seq {
                    let text = format!("batch {} ended with row {}; now its last row is {}", seal.batch, seal.seq, open.seq);
                    self.report.fault(FaultKind::Missing, Some(seal.seq), batch, text);
                }
            }
            _ => {
                self.expect_batch(seal.batch);
                self.begin = self.head;
                let text = format!("batch {} was sealed, and none of its rows is there", seal.batch);
                self.report.fault(FaultKind::Missing, None, batch, text);
            }
        }
        self.report.batches += 1;
        if self.head.is_some_and(|head| head != seal.hash) || self.begin.is_some_and(|begin| begin != seal.prev_hash) {
            let text = format!("the rows of batch {} are not those that were sealed", seal.batch);
            self.report.fault(FaultKind::Changed, None, batch, text);
        }
        if self.rows.is_some_and(|rows| rows != seal.rows) {
            let text = format!("up to batch {} there were {} rows; now there are {}", seal.batch, seal.rows, self.rows.unwrap_or_default());
            self.report.fault(FaultKind::Missing, None, batch, text);
        }
        if let Some(keys) = &self.keys {
            let fits = keys.sealed(seal);
            self.count_keyed(fits, None, batch, format!("the seal of batch {} does not fit its keyed hash", seal.batch));
        }
        self.rows = Some(seal.rows);
        self.head = Some(seal.hash);
        self.closed = Some(seal.batch);
        self.meet(seal.batch, (seal.hash, seal.rows, seal.seq));
    }

    /// A row that is not sealed yet. Call it after all batches.
    pub fn unsealed(&mut self, row: &AuditRow) {
        self.report.unsealed += 1;
        self.numbered(row.seq);
        if let Some(keys) = &self.keys {
            let fits = keys.made(&row.row, &row.mac);
            self.count_keyed(fits, Some(row.seq), None, format!("row {} does not fit its keyed hash: it was changed or forged", row.seq));
        }
    }

    /// The same for one that cannot be read.
    pub fn unsealed_unreadable(&mut self, row: &Unreadable) {
        self.report.unsealed += 1;
        self.numbered(row.seq);
        self.report.fault(FaultKind::Unreadable, Some(row.seq), None, format!("row {} cannot be read: {}", row.seq, row.why));
    }

    /// Something that could not be read as what it should be.
    pub fn malformed(&mut self, kind: FaultKind, seq: Option<i64>, text: String) {
        self.report.fault(kind, seq, None, text);
    }

    /// The end of what there is.
    pub fn end(mut self) -> Report {
        if let Some(open) = self.open.take() {
            self.report.fault(FaultKind::Missing, None, Some(open.batch), format!("batch {} has no seal", open.batch));
            self.closed = Some(open.batch);
        }
        let last = self.closed.unwrap_or_default();
        if let Some(seen) = self.checkpoints.range(last + 1..).flat_map(|(_, all)| all).max_by_key(|seen| seen.rows) {
            let text = format!(
                "a checkpoint of {} saw {} rows in {} batches, up to row {}; the chain ends with batch {last}",
                seen.at, seen.rows, seen.batch, seen.seq
            );
            self.report.fault(FaultKind::Truncated, Some(seen.seq), Some(seen.batch), text);
        }
        let (checked, wrong) = self.keyed;
        if checked > 0 && checked == wrong {
            self.report.faults.retain(|fault| fault.kind != FaultKind::Forged);
            self.report.faulty = self.report.faulty.saturating_sub(wrong);
            let text = format!("none of {checked} keyed hashes fits: this is not the key that they were made with");
            self.report.fault(FaultKind::WrongKey, None, None, text);
        }
        self.report.head = self.head;
        self.report
    }

    fn expect_batch(&mut self, batch: i64) {
        let Some(closed) = self.closed else { return };
        if batch > closed + 1 {
            let which =
                if batch == closed + 2 { format!("batch {}", closed + 1) } else { format!("batches {} to {}", closed + 1, batch - 1) };
            let why = if closed == 0 { ", and no cut says that their rows were let go of" } else { "" };
            self.report.fault(FaultKind::Missing, None, Some(closed + 1), format!("{which} cannot be found{why}"));
            self.rows = None;
        } else if batch <= closed {
            self.report.fault(FaultKind::Form, None, Some(batch), format!("batch {batch} stands behind batch {closed}"));
        }
    }

    fn numbered(&mut self, seq: i64) {
        if seq < 1 {
            // It would never be sealed.
            self.report.fault(FaultKind::Form, Some(seq), None, format!("row {seq} has a number that no row is given"));
        }
    }

    fn judge(&mut self, link: &Link) {
        let (seq, batch) = (Some(link.seq), Some(link.batch));
        if let (Some(keys), Content::Row(row)) = (&self.keys, &link.content) {
            let fits = keys.made(row, &link.mac);
            self.count_keyed(fits, seq, batch, format!("row {} does not fit its keyed hash: it was changed or forged", link.seq));
        }
        if matches!(link.content, Content::Digest(_)) {
            self.report.left_out += 1;
        }
        let hashes = link.prev_hash.zip(link.hash);
        let never_read = hashes.is_some_and(|(prev, hash)| hash == chain_unreadable(prev, link.batch, link.seq, &link.mac));
        if let Content::Unreadable(why) = &link.content {
            let since = if never_read { ", and could not be when it was sealed" } else { "" };
            self.report.fault(FaultKind::Unreadable, seq, batch, format!("row {} cannot be read{since}: {why}", link.seq));
        }
        let Some((prev, hash)) = hashes else {
            self.report.fault(FaultKind::Changed, seq, batch, format!("the hashes of row {} cannot be read", link.seq));
            return;
        };
        if link.content.digest().is_some_and(|digest| hash != chain(prev, link.batch, link.seq, &link.mac, digest)) {
            let how = if never_read { "it could not be read then" } else { "it was changed or moved" };
            self.report.fault(FaultKind::Changed, seq, batch, format!("row {} is not what was sealed: {how}", link.seq));
        }
        if self.head.is_some_and(|head| head != prev) {
            let text = format!("row {} does not follow what stands before it: rows were removed, inserted or moved", link.seq);
            self.report.fault(FaultKind::Broken, seq, batch, text);
        }
    }

    fn count_keyed(&mut self, fits: bool, seq: Option<i64>, batch: Option<i64>, text: String) {
        self.keyed.0 += 1;
        if !fits {
            self.keyed.1 += 1;
            self.report.fault(FaultKind::Forged, seq, batch, text);
        }
    }

    /// Compares what checkpoints saw.
    fn meet(&mut self, batch: i64, stands: (Digest, i64, i64)) {
        for seen in self.checkpoints.get(&batch).into_iter().flatten() {
            if (seen.hash, seen.rows, seen.seq) == stands {
                self.report.checkpoints += 1;
                self.report.covered = self.report.rows;
            } else {
                let text = format!("a checkpoint of {} saw another chain at batch {batch}: it was written anew", seen.at);
                self.report.fault(FaultKind::Replaced, Some(stands.2), Some(batch), text);
            }
        }
    }
}

#[cfg(test)]
mod tests;
