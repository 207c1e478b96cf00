//! Starts a run: approval, plan and guards are all looked at in the transaction that moves it to `running` and locks its targets.

use domain::approval::ApprovalState;
use domain::audit::AuditDecision;
use domain::id::RunId;
use domain::run::{Run, RunState};
use domain::timeline::EntryKind;
use serde_json::json;

use crate::Cx;
use crate::batch::Batch;
use crate::guards::{self, Verdict};
use crate::jobs::approval_expire;
use crate::runs;
use crate::steps::Stepped;

/// Starts a queued or held run, or says why not. With the run, if it was started here and now.
pub(crate) async fn start(cx: &Cx, id: RunId) -> Result<(Stepped, Option<Run>), store::Error> {
    let mut batch = Batch::begin(cx).await?;
    let Some(mut run) = batch.run_to_start(id).await? else { return Ok((Stepped::Over, None)) };
    if !matches!(run.state, RunState::Queued | RunState::Held) {
        return Ok((Stepped::On, None));
    }
    let stepped = decide(&mut batch, &mut run).await?;
    batch.commit().await?;
    let runs = run.state == RunState::Running;
    Ok((stepped, runs.then_some(run)))
}

async fn decide(batch: &mut Batch<'_>, run: &mut Run) -> Result<Stepped, store::Error> {
    if let Some(ended) = plan_is_approved(batch, run).await? {
        return Ok(ended);
    }
    match guards::check(batch, run).await? {
        Verdict::Go => {}
        Verdict::Hold(why, until) => {
            let told = run.state == RunState::Held && run.reason.as_deref() == Some(why.as_str());
            if !told {
                metrics::counter!("watchkeeper_rule_suppressed_total", "runbook" => run.runbook.clone()).increment(1);
                if let Some(incident) = run.incident {
                    batch.tell(incident, EntryKind::Refused, None, format!("{} is held: {why}.", run.runbook));
                    batch.note_automation(incident, format!("{} is held: {why}", run.runbook)).await?;
                }
                if run.state == RunState::Held {
                    runs::put_state(batch, run, RunState::Queued, None).await?;
                }
                runs::put_state(batch, run, RunState::Held, Some(why)).await?;
            }
            return Ok(Stepped::Later(until));
        }
        Verdict::Supersede(why) => {
            runs::supersede(batch, run, why).await?;
            return Ok(Stepped::Over);
        }
        Verdict::Refuse(why) => {
            refuse(batch, run, why).await?;
            return Ok(Stepped::Over);
        }
    }
    if run.state == RunState::Held {
        runs::put_state(batch, run, RunState::Queued, None).await?;
    }
    runs::put_state(batch, run, RunState::Running, None).await?;
    batch.audit(
        "system",
        "run.start",
        format!("run:{}", run.id),
        AuditDecision::Allowed,
        "started",
        json!({ "runbook": run.runbook, "plan_digest": run.plan_digest, "targets": run.plan.targets() }),
    );
    if let Some(incident) = run.incident {
        batch.tell(incident, EntryKind::Run, None, format!("{} started.", run.runbook));
        batch.note_automation(incident, format!("{} is running", run.runbook)).await?;
    }
    Ok(Stepped::On)
}

/// What runs is what was approved: the digest of the plan rendered afresh is the one on the approval, which has not run out.
async fn plan_is_approved(batch: &mut Batch<'_>, run: &mut Run) -> Result<Option<Stepped>, store::Error> {
    let rules = batch.rules.clone();
    let fresh = runs::fresh_plan(batch.cx, &rules, run);
    let needed = run.plan.approval.is_some();
    match fresh {
        Ok(plan) if plan.digest().to_string() == run.plan_digest => {}
        Ok(plan) if !needed && plan.approval.is_none() => {
            run.plan_digest = plan.digest().to_string();
            run.plan = plan;
            run.rule_set = rules.digest.clone();
        }
        Ok(_) | Err(_) => {
            match batch.tx.approval_of(run.id).await? {
                Some(approval) => approval_expire::supersede(batch, &approval, run).await?,
                None => runs::supersede(batch, run, "the rules changed before it could start".to_owned()).await?,
            }
            return Ok(Some(Stepped::Over));
        }
    }
    if !needed {
        return Ok(None);
    }
    let problem = match batch.tx.approval_of(run.id).await? {
        Some(approval) if approval.state != ApprovalState::Approved || approval.missing() > 0 => Some("it is not approved"),
        Some(approval) if approval.plan_digest != run.plan_digest => Some("its approval is for another plan"),
        Some(approval) if batch.now >= approval.expires_at => Some("its approval ran out before it could start"),
        Some(approval) if approval.is_to_come(batch.now) => Some("the clock was set back after its approval was asked for"),
        Some(_) => None,
        None => Some("it was never approved"),
    };
    if let Some(problem) = problem {
        refuse(batch, run, problem.to_owned()).await?;
        return Ok(Some(Stepped::Over));
    }
    Ok(None)
}

async fn refuse(batch: &mut Batch<'_>, run: &mut Run, why: String) -> Result<(), store::Error> {
    batch.audit("system", "run.start", format!("run:{}", run.id), AuditDecision::Refused, "guard", json!({ "why": why }));
    metrics::counter!("watchkeeper_remedies_refused_total", "reason" => "guard").increment(1);
    if let Some(incident) = run.incident {
        batch.tell(incident, EntryKind::Refused, None, format!("{} is refused: {why}.", run.runbook));
        batch.note_automation(incident, format!("{} refused: {why}", run.runbook)).await?;
    }
    runs::put_state(batch, run, RunState::Refused, Some(why)).await
}
