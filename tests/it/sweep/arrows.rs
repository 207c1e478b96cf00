//! The turns in the life of a run, each with the kind of run that takes it; and which were taken, as the server's log tells.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use domain::run::RunState::{
    AwaitingApproval, Cancelled, Failed, Held, Queued, Refused, Running, Succeeded, Superseded, Unknown, Verifying,
};
use domain::run::{Run, RunState};
use serde_json::Value;

/// From where a run comes (`None`: it is new), where it goes, and the kind of run that takes this turn whenever nothing comes in between.
const ARROWS: [(Option<RunState>, RunState, &str); 29] = [
    (None, AwaitingApproval, "approved"),
    (None, Queued, "three-steps"),
    (Some(Held), AwaitingApproval, "changed-behind"),
    (Some(Held), Queued, "behind"),
    (Some(Held), Refused, "cooled-and-spent"),
    (Some(Held), Superseded, "behind"),
    (Some(Held), Cancelled, "keeps-changing"),
    (Some(AwaitingApproval), Held, "keeps-changing"),
    (Some(AwaitingApproval), Queued, "approved"),
    (Some(AwaitingApproval), Refused, "denied"),
    (Some(AwaitingApproval), Superseded, "withdrawn"),
    (Some(AwaitingApproval), Cancelled, "called-off"),
    (Some(Queued), Held, "behind"),
    (Some(Queued), AwaitingApproval, "changed-before-start"),
    (Some(Queued), Running, "three-steps"),
    (Some(Queued), Refused, "spent"),
    (Some(Queued), Superseded, "over-in-time"),
    (Some(Queued), Cancelled, "stopped-in-time"),
    (Some(Running), Verifying, "approved"),
    (Some(Running), Succeeded, "three-steps"),
    (Some(Running), Failed, "failed"),
    (Some(Running), Cancelled, "step-cancelled"),
    (Some(Running), Unknown, "lost-ran"),
    (Some(Verifying), Succeeded, "approved"),
    (Some(Verifying), Failed, "not-verified"),
    (Some(Verifying), Cancelled, "check-cancelled"),
    (Some(Unknown), Running, "lost-ran"),
    (Some(Unknown), Failed, "lost-aborted"),
    (Some(Unknown), Cancelled, "question-cancelled"),
];

/// The turns that the runs of each kind took.
#[derive(Debug, Default)]
pub(super) struct Taken {
    by: BTreeSet<(String, String)>,
    /// How much of the log was read.
    read: usize,
}

impl Taken {
    /// Reads what was added to the log, which tells of every turn before it is stored: what came of runs that are stored counts.
    ///
    /// # Errors
    /// If one of these runs took a turn that no kind is there for.
    pub(super) fn read(&mut self, log: &str, runs: &[(&'static str, &Run)]) -> anyhow::Result<()> {
        let kinds: BTreeMap<String, &str> = runs.iter().map(|(kind, run)| (run.id.to_string(), *kind)).collect();
        let lines = log.get(self.read..).context("the log lost its beginning")?.lines();
        self.read = log.len();
        for line in lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let before = match line["message"].as_str() {
                Some("run asked for") => "new",
                Some("run goes on") => line["before"].as_str().unwrap_or_default(),
                _ => continue,
            };
            let Some(kind) = line["run.id"].as_str().and_then(|id| kinds.get(id)) else { continue };
            let arrow = format!("{before} -> {}", line["state"].as_str().unwrap_or_default());
            ensure!(ARROWS.iter().any(|(from, to, _)| shown(*from, *to) == arrow), "{kind} took {arrow}: no kind of run is there for that");
            self.by.insert(((*kind).to_owned(), arrow));
        }
        Ok(())
    }

    /// Fails unless every turn was taken by the kind that is there for it.
    pub(super) fn are_all(&self) -> anyhow::Result<()> {
        let missing = ARROWS.iter().filter(|(from, to, kind)| !self.by.contains(&((*kind).to_owned(), shown(*from, *to))));
        let missing: Vec<String> = missing.map(|(from, to, kind)| format!("{} by {kind}", shown(*from, *to))).collect();
        ensure!(missing.is_empty(), "never taken: {}", missing.join(", "));
        Ok(())
    }
}

fn shown(from: Option<RunState>, to: RunState) -> String {
    format!("{} -> {}", from.map_or("new", RunState::as_str), to.as_str())
}

/// All states, by the words that serde knows: one that is added cannot be forgotten here.
fn states() -> Vec<RunState> {
    let told = serde_json::from_str::<RunState>("\"\"").unwrap_err().to_string();
    let words = told.split('`').skip(1).step_by(2).filter(|word| !word.is_empty());
    words.map(|word| serde_json::from_value(word.into()).unwrap()).collect()
}

#[test]
fn every_turn_in_a_runs_life_has_its_kind() {
    let states = states();
    assert!(states.len() >= 11 && states.contains(&Unknown), "{states:?}");
    for from in &states {
        for to in &states {
            let taken = ARROWS.iter().filter(|(one, next, _)| (*one, next) == (Some(*from), to)).count();
            assert_eq!(taken, usize::from(from.may_become(*to)), "{}", shown(Some(*from), *to));
        }
    }
    let kinds: BTreeSet<&str> = super::kinds::KINDS.iter().map(|kind| kind.name).collect();
    assert!(ARROWS.iter().all(|(_, _, kind)| kinds.contains(kind)));
    assert_eq!(kinds.len(), super::kinds::KINDS.len(), "two kinds have one name");
}
