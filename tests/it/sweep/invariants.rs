//! What must hold after every round, whatever was killed in it: looked for in the store itself, beside no server, and in the ledger outside.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use domain::action::Effect;
use domain::event::{Payload, Status};
use domain::run::{Attempt, AttemptState, Run, RunState, Settlement};
use harness::Tally;
use harness::world::World;
use store::{IncidentFilter, RunFilter, Store, Tx};

use super::arrows::Taken;
use super::kinds::Kind;
use super::lives::{Life, Lives, word, words};
use super::stage::Stage;
use crate::audit::say;
use crate::workers::options;

/// The audit log is verified this often: it grows, and what was sealed in an earlier round is verified with it.
const VERIFIED: u64 = 8;

/// What earlier rounds showed.
#[derive(Debug, Default)]
pub(super) struct SoFar {
    pub(super) taken: Taken,
    /// The last event that was looked at.
    event: i64,
}

/// Checks everything, after a round and with its server stopped. `calm`: nothing was killed.
///
/// # Errors
/// Says what does not hold.
pub(super) async fn hold(
    so_far: &mut SoFar,
    stage: &Stage,
    world: &World,
    lives: &Lives,
    calm: bool,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let store = Store::look(options(&stage.url, "sweep")).await?;
    let mut tx = store.read().await?;
    nothing_is_left(&mut tx).await?;
    so_far.event = alerts_are_there_once(&mut tx, lives, so_far.event).await?;
    let all = tx.runs(&RunFilter { limit: 200, ..RunFilter::default() }).await?;
    let lines = stage.ledger.lines();
    tally.lines += lines.len() as u64;
    let mut runs = Vec::new();
    for life in &lives.lives {
        let words = words(life.kind, &lines);
        for (part, run) in each_has_its_run(life, &all, calm && life.settled == 0)? {
            let attempts = tx.attempts(run.id).await?;
            effects_are_as_written_down(life.kind, run, &attempts, &words, tally)
                .with_context(|| format!("{} {part}, with {words:?} in the ledger: {attempts:#?}", life.kind.name))?;
            runs.push((life.kind.name, run));
        }
    }
    drop(tx);
    store.close().await;
    so_far.taken.read(&world.log(), &runs)?;
    if calm || tally.rounds.is_multiple_of(VERIFIED) { audit_is_whole(world).await } else { Ok(()) }
}

/// Every alert is there, and none twice: by now the source was told of each that it was heard. Gives the last event that there is.
async fn alerts_are_there_once(tx: &mut Tx, lives: &Lives, after: i64) -> anyhow::Result<i64> {
    let mut heard: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = after;
    loop {
        let events = tx.events_since(last, 500).await?;
        let Some(end) = events.last().map(|event| event.seq) else { break };
        last = end;
        let fired = events.into_iter().filter_map(|event| match event.payload {
            Payload::Alert(sighting) if sighting.status == Status::Firing => Some(sighting.fingerprint),
            _ => None,
        });
        fired.for_each(|fingerprint| *heard.entry(fingerprint).or_default() += 1);
    }
    for alert in lives.alerts() {
        let count = heard.get(&alert.fingerprint()).copied().unwrap_or_default();
        ensure!(count == 1, "an alert that was answered is there {count} times: {:?}", alert.labels);
    }
    Ok(last)
}

/// Nothing waits, nothing was given up, nothing is under way, nothing is locked, nothing is open.
async fn nothing_is_left(tx: &mut Tx) -> anyhow::Result<()> {
    let depths = tx.depths().await?;
    ensure!(depths.queue == 0, "{} events were not decided", depths.queue);
    ensure!((depths.dead_letters, depths.jobs_dead) == (0, 0), "events or jobs were given up: {depths:?}");
    let locked = tx.locked_targets().await?;
    ensure!(locked.is_empty(), "targets stay locked, though no run goes on: {locked:?}");
    let unfinished = tx.unfinished_attempts().await?;
    ensure!(unfinished.is_empty(), "attempts have no end, though no run goes on: {unfinished:#?}");
    let open = tx.incidents(&IncidentFilter { open_only: true, prefix: None, before: None, limit: 10 }).await?;
    ensure!(open.is_empty(), "incidents stay open: {open:#?}");
    Ok(())
}

/// The one run of each part of a kind, which ended as it may.
fn each_has_its_run<'a>(life: &Life, all: &'a [Run], calm: bool) -> anyhow::Result<Vec<(&'static str, &'a Run)>> {
    let name = life.kind.name;
    let mut found = Vec::new();
    for (part, ends) in life.kind.parts {
        let runs: Vec<&Run> = life.runs(all).filter(|(of, _)| of == part).map(|(_, run)| run).collect();
        ensure!(runs.len() == 1, "{name} {part} has {} runs: {runs:#?}", runs.len());
        let ends = if calm { &ends[..1] } else { *ends };
        ensure!(ends.contains(&runs[0].state), "{name} {part} ended {}: {:?}", runs[0].state.as_str(), runs[0].reason);
        found.push((*part, runs[0]));
    }
    Ok(found)
}

/// What the journal of a run says and what its steps left outside agree: what is done was done, what may not happen twice did not, what never began did not.
fn effects_are_as_written_down(kind: &Kind, run: &Run, attempts: &[Attempt], words: &[&str], tally: &mut Tally) -> anyhow::Result<()> {
    let mut places = Vec::new();
    for (index, step) in (0_i64..).zip(&run.plan.steps) {
        let made: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.index == index).collect();
        let done = made.iter().any(|attempt| attempt.state == AttemptState::Succeeded);
        ensure!(done || run.state != RunState::Succeeded, "the run succeeded, and its step {} did not", step.id);
        let count = words.iter().filter(|line| **line == word(step)).count();
        let most = match step.effect {
            _ if made.is_empty() => 0,
            Effect::AtMostOnce | Effect::Checkable => 1 + usize::from(kind.says == Settlement::Again),
            _ => made.len(),
        };
        tally.doubled += count.saturating_sub(most) as u64;
        tally.lost += u64::from(done && count == 0);
        ensure!(count <= most, "{} happened {count} times, at most {most} are right", step.id);
        ensure!(count > 0 || !done, "{} is done, and did not happen", step.id);
        places.extend(words.iter().position(|line| *line == word(step)));
    }
    ensure!(places.is_sorted(), "its steps happened in another order");
    Ok(())
}

/// The chain of the audit log is whole.
async fn audit_is_whole(world: &World) -> anyhow::Result<()> {
    let done = say(&["audit", "verify", "--config"], &[&world.config()]).await?;
    ensure!(done.status.success(), "the audit log is not whole: {}{}", done.stdout, done.stderr);
    Ok(())
}
