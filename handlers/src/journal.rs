//! The journal of a run: results of attempts, the end of a run, and what is asked when an outcome is not known.

use domain::action::ActionOutput;
use domain::approval::ApprovalState;
use domain::audit::AuditDecision;
use domain::id::{IncidentId, RunId};
use domain::incident::Happening;
use domain::job::{NewJob, Urgency};
use domain::plan::PlannedStep;
use domain::run::{Attempt, AttemptState, Run, RunState};
use domain::text::clean_line;
use domain::timeline::EntryKind;
use serde_json::json;

use crate::Cx;
use crate::batch::Batch;
use crate::carry::Told;
use crate::steps::Stepped;
use crate::{guards, runs};

/// The state that a run goes on to, and the reason if it ends with it.
pub(crate) type Onward = (RunState, Option<String>);

/// Stores what an attempt came to, and tells it.
pub(crate) async fn finish(cx: &Cx, run: &Run, row: Attempt, told: &Told, step: &PlannedStep) -> Result<(), store::Error> {
    store_end(cx, run, row, told, step, None).await.map(drop)
}

/// How often an end is tried again that somebody else's change of the run or its incident got in the way of.
const TRIES: usize = 10;

/// The same for the attempt after which the run goes on to another state: in one commit.
pub(crate) async fn finish_and_go_on(
    cx: &Cx,
    run: &Run,
    row: Attempt,
    told: Told,
    step: &PlannedStep,
    onward: Onward,
) -> Result<Stepped, store::Error> {
    let mut now = run.clone();
    for _ in 0..TRIES {
        match store_end(cx, &now, row.clone(), &told, step, Some(onward.clone())).await {
            // Whoever changes the run or its incident at the moment goes first; then all of it once more, by what they left.
            Err(store::Error::Conflict | store::Error::Retry) => {}
            done => return done,
        }
        let look = async { cx.store.glance().await?.run(run.id).await };
        match look.await {
            Ok(Some(changed)) if changed.state == run.state => now = changed,
            _ => break,
        }
    }
    // What was done is stored in any case; whoever looks at the run next goes on by it.
    store_end(cx, run, row, &told, step, None).await
}

async fn store_end(
    cx: &Cx,
    run: &Run,
    mut row: Attempt,
    told: &Told,
    step: &PlannedStep,
    onward: Option<Onward>,
) -> Result<Stepped, store::Error> {
    let mut batch = Batch::begin(cx).await?;
    end_attempt(&mut batch, &mut row, told).await?;
    tell(&mut batch, run, &row, step);
    let mut stepped = Stepped::On;
    if let Some(onward) = onward {
        // By its version: whoever changed it meanwhile goes first.
        stepped = go_on(&mut batch, run.clone(), onward).await?;
    }
    batch.commit().await?;
    if row.attempt > 1 {
        metrics::counter!("watchkeeper_step_retries_total", "action" => step.uses.clone()).increment(1);
    }
    // The journal has it now. A result of unknown outcome stays: it may still come.
    if told.0 != AttemptState::Unknown {
        forget(cx, &row);
    }
    Ok(stepped)
}

/// Moves a run on, as it stands in this transaction.
pub(crate) async fn go_on(batch: &mut Batch<'_>, mut run: Run, (state, reason): Onward) -> Result<Stepped, store::Error> {
    match reason {
        Some(reason) => end_in(batch, run, state, reason).await.map(|()| Stepped::Over),
        None => runs::put_state(batch, &mut run, state, None).await.map(|()| Stepped::On),
    }
}

/// Writes the end of an attempt, less the secrets that may stand in it.
async fn end_attempt(batch: &mut Batch<'_>, row: &mut Attempt, (state, output, error): &Told) -> Result<(), store::Error> {
    let redact = |text: &str| batch.cx.redactor.redact(text).into_owned();
    // What stays unknown has been so since it was first.
    if (row.state, *state) != (AttemptState::Unknown, AttemptState::Unknown) {
        row.finished_at = Some(batch.now);
    }
    row.state = *state;
    row.error = error.as_deref().map(redact);
    row.output = output.as_ref().map(|output| {
        let mut data = output.data.clone();
        batch.cx.redactor.redact_value(&mut data);
        ActionOutput { summary: redact(&output.summary), text: redact(&output.text), data }
    });
    batch.tx.finish_attempt(row).await
}

fn forget(cx: &Cx, row: &Attempt) {
    if let Some(execution) = row.place.as_ref().and_then(|place| place.execution.as_ref()) {
        cx.actions.forget(&execution.id);
    }
}

fn tell(batch: &mut Batch<'_>, run: &Run, row: &Attempt, step: &PlannedStep) {
    let Some(incident) = run.incident else { return };
    let said = row.error.clone().or_else(|| row.output.as_ref().map(|output| output.summary.clone())).unwrap_or_default();
    let on = step.target.as_ref().map(|target| format!(" on {}", target.name)).unwrap_or_default();
    let line = format!("{}{on} {}: {}", step.uses, row.state.as_str(), clean_line(&said, 400));
    let detail = row.output.as_ref().map(|output| output.text.clone()).filter(|text| !text.trim().is_empty());
    batch.tell_more(incident, EntryKind::Run, None, line, detail);
}

/// The outcome of a step cannot be known: the run stops, its targets stay locked, and people are asked.
pub(crate) async fn ask_people(cx: &Cx, id: RunId, step: &PlannedStep, why: &str) -> Result<Stepped, store::Error> {
    let mut batch = Batch::begin(cx).await?;
    let Some(mut run) = batch.tx.run(id).await?.filter(|run| run.state == RunState::Running) else { return Ok(Stepped::On) };
    let (targets, why) = (run.plan.targets().into_iter().collect::<Vec<_>>().join(", "), clean_line(why, 400));
    let look = if targets.is_empty() { "Look at what it does".to_owned() } else { format!("{targets} stays locked. Look at it") };
    let reason = format!("step {} ({}): {why}. {look}, then say whether it ran", step.id, step.uses);
    runs::put_state(&mut batch, &mut run, RunState::Unknown, Some(reason.clone())).await?;
    let detail = json!({ "step": step.id, "why": why });
    batch.audit("system", "run.unknown", format!("run:{id}"), AuditDecision::Allowed, "unknown", detail);
    tracing::warn!(run.id = %id, step = %step.id, why, "the outcome of a step is unknown: its targets stay locked");
    if let Some(incident) = run.incident {
        batch.tell(incident, EntryKind::Run, None, format!("{} is unknown: {reason}.", run.runbook));
        batch.note_automation(incident, format!("{} is unknown: {reason}", run.runbook)).await?;
        batch.hurry(incident);
    }
    batch.commit().await?;
    Ok(Stepped::Over)
}

/// The truth about an attempt that nobody knew of: its result came after all, and the run goes on by it. Not so after a restore: what came after that
/// step may have happened too, so it is kept for the person who is asked.
pub(crate) async fn found(cx: &Cx, mut row: Attempt, told: Told, step: &PlannedStep) -> Result<(), store::Error> {
    let mut batch = Batch::begin(cx).await?;
    let Some(mut run) = batch.tx.run(row.run).await?.filter(|run| run.state == RunState::Unknown) else { return Ok(()) };
    if row.restored {
        return keep_heard(batch, run, row, told, step).await;
    }
    end_attempt(&mut batch, &mut row, &told).await?;
    // Whoever was asked whether to run it again is asked no more.
    runs::withdraw_approval(&mut batch, run.id, ApprovalState::Superseded).await?;
    runs::put_state(&mut batch, &mut run, RunState::Running, None).await?;
    let detail = json!({ "step": step.id, "attempt": row.attempt, "state": row.state.as_str() });
    batch.audit("system", "run.found", format!("run:{}", run.id), AuditDecision::Allowed, "result_found", detail);
    tell(&mut batch, &run, &row, step);
    if let Some(incident) = run.incident {
        batch.note_automation(incident, format!("{} goes on: the result of {} was found", run.runbook, step.id)).await?;
        batch.hurry(incident);
    }
    let job = runs::advance(run.id, batch.now);
    batch.job(job);
    batch.commit().await?;
    forget(cx, &row);
    Ok(())
}

/// Keeps what is heard of an attempt from before a restore. It stays unknown, and nobody asks after it again.
async fn keep_heard(
    mut batch: Batch<'_>,
    mut run: Run,
    mut row: Attempt,
    (state, output, error): Told,
    step: &PlannedStep,
) -> Result<(), store::Error> {
    let (cx, known) = (batch.cx, row.clone());
    let said = error.or_else(|| output.as_ref().map(|output| output.summary.clone())).unwrap_or_default();
    let heard = format!("since then it was heard that {} {}: {}", step.id, state.as_str(), clean_line(&said, 400));
    let with = |before: Option<String>| before.map_or_else(|| heard.clone(), |before| format!("{before}; {heard}"));
    row.place.iter_mut().for_each(|place| place.execution = None);
    let error = with(row.error.take());
    end_attempt(&mut batch, &mut row, &(AttemptState::Unknown, output, Some(error))).await?;
    tell(&mut batch, &run, &row, step);
    let detail = json!({ "step": step.id, "attempt": row.attempt, "state": state.as_str() });
    batch.audit("system", "run.heard", format!("run:{}", run.id), AuditDecision::Allowed, "before_restore", detail);
    let (expected, reason) = (run.version, batch.cx.redactor.redact(&with(run.reason.take())).into_owned());
    run.version += 1;
    run.reason = Some(reason.clone());
    batch.put_run(&run, expected).await?;
    if let Some(incident) = run.incident {
        batch.note_automation(incident, format!("{} is unknown: {reason}", run.runbook)).await?;
        batch.hurry(incident);
    }
    batch.commit().await?;
    forget(cx, &known);
    Ok(())
}

/// Ends a run: unlocks its targets, counts, tells, and lets a quiet incident go on to its resolve.
pub(crate) async fn end(cx: &Cx, id: RunId, state: RunState, reason: String) -> Result<Stepped, store::Error> {
    let mut batch = Batch::begin(cx).await?;
    let Some(run) = batch.tx.run(id).await?.filter(|run| run.state.is_active()) else { return Ok(Stepped::Over) };
    end_in(&mut batch, run, state, reason).await?;
    batch.commit().await?;
    Ok(Stepped::Over)
}

/// The same, within a transaction that has more to say.
pub(crate) async fn end_in(batch: &mut Batch<'_>, mut run: Run, state: RunState, reason: String) -> Result<(), store::Error> {
    let id = run.id;
    let verified = state == RunState::Succeeded && run.state == RunState::Verifying;
    runs::put_state(batch, &mut run, state, Some(reason.clone())).await?;
    if let Some(began) = run.started_at {
        let took = batch.now.duration_since(began).as_secs_f64();
        metrics::histogram!("watchkeeper_run_duration_seconds", "runbook" => run.runbook.clone()).record(took);
    }
    batch.audit("system", "run.end", format!("run:{id}"), AuditDecision::Allowed, state.as_str(), json!({ "why": reason }));
    tracing::info!(run.id = %id, runbook = %run.runbook, state = state.as_str(), "run ended");
    if let Some(incident) = run.incident {
        tell_end(batch, &run, incident, state, verified, &reason).await?;
    }
    // On SQLite they go with what is written next: nothing is read after them.
    batch.tx.unlock_targets(id).await?;
    guards::count_failure(batch, &run, state != RunState::Succeeded).await
}

async fn tell_end(
    batch: &mut Batch<'_>,
    run: &Run,
    incident: IncidentId,
    state: RunState,
    verified: bool,
    reason: &str,
) -> Result<(), store::Error> {
    let reason = clean_line(reason, 400);
    let call = if state == RunState::Failed && run.plan.on_failure.escalate { " A person has to look now." } else { "" };
    batch.tell(incident, EntryKind::Run, None, format!("{} {}: {reason}.{call}", run.runbook, state.as_str()));
    batch.note_automation(incident, format!("{} {}: {reason}", run.runbook, state.as_str())).await?;
    batch.hurry(incident);
    if verified {
        let _unchanged = batch.happen(incident, &Happening::Remedied).await?;
    }
    // One that has not gone quiet by now is looked at after it did.
    if batch.incident(incident).await?.is_some_and(|incident| incident.quiet_since.is_some()) {
        look_when_quiet(batch, incident);
    }
    Ok(())
}

/// A run held an incident's resolve back: look again now that it ended.
pub(crate) fn look_when_quiet(batch: &mut Batch<'_>, incident: IncidentId) {
    let now = batch.now;
    batch.job(NewJob {
        kind: "incident.look",
        key: format!("{incident}/quiet"),
        due_at: now,
        urgency: Urgency::Action,
        payload: json!({ "incident": incident, "what": "quiet" }),
    });
}
