//! The table of `./test --long`: what was made to fail, how often, and what came of it.

#![expect(clippy::print_stdout, reason = "a table for the person at the terminal")]

use std::fs;
use std::process::ExitCode;

use harness::{FAULTS, Tally, table};

const HEAD: [&str; 9] = ["fault", "rounds", "faults", "ledger", "lost", "doubled", "unknown", "time", ""];

fn main() -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(table()).unwrap_or_default();
    let tallies: Vec<Tally> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut rows: Vec<[String; 9]> = vec![HEAD.map(str::to_owned)];
    rows.extend(tallies.iter().map(row));
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let total = [sum(|t| t.rounds), sum(|t| t.faults), sum(|t| t.lines), sum(|t| t.lost), sum(|t| t.doubled), sum(|t| t.unknown)];
    let held = tallies.iter().filter(|tally| tally.held).count();
    let mut last = [const { String::new() }; 9];
    last[0] = format!("{held} of {} held", tallies.len());
    last[1..7].clone_from_slice(&total.map(|count| count.to_string()));
    last[7] = clock(sum(|t| t.seconds));
    rows.push(last);
    let widths: Vec<usize> = (0..HEAD.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    for row in &rows {
        let (first, numbers) = (format!("{:<1$}", row[0], widths[0]), row[1..].iter().zip(&widths[1..]));
        let numbers: String = numbers.map(|(cell, width)| format!("  {cell:>width$}")).collect();
        println!("{}", format!("{first}{numbers}").trim_end());
    }
    if tallies.len() < FAULTS as usize {
        println!("Only {} of {FAULTS} ran.", tallies.len());
    }
    Ok(if held == tallies.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(tally: &Tally) -> [String; 9] {
    let counts = [tally.rounds, tally.faults, tally.lines, tally.lost, tally.doubled, tally.unknown].map(|count| count.to_string());
    let [rounds, faults, lines, lost, doubled, unknown] = counts;
    let held = if tally.held { "held" } else { "FAILED" };
    [tally.fault.clone(), rounds, faults, lines, lost, doubled, unknown, clock(tally.seconds), held.to_owned()]
}

fn clock(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
