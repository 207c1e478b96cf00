//! The audit log as lines of JSON: what `audit export` writes and `audit verify --file` reads, without a database and without a key.

use std::io::{BufRead, Write};

use anyhow::Context;
use domain::audit::{AuditKeys, AuditRow, Content, Cut, FaultKind, Link, NewAudit, Report, Seal, Unreadable, Verifier};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Step, Store};

use super::checkpoints::{SignedCheckpoint, Trusted};

/// Longest line, in bytes: rows hold no bodies.
const LONGEST: u64 = 4 * 1024 * 1024;

/// One line. Checkpoints and the cut stand before the links, so that one pass is enough.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// The first.
    AuditLog(Head),
    /// What was said outside of the database.
    Checkpoint(SignedCheckpoint),
    /// Where the log begins, if its oldest rows were let go of.
    Cut(Cut),
    /// A sealed row, or its digest where it was not asked for.
    Link(Link),
    /// The end of a batch.
    Seal(Seal),
    /// A row that is not sealed yet.
    Waiting(AuditRow),
    /// One of those that cannot be read, and so may be one that was asked for.
    Unreadable(Unreadable),
    /// The last: without it something was cut off.
    End {
        /// Lines before this one.
        lines: u64,
    },
}

/// What the lines are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Of this format: 1.
    pub(crate) version: u32,
    /// Whether it begins in the middle of the chain.
    pub(crate) part: bool,
    /// When it was written.
    pub(crate) at: Timestamp,
    /// Which rows are there in full.
    pub(crate) only: Only,
}

/// Which rows are wanted in full; empty fields match all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Only {
    /// Not earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
    /// Earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
    /// Of this actor; `ann` is `principal:ann`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<String>,
    /// Of this action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) action: Option<String>,
    /// About one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) objects: Vec<String>,
}

impl Only {
    fn wants(&self, row: &NewAudit) -> bool {
        self.since.is_none_or(|since| row.at >= since)
            && self.until.is_none_or(|until| row.at < until)
            && self.actor.as_ref().is_none_or(|actor| row.actor == *actor || row.actor == format!("principal:{actor}"))
            && self.action.as_ref().is_none_or(|action| row.action == *action)
            && (self.objects.is_empty() || self.objects.contains(&row.object))
    }
}

/// Writes lines and counts them.
pub(crate) struct Writer<W: Write> {
    out: W,
    only: Only,
    lines: u64,
    told: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with what it is and the checkpoints.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn new(out: W, at: Timestamp, part: bool, only: Only, checkpoints: &[SignedCheckpoint]) -> anyhow::Result<Self> {
        let mut writer = Self { out, only: only.clone(), lines: 0, told: 0 };
        writer.line(&Line::AuditLog(Head { version: 1, part, at, only }))?;
        for checkpoint in checkpoints {
            writer.line(&Line::Checkpoint(checkpoint.clone()))?;
        }
        Ok(writer)
    }

    /// Writes what is wanted of a step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn step(&mut self, step: Step<'_>) -> anyhow::Result<()> {
        match step {
            Step::Cut(cut) => self.line(&Line::Cut(cut.clone())),
            Step::Link(link) => {
                let mut link = link.clone();
                if let Content::Row(row) = &link.content {
                    if self.only.wants(row) {
                        self.told += 1;
                    } else {
                        link.content = link.content.digest().map_or(link.content, Content::Digest);
                    }
                }
                self.line(&Line::Link(link))
            }
            Step::Seal(seal) => self.line(&Line::Seal(seal.clone())),
            Step::Waiting(row) if self.only.wants(&row.row) => {
                self.told += 1;
                self.line(&Line::Waiting(row.clone()))
            }
            Step::Waiting(_) => Ok(()),
            Step::Unreadable(row) => self.line(&Line::Unreadable(row.clone())),
        }
    }

    /// Writes the last line; how many rows are there in full.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn end(mut self) -> anyhow::Result<u64> {
        let lines = self.lines;
        self.line(&Line::End { lines })?;
        self.out.flush()?;
        Ok(self.told)
    }

    fn line(&mut self, line: &Line) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")?;
        self.lines += 1;
        Ok(())
    }
}

/// Writes the whole log of a store.
///
/// # Errors
/// If the store cannot be read or the lines cannot be written.
pub(crate) async fn export<W: Write>(store: &Store, mut writer: Writer<W>) -> anyhow::Result<u64> {
    walk(store, |step| writer.step(step)).await?;
    writer.end()
}

/// Goes through the log of a store once.
///
/// # Errors
/// As [`Store::walk_audit`]; says what to do if the server let go of rows meanwhile, because what was written cannot be taken back.
pub(crate) async fn walk(store: &Store, visit: impl FnMut(Step<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    store.walk_audit(visit).await.map_err(|error| match error.downcast_ref() {
        Some(store::Error::Conflict) => error.context("the server let go of old rows meanwhile: try again"),
        _ => error,
    })
}

/// How much of a log lines are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// From its beginning, or from its cut.
    Whole,
    /// What belongs to some rows, from the middle of the chain.
    Part,
}

/// Verifies lines. `seen` hears every row that is there in full, and the progress.
///
/// # Errors
/// If they cannot be read at all. What is wrong with them is a finding.
pub(crate) fn verify(
    lines: impl BufRead,
    extent: Extent,
    keys: Option<AuditKeys>,
    trusted: &Trusted,
    mut seen: impl FnMut(&NewAudit, &Report),
) -> anyhow::Result<Report> {
    let mut reader = Lines { lines, number: 0 };
    let head = match reader.next()? {
        Some(Ok(Line::AuditLog(head))) if head.version == 1 => head,
        _ => anyhow::bail!("this is no exported audit log: its first line says otherwise"),
    };
    let mut checkpoints = Vec::new();
    let mut wrong: Vec<(FaultKind, String)> = Vec::new();
    if head.part && extent == Extent::Whole {
        // Nobody signs the first line: who takes the oldest batches away can write this into it.
        wrong.push((FaultKind::Missing, "it begins in the middle of the log: what was before cannot be judged".to_owned()));
    }
    let mut line = reader.next()?;
    while let Some(Ok(Line::Checkpoint(signed))) = &line {
        if !trusted.is_empty() {
            match trusted.check_checkpoint(signed) {
                Ok(checkpoint) => checkpoints.push(checkpoint),
                Err(why) => wrong.push((FaultKind::Checkpoint, format!("the checkpoint of {}: {why}", signed.checkpoint.at))),
            }
        }
        line = reader.next()?;
    }
    let mut cut = None;
    if let Some(Ok(Line::Cut(found))) = &line {
        if !trusted.is_empty()
            && let Err(why) = trusted.check(&found.public_key, found.statement().as_bytes(), &found.signature)
        {
            wrong.push((FaultKind::Forged, format!("the cut behind row {}: {why}", found.seq)));
        }
        cut = Some(found.clone());
        line = reader.next()?;
    }
    let mut verifier = if head.part { Verifier::of_part(keys, checkpoints) } else { Verifier::new(keys, checkpoints) };
    if let Some(cut) = &cut {
        verifier.cut(cut);
    }
    let mut whole = false;
    while let Some(read) = line {
        let number = reader.number;
        if whole {
            wrong.push((FaultKind::Form, format!("line {number} stands behind the end")));
            break;
        }
        match read {
            Ok(Line::Link(link)) => {
                verifier.link(&link);
                if let Content::Row(row) = &link.content {
                    seen(row, verifier.so_far());
                }
            }
            Ok(Line::Seal(seal)) => verifier.seal(&seal),
            Ok(Line::Waiting(row)) => {
                verifier.unsealed(&row);
                seen(&row.row, verifier.so_far());
            }
            Ok(Line::Unreadable(row)) => verifier.unsealed_unreadable(&row),
            Ok(Line::End { lines }) => {
                whole = true;
                if lines + 1 != number {
                    wrong.push((FaultKind::Missing, format!("there were {lines} lines before the end; now there are {}", number - 1)));
                }
            }
            Ok(Line::AuditLog(_) | Line::Checkpoint(_) | Line::Cut(_)) => {
                wrong.push((FaultKind::Form, format!("line {number} stands in the wrong place")))
            }
            Err(why) => wrong.push((FaultKind::Form, format!("line {number} cannot be read: {why}"))),
        }
        line = reader.next()?;
    }
    if !whole {
        wrong.push((FaultKind::Truncated, "the last line is not there: something was cut off".to_owned()));
    }
    wrong.into_iter().for_each(|(kind, text)| verifier.malformed(kind, None, text));
    Ok(verifier.end())
}

struct Lines<R> {
    lines: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line, if there is one, as far as it can be read.
    fn next(&mut self) -> anyhow::Result<Option<Result<Line, String>>> {
        let mut text = Vec::new();
        std::io::Read::take(&mut self.lines, LONGEST).read_until(b'\n', &mut text).context("cannot read the exported audit log")?;
        if text.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(serde_json::from_slice(&text).map_err(|error| error.to_string())))
    }
}
