//! Approve and deny: a vote on the plan that is rendered afresh at this moment.

use domain::act::ActOutcome;
use domain::approval::ApprovalState;
use domain::audit::AuditDecision;
use domain::id::ApprovalId;
use domain::permission::Granted;
use domain::run::RunState;
use domain::text::clean_line;
use domain::timeline::EntryKind;
use serde_json::json;

use super::unknown;
use crate::batch::Batch;
use crate::guards;
use crate::jobs::approval_expire;
use crate::runs;

/// Takes one person's word.
pub(super) async fn vote(
    batch: &mut Batch<'_>,
    granted: &Granted,
    id: ApprovalId,
    approve: bool,
    reason: Option<String>,
) -> Result<ActOutcome, store::Error> {
    let who = granted.principal().name.clone();
    let Some(approval) = batch.tx.approval(id).await? else { return Ok(unknown("approval")) };
    let Some(mut run) = batch.tx.run(approval.run).await? else { return Ok(unknown("run")) };
    let reason = reason.map(|reason| clean_line(&reason, 500)).filter(|reason| !reason.trim().is_empty());
    match run.state {
        _ if approval.state != ApprovalState::Pending => {}
        RunState::AwaitingApproval => {}
        RunState::Unknown => return super::run::vote_again(batch, granted, &approval, run, approve, reason).await,
        state => {
            let text = format!("Nothing waits for this any more: {} is {}.", run.runbook, state.as_str().replace('_', " "));
            return Ok(ActOutcome::refused("superseded", text));
        }
    }
    if approve
        && approval.state == ApprovalState::Pending
        && let Some(over) = guards::nothing_to_remedy(batch, &run).await?
    {
        let text = format!("Nothing runs: {over}.");
        runs::supersede(batch, &mut run, over).await?;
        return Ok(ActOutcome::refused("superseded", text));
    }
    let rules = batch.rules.clone();
    let fresh = runs::fresh_plan(batch.cx, &rules, &run).map(|plan| plan.digest().to_string());
    let fresh_digest = fresh.as_deref().unwrap_or("none");
    let voted = match approval.vote(granted, approve, reason.clone(), fresh_digest, batch.now) {
        Ok(voted) => voted,
        Err(domain::approval::NoVote::Changed) => {
            approval_expire::supersede(batch, &approval, &mut run).await?;
            let text = match (run.state, &run.reason) {
                (RunState::Superseded, Some(why)) => format!("Nothing runs: {why}."),
                _ => domain::approval::NoVote::Changed.to_string(),
            };
            return Ok(ActOutcome::refused("superseded", text));
        }
        Err(no_vote) => return Ok(ActOutcome::refused(no_vote.code(), no_vote.to_string())),
    };
    batch.tx.put_approval(&voted, approval.votes.len()).await?;
    batch.audit(
        &format!("principal:{who}"),
        if approve { "approve" } else { "deny" },
        format!("approval:{id}"),
        AuditDecision::Allowed,
        voted.state.as_str(),
        json!({ "run": run.id, "plan_digest": voted.plan_digest, "approval_digest": voted.digest(), "votes": voted.votes }),
    );
    let (code, text) = match voted.state {
        ApprovalState::Approved => {
            runs::put_state(batch, &mut run, RunState::Queued, None).await?;
            batch.job(runs::advance(run.id, batch.now));
            let waited = batch.now.duration_since(voted.created_at).as_secs_f64();
            metrics::histogram!("watchkeeper_approval_wait_seconds").record(waited);
            ("approved", format!("Approved: {} runs now.", run.runbook))
        }
        ApprovalState::Denied => {
            let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            runs::put_state(batch, &mut run, RunState::Refused, Some(format!("denied by {who}{why}"))).await?;
            ("denied", format!("Denied: {} does not run.", run.runbook))
        }
        _ => ("voted", format!("Counted: {} more must approve {}.", voted.missing(), run.runbook)),
    };
    metrics::counter!("watchkeeper_approvals_total", "outcome" => code).increment(1);
    if let Some(incident) = run.incident {
        let verb = if approve { "approved" } else { "denied" };
        let why = run.reason.as_deref().filter(|_| !approve).map(|why| format!(" ({why})")).unwrap_or_default();
        batch.tell(incident, EntryKind::Approval, Some(&who), format!("{who} {verb} {}{why}.", run.runbook));
        batch.hurry(incident);
        batch.note_automation(incident, automation_line(&run.runbook, code, &who)).await?;
    }
    Ok(ActOutcome::done(code, text))
}

fn automation_line(runbook: &str, code: &str, who: &str) -> String {
    match code {
        "approved" => format!("{runbook} was approved by {who}"),
        "denied" => format!("{runbook} was denied by {who}"),
        _ => format!("{runbook} waits for more approvals"),
    }
}
