//! Carries a run forward: starts it, its steps one by one, then the check that decides.
//!
//! Every attempt's intent is committed before anything happens and its result afterwards, so that a killed server goes on at the right step.
//! A finished step is never carried out again. One that was under way is
//! taken up by its shim or its result; where there is neither, its effect class says whether it is repeated, checked, or a person is asked.

use async_trait::async_trait;
use domain::id::RunId;
use domain::job::Job as Row;
use domain::run::RunState;
use jiff::SignedDuration;
use tracing::Instrument;

use super::{Done, Job, JobError, field};
use crate::Cx;
use crate::steps::{self, Stepped};

pub(crate) struct RunAdvance;

#[async_trait]
impl Job for RunAdvance {
    fn kind(&self) -> &'static str {
        "run.advance"
    }

    fn at_once(&self) -> usize {
        32
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let id: RunId = field(row, "run")?;
        advance(cx, id, row.claim <= 1).instrument(tracing::info_span!("run", run.id = %id)).await
    }
}

async fn advance(cx: &Cx, id: RunId, first: bool) -> Result<Done, JobError> {
    let mut begun = None;
    if first && cx.claim.still_ours() {
        // It waits to be started, most likely; the transaction that starts it looks anyway.
        let (stepped, started) = crate::starting::start(cx, id).await?;
        if let Some(done) = over(cx, stepped) {
            return Ok(done);
        }
        begun = started;
    }
    loop {
        // Of one that was just started it is known how it stands, and that nothing was attempted.
        let (run, attempts) = match begun.take() {
            Some(run) => (run, Vec::new()),
            None => {
                let mut look = cx.store.glance().await?;
                let Some(run) = look.run(id).await? else { return Ok(Done::Finished) };
                let attempts = if run.started_at.is_some() { look.attempts(id).await? } else { Vec::new() };
                (run, attempts)
            }
        };
        // Somebody else may be carrying it out by now: whoever has it goes on.
        if !cx.claim.still_ours() {
            return Ok(Done::Again(cx.clock.now()));
        }
        let stepped = match run.state {
            RunState::Queued | RunState::Held => {
                let (stepped, started) = crate::starting::start(cx, id).await?;
                begun = started;
                stepped
            }
            RunState::Running => steps::next(cx, &run, &attempts).await?,
            RunState::Verifying => steps::verify(cx, &run, attempts).await?,
            _ => return Ok(Done::Finished),
        };
        if let Some(done) = over(cx, stepped) {
            return Ok(done);
        }
    }
}

/// How the job ends after this step, if it does.
fn over(cx: &Cx, stepped: Stepped) -> Option<Done> {
    match stepped {
        Stepped::On if cx.wake.stopping() => Some(Done::Again(cx.clock.now() + SignedDuration::from_millis(1))),
        Stepped::On => None,
        Stepped::Over => Some(Done::Finished),
        Stepped::Later(at) => Some(Done::Again(at)),
    }
}
