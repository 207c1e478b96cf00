//! Carries out one step, or the verification, of a running run.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::action::{ActionCx, ActionError, ActionOutput, Effect, RunHost};
use domain::card::Message;
use domain::duration::Dur;
use domain::id::{IncidentId, RunId};
use domain::incident::Happening;
use domain::job::{NewJob, Urgency};
use domain::plan::PlannedStep;
use domain::run::{Attempt, AttemptState, Run, RunState};
use domain::text::clean_line;
use domain::timeline::EntryKind;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::Cx;
use crate::batch::Batch;
use crate::{guards, runs};

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

/// An action ends by itself at its deadline; this much later it is cut off.
const CUT_OFF: Duration = Duration::from_secs(15);
/// How often a running step asks whether its run was cancelled.
const ASK_CANCELLED: Duration = Duration::from_millis(500);
/// How long a run waits under a pause before it looks again.
const PAUSED_WAIT: SignedDuration = SignedDuration::from_secs(5);

/// Carries out the first step that is not finished; after the last one, moves on to the verification.
pub(crate) async fn next(cx: &Cx, run: &Run) -> Result<Stepped, store::Error> {
    let attempts = cx.store.read().await?.attempts(run.id).await?;
    for (index, step) in run.plan.steps.iter().enumerate() {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        let last = attempts.iter().filter(|attempt| attempt.index == index).max_by_key(|attempt| attempt.attempt);
        let tried = last.map_or(0, |attempt| attempt.attempt);
        match last.map(|attempt| attempt.state) {
            Some(AttemptState::Succeeded) => continue,
            Some(AttemptState::Started) if step.effect != Effect::ReadOnly => {
                let why = "the server stopped while it was under way";
                return lose_track(cx, run.id, last, step, why).await;
            }
            Some(AttemptState::Unknown) => return lose_track(cx, run.id, None, step, "its outcome is not known").await,
            Some(AttemptState::Failed) if tried >= i64::from(step.retry.attempts) => {
                if step.continue_on_error {
                    continue;
                }
                let why = last.and_then(|attempt| attempt.error.clone()).unwrap_or_default();
                return end(cx, run.id, RunState::Failed, format!("step {} failed: {why}", step.id)).await;
            }
            Some(AttemptState::Failed) => {
                let due = last.and_then(|attempt| attempt.finished_at).map(|at| backoff(step, tried).after(at));
                if let Some(due) = due.filter(|due| *due > cx.clock.now()) {
                    return Ok(Stepped::Later(due));
                }
            }
            Some(AttemptState::Started) | None => {}
        }
        return attempt(cx, run, index, step, tried + 1).await;
    }
    let mut batch = Batch::begin(cx).await?;
    let Some(mut run) = batch.tx.run(run.id).await?.filter(|run| run.state == RunState::Running) else { return Ok(Stepped::On) };
    if run.plan.verify.is_some() {
        runs::put_state(&mut batch, &mut run, RunState::Verifying, None).await?;
        batch.commit().await?;
        return Ok(Stepped::On);
    }
    drop(batch);
    end(cx, run.id, RunState::Succeeded, "all steps done; the runbook has no check, so it is not known whether it helped".to_owned()).await
}

/// Tries the check until it passes or its time is over. It only looks, so it may be repeated at will; one attempt row stands for all tries.
pub(crate) async fn verify(cx: &Cx, run: &Run) -> Result<Stepped, store::Error> {
    let Some(verify) = &run.plan.verify else { return end(cx, run.id, RunState::Succeeded, "all steps done".to_owned()).await };
    let index = i64::try_from(run.plan.steps.len()).unwrap_or(i64::MAX);
    let attempts = cx.store.read().await?.attempts(run.id).await?;
    let row = match attempts.into_iter().find(|attempt| attempt.index == index) {
        Some(row) => row,
        None => {
            let row = new_attempt(cx, run, index, &verify.step, 1);
            let mut batch = Batch::begin(cx).await?;
            batch.tx.start_attempt(&row).await?;
            batch.commit().await?;
            row
        }
    };
    let outcome = carry_out(cx, run, &verify.step, 1).await;
    let now = cx.clock.now();
    match outcome {
        Outcome::Ended(Ok(output)) => {
            let summary = output.summary.clone();
            finish(cx, run, row, AttemptState::Succeeded, Some(output), None, &verify.step).await?;
            end(cx, run.id, RunState::Succeeded, format!("verified: {summary}")).await
        }
        Outcome::Cancelled => Ok(Stepped::On),
        Outcome::Ended(Err(error)) if now >= verify.within.after(row.started_at) => {
            finish(cx, run, row, AttemptState::Failed, None, Some(error.to_string()), &verify.step).await?;
            end(cx, run.id, RunState::Failed, format!("the check did not pass within {}: {error}", verify.within)).await
        }
        Outcome::Ended(Err(_)) => Ok(Stepped::Later(verify.every.after(now))),
    }
}

async fn attempt(cx: &Cx, run: &Run, index: i64, step: &PlannedStep, number: i64) -> Result<Stepped, store::Error> {
    let row = new_attempt(cx, run, index, step, number);
    let mut batch = Batch::begin(cx).await?;
    if guards::paused(&mut batch).await?.is_some() {
        return Ok(Stepped::Later(batch.now + PAUSED_WAIT));
    }
    // Read in the transaction that stores the intent: a cancel that came first wins.
    if batch.tx.run(run.id).await?.is_none_or(|run| run.state != RunState::Running) {
        return Ok(Stepped::On);
    }
    batch.tx.start_attempt(&row).await?;
    batch.commit().await?;
    let outcome = carry_out(cx, run, step, u32::try_from(number).unwrap_or(u32::MAX)).await;
    let (state, output, error) = match outcome {
        Outcome::Ended(Ok(output)) => (AttemptState::Succeeded, Some(output), None),
        Outcome::Ended(Err(ActionError::Failed(error) | ActionError::Refused(error))) => (AttemptState::Failed, None, Some(error)),
        Outcome::Ended(Err(ActionError::Unknown(error))) => (AttemptState::Unknown, None, Some(error)),
        Outcome::Cancelled => (AttemptState::Unknown, None, Some("stopped by a person".to_owned())),
    };
    finish(cx, run, row, state, output, error, step).await?;
    Ok(Stepped::On)
}

enum Outcome {
    Ended(Result<ActionOutput, ActionError>),
    Cancelled,
}

async fn carry_out(cx: &Cx, run: &Run, step: &PlannedStep, number: u32) -> Outcome {
    let Some(action) = cx.actions.get(&step.uses) else {
        return Outcome::Ended(Err(ActionError::Refused(format!("there is no action {:?} in this version", step.uses))));
    };
    let action_cx = ActionCx {
        run: run.id,
        step: step.id.clone(),
        attempt: number,
        idempotency_key: format!("{}/{}", run.id, step.id),
        target: step.target.clone(),
        deadline: step.timeout.after(cx.clock.now()),
        host: Arc::new(Host { cx: cx.clone(), run: run.id, step: step.id.clone(), incident: run.incident }),
    };
    let began = std::time::Instant::now();
    let ended = tokio::select! {
        ended = tokio::time::timeout(step.timeout.as_std() + CUT_OFF, action.run(&action_cx, &step.with)) => ended,
        () = cancelled(cx, run.id) => return Outcome::Cancelled,
    };
    metrics::histogram!("watchkeeper_step_duration_seconds", "action" => action.name()).record(began.elapsed().as_secs_f64());
    Outcome::Ended(ended.unwrap_or_else(|_| {
        let text = format!("it did not end within {}", step.timeout);
        Err(if step.effect == Effect::ReadOnly { ActionError::Failed(text) } else { ActionError::Unknown(text) })
    }))
}

/// Ends when the run is no longer one that may act.
async fn cancelled(cx: &Cx, run: RunId) {
    loop {
        tokio::time::sleep(ASK_CANCELLED).await;
        let Ok(mut tx) = cx.store.read().await else { continue };
        if let Ok(Some(run)) = tx.run(run).await
            && !matches!(run.state, RunState::Running | RunState::Verifying)
        {
            return;
        }
    }
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
    }
}

async fn finish(
    cx: &Cx,
    run: &Run,
    mut row: Attempt,
    state: AttemptState,
    output: Option<ActionOutput>,
    error: Option<String>,
    step: &PlannedStep,
) -> Result<(), store::Error> {
    let mut batch = Batch::begin(cx).await?;
    let redact = |text: &str| cx.redactor.redact(text).into_owned();
    row.state = state;
    row.finished_at = Some(batch.now);
    row.error = error.as_deref().map(redact);
    row.output = output.map(|output| ActionOutput { summary: redact(&output.summary), text: redact(&output.text), data: output.data });
    batch.tx.finish_attempt(&row).await?;
    if row.attempt > 1 {
        metrics::counter!("watchkeeper_step_retries_total", "action" => step.uses.clone()).increment(1);
    }
    if let Some(incident) = run.incident {
        let said = row.error.clone().or_else(|| row.output.as_ref().map(|output| output.summary.clone())).unwrap_or_default();
        let on = step.target.as_ref().map(|target| format!(" on {}", target.name)).unwrap_or_default();
        let line = format!("{}{on} {}: {}", step.uses, state.as_str(), clean_line(&said, 400));
        let detail = row.output.as_ref().map(|output| output.text.clone()).filter(|text| !text.trim().is_empty());
        batch.tell_more(incident, EntryKind::Run, None, line, detail);
    }
    batch.commit().await
}

/// The outcome of a step cannot be known: the run stops, its targets stay locked, and people are told what to do.
async fn lose_track(cx: &Cx, id: RunId, attempt: Option<&Attempt>, step: &PlannedStep, why: &str) -> Result<Stepped, store::Error> {
    let mut batch = Batch::begin(cx).await?;
    let Some(mut run) = batch.tx.run(id).await?.filter(|run| run.state == RunState::Running) else { return Ok(Stepped::On) };
    if let Some(attempt) = attempt {
        let mut row = attempt.clone();
        row.state = AttemptState::Unknown;
        row.finished_at = Some(batch.now);
        row.error = Some(why.to_owned());
        batch.tx.finish_attempt(&row).await?;
    }
    let targets = run.plan.targets().into_iter().collect::<Vec<_>>().join(", ");
    let reason = format!("step {} ({}): {why}. Look at {targets}, then cancel this run to unlock it", step.id, step.uses);
    runs::put_state(&mut batch, &mut run, RunState::Unknown, Some(reason.clone())).await?;
    batch.audit(
        "system",
        "run.unknown",
        format!("run:{id}"),
        domain::audit::AuditDecision::Allowed,
        "unknown",
        json!({ "step": step.id, "why": why }),
    );
    tracing::warn!(run.id = %id, step = %step.id, "the outcome of a step is unknown: its targets stay locked");
    if let Some(incident) = run.incident {
        batch.tell(incident, EntryKind::Run, None, format!("{} is unknown: {reason}.", run.runbook));
        batch.note_automation(incident, format!("{} is unknown: {reason}", run.runbook)).await?;
    }
    batch.commit().await?;
    Ok(Stepped::Over)
}

/// Ends a run: unlocks its targets, counts, tells, and lets a quiet incident go on to its resolve.
async fn end(cx: &Cx, id: RunId, state: RunState, reason: String) -> Result<Stepped, store::Error> {
    let mut batch = Batch::begin(cx).await?;
    let Some(mut run) = batch.tx.run(id).await?.filter(|run| run.state.is_active()) else { return Ok(Stepped::Over) };
    let verified = state == RunState::Succeeded && run.state == RunState::Verifying;
    runs::put_state(&mut batch, &mut run, state, Some(reason.clone())).await?;
    batch.tx.unlock_targets(id).await?;
    guards::count_failure(&mut batch, &run, state != RunState::Succeeded).await?;
    if let Some(began) = run.started_at {
        let took = batch.now.duration_since(began).as_secs_f64();
        metrics::histogram!("watchkeeper_run_duration_seconds", "runbook" => run.runbook.clone()).record(took);
    }
    batch.audit("system", "run.end", format!("run:{id}"), domain::audit::AuditDecision::Allowed, state.as_str(), json!({ "why": reason }));
    tracing::info!(run.id = %id, runbook = %run.runbook, state = state.as_str(), "run ended");
    if let Some(incident) = run.incident {
        let reason = clean_line(&reason, 400);
        let call = if state == RunState::Failed && run.plan.on_failure.escalate { " A person has to look now." } else { "" };
        batch.tell(incident, EntryKind::Run, None, format!("{} {}: {reason}.{call}", run.runbook, state.as_str()));
        batch.note_automation(incident, format!("{} {}: {reason}", run.runbook, state.as_str())).await?;
        batch.hurry(incident);
        if verified {
            let _unchanged = batch.happen(incident, &Happening::Remedied).await?;
        }
        look_when_quiet(&mut batch, incident);
    }
    batch.commit().await?;
    Ok(Stepped::Over)
}

/// A run held an incident's resolve back: look again now that it ended.
fn look_when_quiet(batch: &mut Batch<'_>, incident: IncidentId) {
    let now = batch.now;
    batch.job(NewJob {
        kind: "incident.look",
        key: format!("{incident}/quiet"),
        due_at: now,
        urgency: Urgency::Action,
        payload: json!({ "incident": incident, "what": "quiet" }),
    });
}

fn backoff(step: &PlannedStep, tried: i64) -> Dur {
    let doublings = u32::try_from(tried - 1).unwrap_or(0).min(16);
    step.retry.delay.times(1 << doublings).min(step.retry.max_delay)
}

/// What a step may ask of its run.
struct Host {
    cx: Cx,
    run: RunId,
    step: String,
    incident: Option<IncidentId>,
}

#[async_trait]
impl RunHost for Host {
    async fn notify(&self, channel: &str, text: &str) -> Result<(), String> {
        if !self.cx.rules.load().channels.contains_key(channel) {
            return Err(format!("there is no channel {channel:?} in the configuration"));
        }
        let mut batch = Batch::begin(&self.cx).await.map_err(|error| error.to_string())?;
        let text = self.cx.redactor.redact(text).into_owned();
        let message = Message { text, block: None, at: batch.now };
        let job = NewJob {
            kind: "chat.message",
            key: format!("{}-{}", self.run, self.step),
            due_at: batch.now,
            urgency: Urgency::Tell,
            payload: json!({ "channel": channel, "message": message }),
        };
        batch.job(job);
        batch.commit().await.map_err(|error| error.to_string())
    }

    async fn evidence(&self, title: &str, text: &str) -> Result<(), String> {
        let Some(incident) = self.incident else { return Ok(()) };
        let mut batch = Batch::begin(&self.cx).await.map_err(|error| error.to_string())?;
        batch.tell_more(incident, EntryKind::Run, None, clean_line(title, 200), Some(text.to_owned()));
        batch.commit().await.map_err(|error| error.to_string())
    }
}
