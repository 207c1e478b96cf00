//! The runs of one round, and what people and the source do about them: whatever got no answer is said again.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use domain::plan::PlannedStep;
use domain::run::{Attempt, AttemptState, Run, RunState, Settlement};
use harness::world::{Alert, World};
use reqwest::Method;
use serde_json::{Value, json};

use super::kinds::{Deed, Kind, Seen};
use super::stage::Stage;

/// More alerts than are decided where they are stored.
const COMPANY: u64 = 70;

/// The runs of one round.
pub(super) struct Lives {
    pub(super) lives: Vec<Life>,
    /// Alerts that nothing is done about.
    company: Vec<Alert>,
}

/// The runs of one kind.
pub(super) struct Life {
    pub(super) kind: &'static Kind,
    alerts: BTreeMap<&'static str, Alert>,
    /// The parts of which the source was told that they were heard, and that their end was: it does not say that again.
    fired: BTreeSet<&'static str>,
    resolved: BTreeSet<&'static str>,
    /// How often a person was asked what became of a step, and answered.
    pub(super) settled: u64,
}

impl Lives {
    /// Nothing has happened yet. A body alone is decided where it is stored; one with so much company is left unopened first.
    pub(super) fn new(kinds: impl Iterator<Item = &'static Kind>, round: u64, with_company: bool) -> Self {
        let number = round.to_string();
        let life = |kind: &'static Kind| {
            let alert = |part: &'static str| (part, Alert::new(kind.name).label("part", part).label("round", &number));
            let alerts = kind.parts.iter().map(|(part, _)| alert(part)).collect();
            Life { kind, alerts, fired: BTreeSet::new(), resolved: BTreeSet::new(), settled: 0 }
        };
        let count = if with_company { COMPANY } else { 0 };
        let company = (0..count).map(|n| Alert::new("NobodyMinds").label("n", &n.to_string()).label("round", &number)).collect();
        Self { lives: kinds.map(life).collect(), company }
    }

    /// Tells of the alerts that everything begins with.
    pub(super) async fn begin(&mut self, world: &World) -> anyhow::Result<()> {
        let first = |life: &Life| life.alerts[life.kind.parts[0].0].clone();
        let all: Vec<Alert> = self.company.iter().cloned().chain(self.lives.iter().map(first)).collect();
        world.send(&all).await?;
        self.lives.iter_mut().for_each(|life| {
            life.fired.insert(life.kind.parts[0].0);
        });
        Ok(())
    }

    /// Tells that everything is over.
    pub(super) async fn end(&self, world: &World) -> anyhow::Result<()> {
        let all: Vec<Alert> = self.alerts().map(Alert::resolved).collect();
        world.send(&all).await
    }

    /// Every alert of the round.
    pub(super) fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.company.iter().chain(self.lives.iter().flat_map(|life| life.alerts.values()))
    }

    /// Looks at all runs once, and does what is to be done about them.
    ///
    /// # Errors
    /// As long as not all are over: says how they stand.
    pub(super) async fn tend(&mut self, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
        let runs: Vec<Run> = serde_json::from_value(world.get("/runs?limit=100").await?["items"].clone())?;
        let lines = stage.ledger.lines();
        let mut standing = Vec::new();
        for life in &mut self.lives {
            let runs: BTreeMap<&'static str, Run> = life.runs(&runs).map(|(part, run)| (part, run.clone())).collect();
            let words = words(life.kind, &lines);
            for run in runs.values().filter(|run| run.state == RunState::Unknown) {
                life.settled += u64::from(settle(world, life.kind, run, &words).await?);
            }
            let seen = Seen { runs: &runs, words: &words, version: stage.version(life.kind), is_open: stage.is_open(life.kind) };
            if let Some(deed) = life.kind.next(&seen) {
                life.carry_out(deed, &runs, stage, world).await.with_context(|| format!("{deed:?} for {}", life.kind.name))?;
            }
            for (part, _) in life.kind.parts {
                match runs.get(part) {
                    Some(run) if !run.state.is_active() => {}
                    Some(run) => standing.push(format!("{} {part} is {}: {:?}", life.kind.name, run.state.as_str(), run.reason)),
                    None => standing.push(format!("{} {part} is not there", life.kind.name)),
                }
            }
        }
        ensure!(standing.is_empty(), "{}", standing.join("; "));
        Ok(())
    }
}

impl Life {
    /// Its runs among these, each with its part.
    pub(super) fn runs<'a>(&self, all: &'a [Run]) -> impl Iterator<Item = (&'static str, &'a Run)> {
        let is_of = |run: &Run, alert: &Alert| alert.labels.iter().all(|(name, value)| run.inputs["context"]["labels"][name] == *value);
        all.iter().filter_map(move |run| self.alerts.iter().find(|(_, alert)| is_of(run, alert)).map(|(part, _)| (*part, run)))
    }

    async fn carry_out(&mut self, deed: Deed, runs: &BTreeMap<&'static str, Run>, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
        match deed {
            Deed::Fire(part) => {
                if !self.fired.contains(part) {
                    world.send(std::slice::from_ref(&self.alerts[part])).await?;
                    self.fired.insert(part);
                }
            }
            Deed::Resolve(part) => {
                if !self.resolved.contains(part) {
                    world.send(&[self.alerts[part].resolved()]).await?;
                    self.resolved.insert(part);
                }
            }
            Deed::Approve(part) => decide(world, &runs[part], "approve").await?,
            Deed::ApproveHeldBack(part) => {
                stage.hold_back(self.kind, true).await?;
                decide(world, &runs[part], "approve").await?;
            }
            Deed::Deny(part) => decide(world, &runs[part], "deny").await?,
            Deed::Cancel(part) => {
                world.call("ann", Method::POST, &format!("/runs/{}/cancel", runs[part].id), Some(&json!({}))).await?;
            }
            Deed::LetStart => stage.hold_back(self.kind, false).await?,
            Deed::Change => stage.change(world, self.kind).await?,
            Deed::Open => stage.open(self.kind)?,
        }
        Ok(())
    }
}

/// The words of a kind in the ledger.
pub(super) fn words<'a>(kind: &Kind, lines: &'a [String]) -> Vec<&'a str> {
    lines.iter().filter_map(|line| line.strip_prefix(kind.name)?.strip_prefix(' ')).collect()
}

/// The word that a step leaves in the ledger when it does its work.
pub(super) fn word(step: &PlannedStep) -> &str {
    step.with["args"][2].as_str().unwrap_or(&step.id)
}

/// A person presses a button under the newest request for approval, and once more before anything can be seen of it.
async fn decide(world: &World, run: &Run, decision: &str) -> anyhow::Result<()> {
    let id = world.get(&format!("/runs/{}", run.id)).await?["approval"]["id"].clone();
    let path = format!("/approvals/{}/decision", id.as_str().context("nothing is asked")?);
    let said = json!({ "decision": decision, "reason": "because" });
    let press = || world.call("ben", Method::POST, &path, Some(&said));
    let (first, second) = tokio::join!(press(), press());
    let (first, second) = (first?.json, second?.json);
    ensure!(first["done"] != true || second["done"] != true, "both count: {first}, {second}");
    Ok(())
}

/// A person looks at the ledger and says what became of a step that nobody knows of. Whether it was heard.
async fn settle(world: &World, kind: &Kind, run: &Run, words: &[&str]) -> anyhow::Result<bool> {
    let attempts: Vec<Attempt> = serde_json::from_value(world.get(&format!("/runs/{}", run.id)).await?["attempts"].clone())?;
    let Some(row) = attempts.iter().rfind(|attempt| attempt.state == AttemptState::Unknown) else { return Ok(false) };
    let step = run.step(row.index).context("a check cannot be unknown")?;
    let how = match words.contains(&word(step)) {
        true => kind.says,
        false if run.cancelled_by.is_some() => Settlement::DidNotRun,
        false => Settlement::Again,
    };
    let said: Value = json!({ "how": how, "reason": "the ledger says so" });
    let answer = world.call("ben", Method::POST, &format!("/runs/{}/settle", run.id), Some(&said)).await?;
    Ok(answer.status.is_success())
}
