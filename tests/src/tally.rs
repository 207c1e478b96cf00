//! Tests that make something fail, again and again: how often, for how long, and what came of it.
//!
//! The short form of such a test does the least that shows something. `./test --long` shares its minutes among all of them; each repeats itself until its
//! share is used, and leaves a line for the table that stands at the end.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// How many tests share the time: `tidy` counts them.
pub const FAULTS: u32 = 34;
/// How many shares the sweeps among them take, which go through more places than fit into one: that of SQLite and that of PostgreSQL.
pub const SWEEPS: [u32; 2] = [4, 11];

/// What one test did so far. It is kept when it is dropped, so that a test that fails has its line too.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tally {
    /// What is made to fail.
    pub fault: String,
    /// How often it began from the start.
    pub rounds: u64,
    /// How often something was killed, stopped, filled or broken.
    pub faults: u64,
    /// What happened outside and should have: lines of a ledger, alerts that were answered and are stored.
    pub lines: u64,
    /// What should have happened and did not.
    pub lost: u64,
    /// What happened once too often.
    pub doubled: u64,
    /// Steps of which nobody could know, so that a person was asked.
    pub unknown: u64,
    /// Of a sweep: at how many places it struck, and how many there are, as far as it got.
    pub places: Option<(u64, u64)>,
    /// How long it took.
    pub seconds: u64,
    /// Whether it held.
    pub held: bool,
    #[serde(skip)]
    began: Option<Instant>,
    #[serde(skip)]
    shares: u32,
}

/// Repeats a test of a fault: `short` times, and in the long form until its share of the time is used too.
///
/// # Errors
/// Those of a round, with its number.
pub async fn rounds(fault: &str, short: u64, mut round: impl AsyncFnMut(&mut Tally) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut tally = Tally::new(fault);
    while tally.rounds < short || tally.time_left() {
        tally.rounds += 1;
        let number = tally.rounds;
        round(&mut tally).await.with_context(|| format!("round {number} of {fault:?}"))?;
    }
    tally.held = true;
    Ok(())
}

impl Tally {
    /// Begins to count.
    pub fn new(fault: &str) -> Self {
        let (fault, began) = (fault.to_owned(), Some(Instant::now()));
        Self {
            fault,
            rounds: 0,
            faults: 0,
            lines: 0,
            lost: 0,
            doubled: 0,
            unknown: 0,
            places: None,
            seconds: 0,
            held: false,
            began,
            shares: 1,
        }
    }

    /// Begins to count a sweep, which takes so many of [`SWEEPS`].
    pub fn of_sweep(fault: &str, shares: u32) -> Self {
        let mut tally = Self::new(fault);
        (tally.places, tally.shares) = (Some((0, 0)), shares);
        tally
    }

    /// Whether another round fits into this test's share; never in the short form.
    pub fn time_left(&self) -> bool {
        let all = f64::from(FAULTS + SWEEPS.iter().map(|shares| shares - 1).sum::<u32>());
        let share = minutes().map(|minutes| Duration::from_secs_f64(minutes * 60.0 * f64::from(self.shares) / all));
        share.is_some_and(|share| self.began.is_some_and(|began| began.elapsed() < share))
    }

    /// Compares a ledger with what should stand there, in that order.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn ledger<S: AsRef<str>>(&mut self, lines: &[String], wanted: &[S]) -> anyhow::Result<()> {
        let wanted: Vec<&str> = wanted.iter().map(AsRef::as_ref).collect();
        let mut surplus: BTreeMap<&str, i64> = BTreeMap::new();
        lines.iter().for_each(|line| *surplus.entry(line).or_default() += 1);
        wanted.iter().for_each(|line| *surplus.entry(line).or_default() -= 1);
        self.lines += lines.len() as u64;
        self.doubled += surplus.values().filter(|count| **count > 0).map(|count| count.unsigned_abs()).sum::<u64>();
        self.lost += surplus.values().filter(|count| **count < 0).map(|count| count.unsigned_abs()).sum::<u64>();
        ensure!(lines == wanted, "the ledger says {lines:?}, not {wanted:?}");
        Ok(())
    }

    fn keep(&mut self) -> anyhow::Result<()> {
        self.seconds = self.began.map_or(0, |began| began.elapsed().as_secs());
        let file = table();
        fs::create_dir_all(file.parent().context("no folder")?)?;
        // In one call: tests write at the same time.
        OpenOptions::new().create(true).append(true).open(file)?.write_all(format!("{}\n", serde_json::to_string(self)?).as_bytes())?;
        Ok(())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        // One that was read is not kept again, and those of this file's own tests are no faults.
        if self.began.is_some()
            && !cfg!(test)
            && long()
            && let Err(error) = self.keep()
        {
            tracing::error!(%error, "a line of the table is missing");
        }
    }
}

/// Where the lines of the table are kept, one JSON document each.
pub fn table() -> PathBuf {
    crate::repo().join("target/long.jsonl")
}

/// Whether the tests run at length: `./test --long`.
pub fn long() -> bool {
    minutes().is_some()
}

/// How long all of them may take together.
#[expect(clippy::disallowed_methods, reason = "how the test command speaks to the tests")]
fn minutes() -> Option<f64> {
    let minutes = std::env::var("WATCHKEEPER_TEST_LONG").ok()?;
    minutes.parse().ok().filter(|minutes: &f64| minutes.is_finite() && *minutes >= 0.0).or(Some(60.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_compared_line_by_line() {
        let mut tally = Tally::new("none");
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        tally.ledger(&lines("one two"), &["one", "two"]).unwrap();
        assert!(tally.ledger(&lines("two one"), &["one", "two"]).is_err());
        assert!(tally.ledger(&lines("one one"), &["one", "two", "three"]).is_err());
        assert_eq!((tally.lines, tally.lost, tally.doubled), (6, 2, 1));
    }

    #[tokio::test]
    async fn a_round_that_fails_ends_it_and_says_which() {
        let mut done = 0;
        let failed = rounds("it", 3, async |tally| {
            done += 1;
            ensure!(tally.rounds < 2, "no");
            Ok(())
        });
        assert!(format!("{:#}", failed.await.unwrap_err()).contains("round 2"));
        assert_eq!(done, 2);
    }
}
