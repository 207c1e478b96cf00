//! Carries a running run to its next step, through its retries, and to the verification.

use std::collections::BTreeMap;

use domain::act::PAUSED_FLAG;
use domain::action::{Effect, OnUnknown};
use domain::audit::AuditDecision;
use domain::duration::Dur;
use domain::plan::PlannedStep;
use domain::run::{Attempt, AttemptState, Fence, Place, Run, RunState};
use domain::timeline::EntryKind;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::Cx;
use crate::batch::Batch;
use crate::carry::{Begin, Outcome, carry_out, outlives};
use crate::guards;
use crate::journal::{Onward, ask_people, end, finish, finish_and_go_on, go_on};
use crate::resume::interrupted;
use crate::runs;

/// How a run went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// Look at it again at once.
    On,
    /// Nothing more to do.
    Over,
    /// Look at it again at this time.
    Later(Timestamp),
}

/// How long a run waits under a pause before it looks again.
const PAUSED_WAIT: SignedDuration = SignedDuration::from_secs(5);
/// A step whose outcome was unknown so often is no longer repeated by itself.
const MOST_LOST: usize = 3;
/// The exit codes of a check.
const HAPPENED: u64 = 0;
const DID_NOT_HAPPEN: u64 = 10;

/// Carries out the first step that is not finished; after the last one, moves on to the verification.
pub(crate) async fn next(cx: &Cx, run: &Run, attempts: &[Attempt]) -> Result<Stepped, store::Error> {
    if let Some(who) = &run.cancelled_by {
        return wind_down(cx, run, attempts, who).await;
    }
    for (index, step) in (0_i64..).zip(&run.plan.steps) {
        let made: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.index == index).collect();
        let Some(last) = made.iter().max_by_key(|attempt| attempt.attempt).copied() else {
            return attempt(cx, run, index, step, 1).await;
        };
        let again = attempt(cx, run, index, step, last.attempt + 1);
        let failures = made.iter().filter(|attempt| attempt.state == AttemptState::Failed && !attempt.again).count();
        match last.state {
            AttemptState::Succeeded => {}
            AttemptState::Started => return interrupted(cx, run, step, last.clone()).await,
            AttemptState::Unknown => {
                // Of a checkable one those count too that its check, or a person, had made again.
                let counts =
                    |attempt: &&&Attempt| attempt.state == AttemptState::Unknown || attempt.again && step.effect == Effect::Checkable;
                let tired = made.iter().filter(counts).count() >= MOST_LOST && step.effect != Effect::ReadOnly;
                let why = last.error.as_deref().unwrap_or("its outcome is not known");
                return match (step.on_unknown, step.effect) {
                    (OnUnknown::Retry, Effect::Checkable) => check(cx, run, step, last.clone(), why, !tired).await,
                    (OnUnknown::Retry, effect) if effect.may_repeat() && !tired => again.await,
                    _ => ask_people(cx, run.id, step, why).await,
                };
            }
            AttemptState::Failed if last.again => return again.await,
            AttemptState::Failed if failures >= step.retry.attempts as usize => {
                if !step.continue_on_error {
                    let why = last.error.as_deref().unwrap_or_default();
                    return end(cx, run.id, RunState::Failed, format!("step {} failed: {why}", step.id)).await;
                }
            }
            AttemptState::Failed => {
                let now = cx.clock.now();
                // One that ended at a time that is still to come did so before the clock was set back.
                let ended = last.finished_at.filter(|at| *at <= now);
                return match ended.map(|at| backoff(step, failures).after(at)).filter(|due| *due > now) {
                    Some(due) => Ok(Stepped::Later(due)),
                    None => again.await,
                };
            }
        }
    }
    let mut batch = Batch::begin(cx).await?;
    let Some(now) = batch.tx.run(run.id).await?.filter(|run| run.state == RunState::Running) else { return Ok(Stepped::On) };
    let stepped = go_on(&mut batch, now, after_last(run)).await?;
    batch.commit().await?;
    Ok(stepped)
}

/// A person cancelled the run while a step was under way. That one is ended, and then the run; if nobody knows what became of it, people are asked,
/// and until then its targets stay locked.
async fn wind_down(cx: &Cx, run: &Run, attempts: &[Attempt], who: &str) -> Result<Stepped, store::Error> {
    for (index, step) in (0_i64..).zip(&run.plan.steps) {
        let Some(last) = attempts.iter().filter(|attempt| attempt.index == index).max_by_key(|attempt| attempt.attempt) else { break };
        match last.state {
            AttemptState::Started => return interrupted(cx, run, step, last.clone()).await,
            AttemptState::Unknown if step.must_be_settled() => {
                let why = last.error.as_deref().unwrap_or("its outcome is not known");
                return ask_people(cx, run.id, step, &format!("{who} cancelled the run, and of this nobody knows how far it came: {why}"))
                    .await;
            }
            AttemptState::Unknown | AttemptState::Succeeded | AttemptState::Failed => {}
        }
    }
    let mut batch = Batch::begin(cx).await?;
    let Some(mut run) = batch.tx.run(run.id).await?.filter(|run| run.state == RunState::Running) else { return Ok(Stepped::On) };
    let why = json!({ "why": format!("cancelled by {who}") });
    batch.audit("system", "run.end", format!("run:{}", run.id), AuditDecision::Allowed, "cancelled", why);
    if let Some(incident) = run.incident {
        batch.tell(incident, EntryKind::Run, None, format!("{} is cancelled: its step is over.", run.runbook));
    }
    runs::end_cancelled(&mut batch, &mut run, who).await?;
    batch.commit().await?;
    Ok(Stepped::Over)
}

/// What follows the last step.
fn after_last(run: &Run) -> Onward {
    match run.plan.verify {
        Some(_) => (RunState::Verifying, None),
        None => {
            let reason = "all steps done; the runbook has no check, so it is not known whether it helped";
            (RunState::Succeeded, Some(reason.to_owned()))
        }
    }
}

/// Tries the check until it passes or its time is over. It only looks, so it may be repeated at will; one attempt row stands for all tries. One that has
/// its result (a crash came in between, or a person said so) is gone on from.
pub(crate) async fn verify(cx: &Cx, run: &Run, attempts: Vec<Attempt>) -> Result<Stepped, store::Error> {
    let Some(verify) = &run.plan.verify else { return end(cx, run.id, RunState::Succeeded, "all steps done".to_owned()).await };
    let index = i64::try_from(run.plan.steps.len()).unwrap_or(i64::MAX);
    let last = attempts.into_iter().filter(|attempt| attempt.index == index).max_by_key(|attempt| attempt.attempt);
    let number = last.as_ref().map_or(1, |last| last.attempt + 1);
    let mut row = match last {
        Some(last) if last.state == AttemptState::Succeeded => {
            let summary = last.output.map(|output| output.summary).unwrap_or_default();
            return end(cx, run.id, RunState::Succeeded, verified(&summary)).await;
        }
        Some(last) if last.state == AttemptState::Failed && !last.again => {
            let why = last.error.unwrap_or_default();
            return end(cx, run.id, RunState::Failed, format!("the check did not pass: {why}")).await;
        }
        Some(last) if last.state == AttemptState::Started && last.started_at > cx.clock.now() => begun_now(cx, last).await?,
        Some(last) if last.state != AttemptState::Failed => last,
        _ => {
            let row = new_attempt(cx, run, index, &verify.step, number);
            let mut batch = Batch::begin(cx).await?;
            batch.tx.start_attempt(&row, about(&verify.step, &row)).await?;
            batch.commit().await?;
            row
        }
    };
    let outcome = carry_out(cx, run, &verify.step, &mut row, Begin::Stored).await;
    let now = cx.clock.now();
    match outcome {
        Outcome::Ended(Ok(output)) => {
            let onward = (RunState::Succeeded, Some(verified(&output.summary)));
            finish_and_go_on(cx, run, row, (AttemptState::Succeeded, Some(output), None), &verify.step, onward).await
        }
        Outcome::Cancelled | Outcome::Left | Outcome::NotBegun(_) => Ok(Stepped::On),
        Outcome::Ended(Err(error)) if now >= verify.within.after(row.started_at) => {
            let onward = (RunState::Failed, Some(format!("the check did not pass within {}: {error}", verify.within)));
            finish_and_go_on(cx, run, row, (AttemptState::Failed, None, Some(error.to_string())), &verify.step, onward).await
        }
        Outcome::Ended(Err(_)) => Ok(Stepped::Later(verify.every.after(now))),
    }
}

/// A check that was begun by a clock that has been set back since: its time begins now.
async fn begun_now(cx: &Cx, mut row: Attempt) -> Result<Attempt, store::Error> {
    let mut batch = Batch::begin(cx).await?;
    row.started_at = batch.now;
    batch.tx.note_attempt(&row).await?;
    batch.commit().await?;
    Ok(row)
}

fn verified(summary: &str) -> String {
    format!("verified: {summary}")
}

/// Carries out a new attempt. Its intent, with the audit row, is committed before anything happens; for what outlives us the action does that,
/// with the process that will do it in the same commit.
async fn attempt(cx: &Cx, run: &Run, index: i64, step: &PlannedStep, number: i64) -> Result<Stepped, store::Error> {
    let mut row = new_attempt(cx, run, index, step, number);
    let Some(_ours) = cx.wake.under_way.take(&row) else { return Ok(Stepped::On) };
    let fence = match &step.target {
        Some(_) => fence_of(&cx.store.glance().await?.fences_of(run.id).await?, step),
        None => None,
    };
    row.place = Some(Place { instance: cx.store.instance().to_owned(), start: cx.store.start(), fence, execution: None });
    let begin = if outlives(cx, step) { Begin::ByAction } else { Begin::Stored };
    let targets: Vec<String> = run.plan.targets().into_iter().map(str::to_owned).collect();
    if begin == Begin::Stored
        && let Some(stepped) = intend(cx, run.version, &targets, step, &row).await?
    {
        return Ok(stepped);
    }
    let told = match carry_out(cx, run, step, &mut row, begin).await {
        Outcome::NotBegun(stepped) => return Ok(stepped),
        outcome => outcome.told(),
    };
    let Some(told) = told else { return Ok(Stepped::Later(cx.clock.now())) };
    // It ended before it began: that is an attempt too.
    let unwritten = begin == Begin::ByAction && row.place.as_ref().is_none_or(|place| place.execution.is_none());
    if unwritten && let Some(stepped) = intend(cx, run.version, &targets, step, &row).await? {
        return Ok(stepped);
    }
    if told.0 == AttemptState::Succeeded && usize::try_from(index).is_ok_and(|index| index + 1 == run.plan.steps.len()) {
        return finish_and_go_on(cx, run, row, told, step, after_last(run)).await;
    }
    finish(cx, run, row, &told, step).await?;
    Ok(Stepped::On)
}

/// Stores that an attempt begins; `None` if it may, and otherwise how the run goes on instead.
/// `targets` are those of the whole run, whose plan stays as it is while it runs; `version` is the run's, by which it was decided that this comes next.
pub(crate) async fn intend(
    cx: &Cx,
    version: i64,
    targets: &[String],
    step: &PlannedStep,
    row: &Attempt,
) -> Result<Option<Stepped>, store::Error> {
    let id = row.run;
    let mut batch = Batch::begin(cx).await?;
    // Read in the transaction that stores the intent: a cancel that came first wins.
    let Some((state, now, paused)) = batch.tx.run_state(id, PAUSED_FLAG).await? else { return Ok(Some(Stepped::On)) };
    if state != RunState::Running || now != version {
        return Ok(Some(Stepped::On));
    }
    if paused.as_ref().is_some_and(guards::is_paused) {
        return Ok(Some(Stepped::Later(batch.now + PAUSED_WAIT)));
    }
    let fences = if targets.is_empty() { BTreeMap::new() } else { batch.tx.fences_of(id).await? };
    if let Some(lost) = targets.iter().find(|target| !fences.contains_key(*target)) {
        let why = format!("it has lost its lock on {lost}, which a later run may hold");
        drop(batch);
        return end(cx, id, RunState::Failed, why).await.map(Some);
    }
    let fence = fence_of(&fences, step);
    if row.place.as_ref().is_none_or(|place| place.fence != fence) {
        return Ok(Some(Stepped::On));
    }
    cx.claim.hold(&mut batch.tx).await?;
    batch.tx.start_attempt(row, about(step, row)).await?;
    batch.commit().await?;
    Ok(None)
}

/// What the audit log says of an attempt that begins.
fn about(step: &PlannedStep, row: &Attempt) -> Value {
    let target = step.target.as_ref().map(|target| target.name.as_str());
    let fence = row.place.as_ref().and_then(|place| place.fence).map(|fence| fence.to_string());
    json!({ "step": step.id, "uses": step.uses, "target": target, "attempt": row.attempt, "fence": fence })
}

fn fence_of(fences: &BTreeMap<String, Fence>, step: &PlannedStep) -> Option<Fence> {
    step.target.as_ref().and_then(|target| fences.get(&target.name)).copied()
}

/// Asks the check of a step whether it happened. If it did not, the step is made `again`, or has failed.
async fn check(cx: &Cx, run: &Run, step: &PlannedStep, mut row: Attempt, why: &str, again: bool) -> Result<Stepped, store::Error> {
    let Some(check) = &step.check else { return ask_people(cx, run.id, step, why).await };
    let mut asked = new_attempt(cx, run, row.index, check, row.attempt);
    let said = match carry_out(cx, run, check, &mut asked, Begin::Stored).await {
        Outcome::Ended(Ok(output)) => output.data["exit"].as_u64().ok_or(output.summary),
        Outcome::Ended(Err(error)) => Err(error.to_string()),
        Outcome::Cancelled | Outcome::Left | Outcome::NotBegun(_) => return Ok(Stepped::On),
    };
    let told = match said {
        Ok(HAPPENED) => {
            let summary = "the check says that it happened".to_owned();
            (AttemptState::Succeeded, Some(domain::action::ActionOutput { summary, ..Default::default() }), None)
        }
        Ok(DID_NOT_HAPPEN) => {
            row.again = again;
            (AttemptState::Failed, None, Some(format!("{why}; the check says that it did not happen")))
        }
        Ok(code) => return ask_people(cx, run.id, step, &format!("{why}, and its check exited with {code}")).await,
        Err(problem) => return ask_people(cx, run.id, step, &format!("{why}, and its check cannot tell: {problem}")).await,
    };
    finish(cx, run, row, &told, step).await?;
    Ok(Stepped::On)
}

fn new_attempt(cx: &Cx, run: &Run, index: i64, step: &PlannedStep, number: i64) -> Attempt {
    Attempt {
        run: run.id,
        index,
        step: step.id.clone(),
        attempt: number,
        state: AttemptState::Started,
        started_at: cx.clock.now(),
        finished_at: None,
        output: None,
        error: None,
        place: None,
        again: false,
        restored: false,
    }
}

fn backoff(step: &PlannedStep, failures: usize) -> Dur {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(0).min(16);
    step.retry.delay.times(1 << doublings).min(step.retry.max_delay)
}
