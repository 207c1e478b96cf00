//! What an earlier start of this server left under way: taken up, or said to be unknown. A started step belongs to its host, so only the server that
//! began it looks for its result. What was given up for unknown is looked for too: the answer of an agent that was cut off comes late.

use std::collections::HashSet;
use std::time::Duration;

use domain::action::ActionError;
use domain::plan::PlannedStep;
use domain::run::{Attempt, AttemptState, Run, RunState};
use jiff::SignedDuration;

use crate::Cx;
use crate::batch::Batch;
use crate::carry::{self, Begin, Outcome};
use crate::journal;
use crate::runs;
use crate::steps::Stepped;

/// How often it is looked for results of attempts that were given up for unknown.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long after a step's time another server's silence about it is enough.
const SILENCE: SignedDuration = SignedDuration::from_secs(45);
/// How often a run looks whether its step, which another server carries out, has ended.
const POLL: SignedDuration = SignedDuration::from_secs(2);

/// Looks after attempts of earlier starts, and after unknown ones, until the worker stops; each is taken up in a task of its own.
pub(crate) async fn keep(cx: Cx) {
    while !cx.wake.stopping() {
        if let Err(error) = look(&cx).await {
            tracing::warn!(%error, "what an earlier start left cannot be looked for: again later");
        }
        tokio::select! { () = tokio::time::sleep(LOOK_AGAIN) => {}, () = cx.wake.stopped() => {} }
    }
}

/// Removes the results that nobody will ask for, and asks what still goes on there to end. Before anything is begun: a folder without a stored intent may
/// be a new one later.
pub(crate) async fn tidy(cx: &Cx) -> Result<(), store::Error> {
    let rows = cx.store.read().await?.unfinished_attempts().await?;
    let wanted: HashSet<&str> = rows.iter().filter_map(|row| row.place.as_ref()?.execution.as_ref()).map(|one| one.id.as_str()).collect();
    for id in cx.actions.kept().into_iter().filter(|id| !wanted.contains(id.as_str())) {
        cx.actions.give_up(&id);
    }
    Ok(())
}

async fn look(cx: &Cx) -> Result<(), store::Error> {
    let rows = cx.store.read().await?.unfinished_attempts().await?;
    let left = |row: &Attempt| {
        let over = |start| row.state == AttemptState::Unknown || start != cx.store.start();
        row.place.as_ref().is_some_and(|place| place.instance == cx.store.instance() && over(place.start))
    };
    for row in rows.into_iter().filter(left) {
        let Some(run) = cx.store.read().await?.run(row.run).await? else { continue };
        let Some(step) = run.step(row.index).cloned() else { continue };
        let cx = cx.clone();
        tokio::spawn(async move {
            if let Err(error) = one(&cx, &run, &step, row).await {
                tracing::warn!(%error, run.id = %run.id, "what an earlier start left cannot be taken up: again later");
            }
        });
    }
    Ok(())
}

async fn one(cx: &Cx, run: &Run, step: &PlannedStep, mut row: Attempt) -> Result<(), store::Error> {
    match (row.state, run.state) {
        (AttemptState::Started, RunState::Running) => {
            if take_up(cx, run, step, row).await? == Stepped::On {
                let mut batch = Batch::begin(cx).await?;
                let job = runs::advance(run.id, batch.now);
                batch.job(job);
                batch.commit().await?;
            }
            Ok(())
        }
        (AttemptState::Started, state) if !state.is_active() => end_late(cx, run, step, row).await,
        (AttemptState::Unknown, RunState::Unknown) if carry::outlives(cx, step) => {
            let Some(_ours) = cx.wake.under_way.take(&row).filter(|_| has_execution(&row)) else { return Ok(()) };
            match carry::carry_out(cx, run, step, &mut row, Begin::Resume).await.told() {
                Some((AttemptState::Unknown, ..)) | None => Ok(()),
                Some(told) => journal::found(cx, row, told, step).await,
            }
        }
        _ => Ok(()),
    }
}

/// An attempt whose intent is stored and whose result is not: somebody carries it out, or did when a server stopped.
pub(crate) async fn interrupted(cx: &Cx, run: &Run, step: &PlannedStep, row: Attempt) -> Result<Stepped, store::Error> {
    let now = cx.clock.now();
    let other = row.place.as_ref().map(|place| place.instance.clone()).filter(|instance| instance != cx.store.instance());
    let Some(other) = other else { return take_up(cx, run, step, row).await };
    let silent_at = step.timeout.after(row.started_at) + SILENCE;
    if now < silent_at {
        return Ok(Stepped::Later(silent_at.min(now + POLL)));
    }
    let why = format!("{other} carries it out and says nothing any more");
    journal::finish(cx, run, row, &(AttemptState::Unknown, None, Some(why)), step).await?;
    Ok(Stepped::On)
}

/// An attempt that is under way though its run has ended, as when a version before this one cancelled it: it is ended too, and how that went is stored.
async fn end_late(cx: &Cx, run: &Run, step: &PlannedStep, row: Attempt) -> Result<(), store::Error> {
    if take_up(cx, run, step, row).await? != Stepped::On {
        return Ok(());
    }
    let mut tx = cx.store.begin().await?;
    let attempts = tx.attempts(run.id).await?;
    if attempts.iter().all(|attempt| attempt.state != AttemptState::Started) {
        tx.unlock_targets(run.id).await?;
    }
    tx.commit().await
}

/// Takes up an attempt that this server began, in this start or an earlier one. Of a run that was cancelled or has ended it is ended.
async fn take_up(cx: &Cx, run: &Run, step: &PlannedStep, row: Attempt) -> Result<Stepped, store::Error> {
    let Some(_ours) = cx.wake.under_way.take(&row) else { return Ok(Stepped::Later(cx.clock.now() + POLL)) };
    // Somebody may have been faster since it was read.
    let current = cx.store.read().await?.attempts(run.id).await?;
    let Some(mut row) = current.into_iter().find(|one| (one.index, one.attempt, one.state) == (row.index, row.attempt, row.state)) else {
        return Ok(Stepped::On);
    };
    let told = match (carry::outlives(cx, step), has_execution(&row)) {
        (true, true) => match carry::carry_out(cx, run, step, &mut row, Begin::Resume).await {
            Outcome::Left => return Ok(Stepped::Later(cx.clock.now() + POLL)),
            outcome => {
                row.again = matches!(outcome, Outcome::Ended(Err(ActionError::NeverBegan(_))));
                outcome.told()
            }
        },
        (true, false) => {
            row.again = true;
            Some((AttemptState::Failed, None, Some("the server stopped before it began".to_owned())))
        }
        (false, _) => Some((AttemptState::Unknown, None, Some("the server stopped while it was under way".to_owned()))),
    };
    if let Some(told) = told {
        journal::finish(cx, run, row, &told, step).await?;
    }
    Ok(Stepped::On)
}

fn has_execution(row: &Attempt) -> bool {
    row.place.as_ref().is_some_and(|place| place.execution.is_some())
}
