//! What must hold before a run may start. Checked in the transaction that starts it.

use domain::act::PAUSED_FLAG;
use domain::run::{Run, RunState};
use jiff::SignedDuration;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::batch::Batch;

/// What the guards say of a queued run.
pub(crate) enum Verdict {
    /// Its targets are locked for it: go.
    Go,
    /// Not now: look again at this time.
    Hold(String, Timestamp),
    /// Never: what it was for is over.
    Supersede(String),
    /// Never: a budget is used up.
    Refuse(String),
}

/// How long a run that a busy target holds back waits before it looks again.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// A run that could not start for this long surprises people when it does: it is refused.
const TOO_OLD: SignedDuration = SignedDuration::from_hours(1);

/// Asks all guards, cheapest first; locks the run's targets if all say yes.
pub(crate) async fn check(batch: &mut Batch<'_>, run: &Run) -> Result<Verdict, store::Error> {
    if batch.now.duration_since(run.created_at) > TOO_OLD + run.plan.approval.as_ref().map_or(SignedDuration::ZERO, |p| signed(p.expires)) {
        return Ok(Verdict::Refuse("it waited too long to start".to_owned()));
    }
    if let Some(reason) = paused(batch).await? {
        return Ok(Verdict::Hold(format!("automation is paused: {reason}"), batch.now + LOOK_AGAIN));
    }
    if let Some(over) = nothing_to_remedy(batch, run).await? {
        return Ok(Verdict::Supersede(over));
    }
    let targets: Vec<&str> = run.plan.targets().into_iter().collect();
    if !targets.is_empty() && !batch.tx.lock_targets(run.id, &targets).await? {
        let names = targets.join(", ");
        return Ok(Verdict::Hold(format!("another run has {names}"), batch.now + LOOK_AGAIN));
    }
    // Read under the locks: a run that had them before has ended by now, and is seen to.
    let Some(verdict) = history(batch, run).await? else { return Ok(Verdict::Go) };
    batch.tx.unlock_targets(run.id).await?;
    Ok(verdict)
}

/// Why automation is paused, if it is.
pub(crate) async fn paused(batch: &mut Batch<'_>) -> Result<Option<String>, store::Error> {
    let flag = batch.flag(PAUSED_FLAG).await?;
    Ok(flag.filter(is_paused).map(|flag| flag["reason"].as_str().unwrap_or_default().to_owned()))
}

/// Whether this value of the flag means that automation is paused.
pub(crate) fn is_paused(flag: &Value) -> bool {
    flag["paused"] == true
}

/// How often a route's remedy failed in a row.
pub(crate) async fn failures(batch: &mut Batch<'_>, runbook: &str, route: &str) -> Result<u32, store::Error> {
    let flag = batch.flag(&failures_flag(runbook, route)).await?;
    Ok(flag.and_then(|count| count.as_u64()).and_then(|count| u32::try_from(count).ok()).unwrap_or(0))
}

/// Counts a failure, or forgets them all after a success.
pub(crate) async fn count_failure(batch: &mut Batch<'_>, run: &Run, failed: bool) -> Result<(), store::Error> {
    let Some(route) = &run.route else { return Ok(()) };
    let count = if failed { failures(batch, &run.runbook, route).await? + 1 } else { 0 };
    batch.set_flag(&failures_flag(&run.runbook, route), json!(count)).await
}

/// Automation acts only on what still holds; a person may run things at any time.
pub(crate) async fn nothing_to_remedy(batch: &mut Batch<'_>, run: &Run) -> Result<Option<String>, store::Error> {
    let Some(id) = run.incident else { return Ok(None) };
    if run.requester.is_some() {
        return Ok(None);
    }
    let Some(incident) = batch.incident(id).await? else { return Ok(Some("its incident is gone".to_owned())) };
    if !incident.state.is_open() {
        return Ok(Some(format!("#{} is {} already", incident.number, incident.state.as_str())));
    }
    Ok((!batch.fires(id).await?).then(|| "nothing in its scope fires any more".to_owned()))
}

/// Cooldown and budget, per runbook and target.
async fn history(batch: &mut Batch<'_>, run: &Run) -> Result<Option<Verdict>, store::Error> {
    let guards = &run.plan.guards;
    let span = guards
        .max_runs
        .as_ref()
        .map_or(SignedDuration::ZERO, |most| signed(most.per))
        .max(guards.cooldown.map_or(SignedDuration::ZERO, signed));
    if span.is_zero() {
        return Ok(None);
    }
    for target in run.plan.targets() {
        let past = batch.tx.runs_on_target_since(&run.runbook, target, batch.now - span).await?;
        let began: Vec<_> = past.into_iter().filter(|(id, state, ..)| *id != run.id && counts(*state)).collect();
        if let Some(cooldown) = guards.cooldown {
            let last = began.iter().filter_map(|(_, _, _, finished)| *finished).max();
            if let Some(until) = last.map(|at| cooldown.after(at)).filter(|until| *until > batch.now) {
                return Ok(Some(Verdict::Hold(format!("{target} cools down from the last run until {until}"), until)));
            }
        }
        if let Some(most) = &guards.max_runs {
            let since = most.per.before(batch.now);
            let count = began.iter().filter(|(_, _, created, _)| *created >= since).count();
            if count >= most.count as usize {
                return Ok(Some(Verdict::Refuse(format!(
                    "{target} had {count} runs within {}: the most that the runbook allows",
                    most.per
                ))));
            }
        }
    }
    Ok(None)
}

/// Runs that did something count against budgets; those that never began do not.
fn counts(state: RunState) -> bool {
    !matches!(state, RunState::Held | RunState::AwaitingApproval | RunState::Queued | RunState::Refused | RunState::Superseded)
}

fn failures_flag(runbook: &str, route: &str) -> String {
    format!("failures/{route}/{runbook}")
}

fn signed(duration: domain::duration::Dur) -> SignedDuration {
    SignedDuration::try_from(duration.as_std()).unwrap_or(SignedDuration::MAX)
}
