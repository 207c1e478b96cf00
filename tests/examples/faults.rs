//! The table of `./test --long`: what was made to fail, how often, and what came of it.

#![expect(clippy::print_stdout, reason = "a table for the person at the terminal")]

use std::fs;
use std::process::ExitCode;

use harness::{FAULTS, Tally, table};

const HEAD: [&str; 10] = ["fault", "rounds", "faults", "places", "ledger", "lost", "doubled", "unknown", "time", ""];

fn main() -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(table()).unwrap_or_default();
    let tallies: Vec<Tally> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut rows: Vec<Vec<String>> = vec![HEAD.map(str::to_owned).into()];
    rows.extend(tallies.iter().map(row));
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>().to_string();
    let held = tallies.iter().filter(|tally| tally.held).count();
    let (rounds, faults, ledger) = (sum(|t| t.rounds), sum(|t| t.faults), sum(|t| t.lines));
    let (lost, doubled, unknown) = (sum(|t| t.lost), sum(|t| t.doubled), sum(|t| t.unknown));
    let (first, time) = (format!("{held} of {} held", tallies.len()), clock(tallies.iter().map(|t| t.seconds).sum()));
    rows.push(vec![first, rounds, faults, String::new(), ledger, lost, doubled, unknown, time, String::new()]);
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

fn row(tally: &Tally) -> Vec<String> {
    let [rounds, faults, ledger] = [tally.rounds, tally.faults, tally.lines].map(|count| count.to_string());
    let [lost, doubled, unknown] = [tally.lost, tally.doubled, tally.unknown].map(|count| count.to_string());
    let places = tally.places.map_or_else(String::new, |(struck, all)| format!("{struck}/{all}"));
    let held = if tally.held { "held" } else { "FAILED" };
    vec![tally.fault.clone(), rounds, faults, places, ledger, lost, doubled, unknown, clock(tally.seconds), held.to_owned()]
}

fn clock(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
