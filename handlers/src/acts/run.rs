//! Ask for a run; stop one.

use domain::act::ActOutcome;
use domain::approval::ApprovalState;
use domain::audit::AuditDecision;
use domain::id::{IncidentId, RunId};
use domain::permission::Granted;
use domain::run::RunState;
use domain::timeline::EntryKind;
use serde_json::{Map, Value, json};

use super::unknown;
use crate::batch::Batch;
use crate::runs;

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
