//! What was measured: percentiles, a table for people, JSON for programs, and a line of progress meanwhile.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::cmd::{Format, out};

/// Named figures in order.
#[derive(Debug, Default)]
pub(super) struct Report {
    title: String,
    rows: Vec<(String, Value, &'static str)>,
    wrong: Vec<String>,
}

impl Report {
    pub(super) fn new(title: String) -> Self {
        Self { title, ..Self::default() }
    }

    /// A figure with its unit.
    pub(super) fn add(&mut self, name: &str, value: f64, unit: &'static str) {
        let digits = if value.abs() < 10.0 { 100.0 } else { 1.0 };
        self.rows.push((name.to_owned(), json!((value * digits).round() / digits), unit));
    }

    pub(super) fn word(&mut self, name: &str, value: &str) {
        self.rows.push((name.to_owned(), json!(value), ""));
    }

    /// p50, p99, p99.9 and the longest.
    pub(super) fn times(&mut self, name: &str, times: &mut [Duration]) {
        times.sort_unstable();
        for (word, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            self.add(&format!("{name} {word}"), at(times, part).as_secs_f64() * 1000.0, "ms");
        }
    }

    /// What must hold does not: the command ends with 1.
    pub(super) fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    pub(super) fn failed(&self) -> bool {
        !self.wrong.is_empty()
    }

    pub(super) fn print(&self, format: Format) {
        if format == Format::Json {
            let key = |name: &str, unit: &str| [name, unit].join(" ").trim().replace([' ', '/'], "_");
            let mut all: Map<String, Value> = self.rows.iter().map(|(name, value, unit)| (key(name, unit), value.clone())).collect();
            all.insert("title".to_owned(), json!(self.title));
            all.insert("wrong".to_owned(), json!(self.wrong));
            out(&Value::Object(all).to_string());
            return;
        }
        out(&self.title);
        let width = self.rows.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
        for (name, value, unit) in &self.rows {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out(&format!("  {name:width$}  {} {unit}", text.trim_end_matches(".0")));
        }
        for wrong in &self.wrong {
            out(&format!("  WRONG: {wrong}"));
        }
    }
}

/// The middle of sorted times, in seconds.
pub(super) fn median(sorted: &[Duration]) -> f64 {
    at(sorted, 0.5).as_secs_f64()
}

fn at(sorted: &[Duration], part: f64) -> Duration {
    let index = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(index.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// A bar on the terminal, where there is one.
pub(super) struct Progress {
    what: &'static str,
    shown: Option<Instant>,
    to: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, shown: None, to: std::io::stderr().is_terminal() }
    }

    /// `part` of the whole is done, from 0 to 1.
    pub(super) fn show(&mut self, part: f64, more: &str) {
        if !self.to || self.shown.is_some_and(|at| at.elapsed() < Duration::from_millis(100)) {
            return;
        }
        self.shown = Some(Instant::now());
        let full = (part.clamp(0.0, 1.0) * 30.0) as usize;
        drop(write!(std::io::stderr().lock(), "\r{} [{}{}] {more}\x1b[K", self.what, "#".repeat(full), "-".repeat(30 - full)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.to {
            drop(write!(std::io::stderr().lock(), "\r\x1b[K"));
        }
    }
}

/// Resident memory of this process, in MB: server and senders together.
pub(super) fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let times: Vec<Duration> = (1..=1000).map(Duration::from_millis).collect();
        assert_eq!((at(&times, 0.5), at(&times, 0.99), at(&times, 1.0)), (times[499], times[989], times[999]));
        assert_eq!((at(&times[..1], 0.999), at(&[], 0.5)), (times[0], Duration::ZERO));
    }
}
