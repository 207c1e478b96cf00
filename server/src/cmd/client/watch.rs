//! `run watch`: what a run prints while it runs, as lines on the terminal, and how each step ends.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use domain::run::RunState;
use domain::text::clean_line;
use serde_json::Value;

use super::Remote;
use super::table::text as text_of;
use crate::cmd::out;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Longest line that is shown, in characters.
const LINE: usize = 2000;

/// What was said already.
#[derive(Default)]
struct Told {
    /// Lines of each stream of each attempt.
    lines: BTreeMap<String, u64>,
    ended: BTreeSet<String>,
}

/// Prints until the run has ended or waits for people. Fails if it did not succeed.
///
/// # Errors
/// If the server cannot be reached, or refuses.
pub(super) fn watch(remote: &Remote, id: &str) -> anyhow::Result<ExitCode> {
    let mut told = Told::default();
    loop {
        let answer = remote.get(&format!("/runs/{id}"))?;
        for line in told.fresh(&answer) {
            out(&line);
        }
        let run = &answer["run"];
        let state: RunState = serde_json::from_value(run["state"].clone())?;
        if !state.is_active() || matches!(state, RunState::Unknown | RunState::AwaitingApproval | RunState::Held) {
            let why = text_of(run, "reason");
            out(&clean_line(
                &format!("{} {}{}{why}", text_of(run, "runbook"), state.as_str(), if why.is_empty() { "" } else { ": " }),
                LINE,
            ));
            return Ok(if state == RunState::Succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        std::thread::sleep(LOOK);
    }
}

impl Told {
    /// The lines that were not there before. Text of a program is never let through raw.
    fn fresh(&mut self, answer: &Value) -> Vec<String> {
        let mut fresh = Vec::new();
        for live in list(&answer["live"]) {
            let step = format!("{} {}", text_of(live, "step"), live["attempt"]);
            for stream in ["stdout", "stderr"] {
                let lines: Vec<&str> = live[stream]["text"].as_str().unwrap_or_default().lines().collect();
                let all = live[stream]["lines"].as_u64().unwrap_or(0);
                let told = self.lines.entry(format!("{step} {stream}")).or_default();
                let new = usize::try_from(all.saturating_sub(*told)).unwrap_or(usize::MAX);
                if new > lines.len() {
                    fresh.push(format!("[{} lines were not seen]", new - lines.len()));
                }
                *told = all.max(*told);
                fresh.extend(lines[lines.len().saturating_sub(new)..].iter().map(|line| clean_line(line, LINE)));
            }
        }
        for attempt in list(&answer["attempts"]).iter().filter(|attempt| attempt["state"] != "started") {
            let name = format!("{} {} {}", text_of(attempt, "step"), attempt["attempt"], text_of(attempt, "state"));
            if self.ended.insert(name) {
                fresh.extend(self.rest(attempt));
                let said = if attempt["error"].is_null() { text_of(&attempt["output"], "summary") } else { text_of(attempt, "error") };
                fresh.push(clean_line(&format!("{}: {}: {said}", text_of(attempt, "step"), text_of(attempt, "state")), LINE));
            }
        }
        fresh
    }
}

impl Told {
    /// What a command printed last, from its result: nobody saw it while it ran.
    fn rest(&self, attempt: &Value) -> Vec<String> {
        let output = &attempt["output"];
        // Of what was cut nobody knows which lines are left.
        if output["data"]["cut"] != false {
            return Vec::new();
        }
        let text = output["text"].as_str().unwrap_or_default();
        let (stdout, stderr) = text.split_once("--- stderr ---\n").unwrap_or((text, ""));
        let left = |stream: &str, text: &str| {
            let told = self.lines.get(&format!("{} {} {stream}", text_of(attempt, "step"), attempt["attempt"])).copied().unwrap_or(0);
            let lines = text.lines().skip(usize::try_from(told).unwrap_or(usize::MAX));
            lines.map(|line| clean_line(line, LINE)).collect::<Vec<_>>()
        };
        [left("stdout", stdout), left("stderr", stderr)].concat()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_line_is_said_once_and_escapes_do_not_reach_the_terminal() {
        let answer = |text: &str, lines: u64, state: &str| {
            let live =
                json!({ "step": "s", "attempt": 1, "stdout": { "text": text, "lines": lines }, "stderr": { "text": "", "lines": 0 } });
            json!({ "live": [live], "attempts": [{ "step": "s", "attempt": 1, "state": state, "output": { "summary": "well" }, "error": null }] })
        };
        let mut told = Told::default();
        assert_eq!(told.fresh(&answer("a\nb\n", 2, "started")), ["a", "b"]);
        assert_eq!(told.fresh(&answer("a\nb\n", 2, "started")), Vec::<String>::new());
        assert_eq!(told.fresh(&answer("b\nc\u{1b}[31m\n", 3, "started")), ["c\u{241b}[31m"]);
        assert_eq!(told.fresh(&answer("x\n", 6, "started")), ["[2 lines were not seen]", "x"]);
        let mut over = answer("x\n", 6, "succeeded");
        over["attempts"][0]["output"] =
            json!({ "summary": "well", "data": { "cut": false }, "text": "a\nb\nc\nd\ne\nx\ny\n--- stderr ---\nz\n" });
        assert_eq!(told.fresh(&over), ["y", "z", "s: succeeded: well"]);
        assert_eq!(told.fresh(&answer("x\n", 6, "succeeded")), Vec::<String>::new());
    }
}
