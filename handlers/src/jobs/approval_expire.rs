//! A request for approval ends when nobody decided in time, and is asked again when its plan changed.

use async_trait::async_trait;
use domain::approval::{Approval, ApprovalState};
use domain::audit::AuditDecision;
use domain::id::ApprovalId;
use domain::job::Job as Row;
use domain::run::{Run, RunState};
use domain::timeline::EntryKind;
use serde_json::json;

use super::{Done, Job, JobError, field};
use crate::Cx;
use crate::batch::Batch;
use crate::runs::{self, MOST_ASKS};

pub(crate) struct ApprovalExpire;

#[async_trait]
impl Job for ApprovalExpire {
    fn kind(&self) -> &'static str {
        "approval.expire"
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let id: ApprovalId = field(row, "approval")?;
        let mut batch = Batch::begin(cx).await?;
        let Some(mut approval) = batch.tx.approval(id).await?.filter(|approval| approval.state == ApprovalState::Pending) else {
            return Ok(Done::Finished);
        };
        // One that was asked for at a time that is still to come, by a clock that has been set back since, would last for longer than it was to.
        let why = match approval.is_to_come(batch.now) {
            true => "the clock was set back after it was asked for",
            false if batch.now < approval.expires_at => return Ok(Done::Again(approval.expires_at)),
            false => "nobody decided in time",
        };
        let votes = approval.votes.len();
        approval.state = ApprovalState::Expired;
        approval.decided_at = Some(batch.now);
        batch.tx.put_approval(&approval, votes).await?;
        match batch.tx.run(approval.run).await? {
            Some(mut run) if run.state == RunState::AwaitingApproval => {
                runs::put_state(&mut batch, &mut run, RunState::Refused, Some(why.to_owned())).await?;
                if let Some(incident) = run.incident {
                    batch.tell(incident, EntryKind::Approval, None, format!("The request to approve {} expired.", run.runbook));
                    batch.note_automation(incident, format!("{} was not approved in time", run.runbook)).await?;
                }
            }
            // It was about running a lost step again; the card asks what happened, as before.
            Some(Run { state: RunState::Unknown, incident: Some(incident), runbook, .. }) => {
                batch.tell(incident, EntryKind::Approval, None, format!("The request to run the step of {runbook} again expired."));
                batch.touch(incident).await?;
            }
            _ => {}
        }
        batch.audit("system", "approval.expire", format!("approval:{id}"), AuditDecision::Allowed, "expired", json!({}));
        metrics::counter!("watchkeeper_approvals_total", "outcome" => "expired").increment(1);
        batch.commit().await?;
        Ok(Done::Finished)
    }
}

/// The plan is not what was asked about: this request ends, and another is made for the plan as it is now. After a few of them the run is held,
/// and the card says why.
pub(crate) async fn supersede(batch: &mut Batch<'_>, approval: &Approval, run: &mut Run) -> Result<(), store::Error> {
    let mut ended = approval.clone();
    let pending = ended.state == ApprovalState::Pending;
    if pending {
        ended.state = ApprovalState::Superseded;
        ended.decided_at = Some(batch.now);
        batch.tx.put_approval(&ended, approval.votes.len()).await?;
    }
    batch.audit(
        "system",
        "approval.supersede",
        format!("approval:{}", approval.id),
        AuditDecision::Allowed,
        "plan_changed",
        json!({ "was": approval.plan_digest }),
    );
    let rules = batch.rules.clone();
    match runs::fresh_plan(batch.cx, &rules, run) {
        // There is nobody to ask, and nobody has said yes.
        Ok(plan) if plan.approval.is_none() => {
            let why = "its runbook takes no approval any more, and this was asked for under one that did: ask for it again";
            runs::supersede(batch, run, why.to_owned()).await
        }
        Ok(plan) if run.asked < MOST_ASKS => {
            run.plan_digest = plan.digest().to_string();
            run.plan = plan;
            run.rule_set = rules.digest.clone();
            run.asked += 1;
            if run.state == RunState::AwaitingApproval {
                let expected = run.version;
                run.version += 1;
                batch.put_run(run, expected).await?;
            } else {
                runs::put_state(batch, run, RunState::AwaitingApproval, Some("the plan changed".to_owned())).await?;
            }
            if let Some(id) = run.incident {
                batch.tell(id, EntryKind::Approval, None, format!("The plan of {} changed: asking again.", run.runbook));
            }
            runs::ask_approval(batch, run).await
        }
        Ok(_) => hold(batch, run, "its plan keeps changing: ask for it by hand when the rules are settled".to_owned()).await,
        Err(no_plan) => {
            runs::put_state(batch, run, RunState::Superseded, Some(no_plan.to_string())).await?;
            if let Some(id) = run.incident {
                batch.note_automation(id, format!("{} is off: {no_plan}", run.runbook)).await?;
            }
            Ok(())
        }
    }
}

async fn hold(batch: &mut Batch<'_>, run: &mut Run, why: String) -> Result<(), store::Error> {
    if let Some(id) = run.incident {
        batch.tell(id, EntryKind::Refused, None, format!("{} is held: {why}.", run.runbook));
        batch.note_automation(id, format!("{} is held: {why}", run.runbook)).await?;
    }
    if run.state == RunState::Held {
        // A guard held it until now: that was another reason.
        runs::put_state(batch, run, RunState::Queued, None).await?;
    }
    runs::put_state(batch, run, RunState::Held, Some(why)).await
}
