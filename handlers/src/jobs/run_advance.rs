//! Carries a run forward: starts it, its steps one by one, then the check that decides.
//!
//! Every attempt's intent is committed before anything happens and its result afterwards, so that a killed server goes on at the right step.
//! A finished step is never carried out again. One that was under way is repeated only if it has no effect; otherwise the run is `unknown`.

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
        advance(cx, id).instrument(tracing::info_span!("run", run.id = %id)).await
    }
}

async fn advance(cx: &Cx, id: RunId) -> Result<Done, JobError> {
    loop {
        let run = cx.store.read().await?.run(id).await?;
        let Some(run) = run else {
            return Ok(Done::Finished);
        };
        // Somebody else may be carrying it out by now: whoever has it goes on.
        if !cx.claim.still_ours() {
            return Ok(Done::Again(cx.clock.now()));
        }
        let stepped = match run.state {
            RunState::Queued | RunState::Held => crate::starting::start(cx, id).await?,
            RunState::Running => steps::next(cx, &run).await?,
            RunState::Verifying => steps::verify(cx, &run).await?,
            _ => return Ok(Done::Finished),
        };
        match stepped {
            Stepped::On => {}
            Stepped::Over => return Ok(Done::Finished),
            Stepped::Later(at) => return Ok(Done::Again(at)),
        }
        if cx.wake.stopping() {
            return Ok(Done::Again(cx.clock.now() + SignedDuration::from_millis(1)));
        }
    }
}
