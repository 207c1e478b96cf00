//! The verbs, one file for each kind of object. Each takes a `Granted`: nothing here asks again who may.

mod approval;
mod automation;
mod incident;
mod run;

use domain::act::{ActOutcome, Verb};
use domain::permission::Granted;

use crate::batch::Batch;

/// Carries out a verb for somebody who may.
pub(crate) async fn dispatch(batch: &mut Batch<'_>, granted: &Granted, verb: &Verb) -> Result<ActOutcome, store::Error> {
    match verb {
        Verb::Acknowledge { incident } => incident::change(batch, granted, *incident, incident::Change::Acknowledge).await,
        Verb::Unacknowledge { incident } => incident::change(batch, granted, *incident, incident::Change::Unacknowledge).await,
        Verb::Resolve { incident } => incident::change(batch, granted, *incident, incident::Change::Resolve).await,
        Verb::Reopen { incident } => incident::change(batch, granted, *incident, incident::Change::Reopen).await,
        Verb::Close { incident } => incident::change(batch, granted, *incident, incident::Change::Close).await,
        Verb::Note { incident, text } => incident::note(batch, granted, *incident, text).await,
        Verb::Run { incident, runbook, params } => run::ask(batch, granted, *incident, runbook, params).await,
        Verb::Settle { run, how, reason } => run::settle(batch, granted, *run, *how, reason).await,
        Verb::Cancel { run } => run::cancel(batch, granted, *run).await,
        Verb::Approve { approval } => approval::vote(batch, granted, *approval, true, None).await,
        Verb::Deny { approval, reason } => approval::vote(batch, granted, *approval, false, Some(reason.clone())).await,
        Verb::Pause { paused, reason } => automation::pause(batch, granted, *paused, reason).await,
    }
}

/// An object that is not there: said the same way for all.
fn unknown(what: &str) -> ActOutcome {
    ActOutcome::refused("not_found", format!("There is no such {what}. It may be older than what is kept."))
}
