//! Ask for a run; stop one; say what became of a step that nobody knew of.

use domain::act::ActOutcome;
use domain::action::ActionOutput;
use domain::approval::ApprovalState;
use domain::audit::AuditDecision;
use domain::id::{IncidentId, RunId};
use domain::permission::Granted;
use domain::run::{AttemptState, RunState, Settlement};
use domain::text::clean_line;
use domain::timeline::EntryKind;
use serde_json::{Map, Value, json};

use super::unknown;
use crate::batch::Batch;
use crate::{journal, runs};

/// Asks for a run of a runbook. No name means the one that the incident's route suggests.
pub(super) async fn ask(
    batch: &mut Batch<'_>,
    granted: &Granted,
    incident: Option<IncidentId>,
    runbook: &str,
    params: &Map<String, Value>,
) -> Result<ActOutcome, store::Error> {
    let who = granted.principal().name.clone();
    if let Some(id) = incident
        && batch.incident(id).await?.is_none()
    {
        return Ok(unknown("incident"));
    }
    let named = match (runbook, incident) {
        ("", Some(id)) => runs::suggested(batch, id).await?,
        ("", None) => None,
        (name, _) => Some(name.to_owned()),
    };
    let Some(runbook) = named else {
        return Ok(ActOutcome::refused("no_runbook", "No route suggests a runbook for this incident. Name one."));
    };
    if let Some(id) = incident
        && let Some(run) = batch.tx.runs_of(id).await?.into_iter().find(|run| run.runbook == runbook && run.state.is_active())
    {
        return Ok(ActOutcome::refused(
            "already",
            format!("{runbook} is {} for this incident already.", run.state.as_str().replace('_', " ")),
        )
        .of(run.id));
    }
    match runs::ask_by_person(batch, incident, &who, &runbook, params.clone()).await? {
        Ok(run) if run.state == RunState::AwaitingApproval => {
            Ok(ActOutcome::done("awaiting_approval", format!("{runbook} waits for somebody else to approve it (run {}).", run.id))
                .of(run.id))
        }
        Ok(run) => Ok(ActOutcome::done("queued", format!("{runbook} is queued (run {}).", run.id)).of(run.id)),
        Err(no_plan) => Ok(ActOutcome::refused("no_plan", format!("{runbook} cannot run: {no_plan}."))),
    }
}

/// Stops a run: at once if it has not begun, before its next step if it has.
pub(super) async fn cancel(batch: &mut Batch<'_>, granted: &Granted, id: RunId) -> Result<ActOutcome, store::Error> {
    let who = granted.principal().name.clone();
    let Some(mut run) = batch.tx.run(id).await? else { return Ok(unknown("run")) };
    if !run.state.is_active() {
        return Ok(ActOutcome::refused("already", format!("It is {} already.", run.state.as_str().replace('_', " "))));
    }
    if let Some(mut approval) = batch.tx.approval_of(id).await?.filter(|approval| approval.state == ApprovalState::Pending) {
        let votes = approval.votes.len();
        approval.state = ApprovalState::Cancelled;
        approval.decided_at = Some(batch.now);
        batch.tx.put_approval(&approval, votes).await?;
    }
    runs::put_state(batch, &mut run, RunState::Cancelled, Some(format!("cancelled by {who}"))).await?;
    batch.tx.unlock_targets(id).await?;
    batch.audit(&format!("principal:{who}"), "cancel", format!("run:{id}"), AuditDecision::Allowed, "cancelled", json!({}));
    if let Some(incident) = run.incident {
        batch.tell(incident, EntryKind::Run, Some(&who), format!("{who} cancelled {}.", run.runbook));
        batch.hurry(incident);
        batch.note_automation(incident, format!("{} was cancelled by {who}", run.runbook)).await?;
    }
    Ok(ActOutcome::done("cancelled", format!("{} is cancelled.", run.runbook)))
}

/// Says what became of a step whose outcome nobody knew, and lets the run go on by it.
pub(super) async fn settle(
    batch: &mut Batch<'_>,
    granted: &Granted,
    id: RunId,
    how: Settlement,
    reason: &str,
) -> Result<ActOutcome, store::Error> {
    let person = granted.principal();
    let who = person.name.clone();
    let reason = clean_line(reason.trim(), 400);
    if reason.is_empty() {
        return Ok(ActOutcome::refused("no_reason", "Say how you know: it is kept with the decision."));
    }
    let Some(mut run) = batch.tx.run(id).await? else { return Ok(unknown("run")) };
    if run.state != RunState::Unknown {
        return Ok(ActOutcome::refused("already", format!("Nothing is unknown about it: it is {}.", run.state.as_str().replace('_', " "))));
    }
    // Who may say that it ran, or have it run again, decides as much as who approved it.
    if !person.human {
        return Ok(ActOutcome::refused("not_human", "Only a person can say what happened."));
    }
    if let Some(policy) = run.plan.approval.as_ref().filter(|policy| policy.roles.is_disjoint(&person.roles)) {
        let roles = policy.roles.iter().cloned().collect::<Vec<_>>().join(", ");
        return Ok(ActOutcome::refused("no_role", format!("It takes one of the roles {roles}, as its approval does.")));
    }
    let attempts = batch.tx.attempts(id).await?;
    let Some(mut row) = attempts.into_iter().rfind(|attempt| attempt.state == AttemptState::Unknown) else {
        return Ok(ActOutcome::refused("already", "No step of it is unknown any more."));
    };
    let said = format!("{who} says: {} ({reason})", how.label().to_lowercase());
    let detail = json!({ "how": how.as_str(), "reason": reason, "step": row.step, "attempt": row.attempt });
    batch.audit(&format!("principal:{who}"), "settle", format!("run:{id}"), AuditDecision::Allowed, how.as_str(), detail);
    if let Some(incident) = run.incident {
        batch.tell(incident, EntryKind::Run, Some(&who), format!("{}, step {}: {said}.", run.runbook, row.step));
        batch.hurry(incident);
    }
    row.finished_at = Some(batch.now);
    match how {
        Settlement::Ran => {
            row.state = AttemptState::Succeeded;
            row.output = Some(ActionOutput { summary: said, ..ActionOutput::default() });
            row.error = None;
        }
        Settlement::DidNotRun | Settlement::Again => {
            row.state = AttemptState::Failed;
            row.again = how == Settlement::Again;
            row.error = Some(said);
        }
        Settlement::Abort => {
            let name = run.runbook.clone();
            journal::end_in(batch, run, RunState::Failed, said).await?;
            return Ok(ActOutcome::done("aborted", format!("{name} ended; its targets are unlocked.")));
        }
    }
    batch.tx.finish_attempt(&row).await?;
    runs::put_state(batch, &mut run, RunState::Running, None).await?;
    if let Some(incident) = run.incident {
        batch.note_automation(incident, format!("{} goes on: {who} said what happened", run.runbook)).await?;
    }
    let job = runs::advance(id, batch.now);
    batch.job(job);
    Ok(ActOutcome::done(how.as_str(), format!("{} goes on.", run.runbook)))
}
