//! Ask for a run; stop one; say what became of a step that nobody knew of.

use domain::act::ActOutcome;
use domain::action::ActionOutput;
use domain::approval::{Approval, ApprovalState};
use domain::audit::AuditDecision;
use domain::id::{IncidentId, RunId};
use domain::permission::Granted;
use domain::run::{Attempt, AttemptState, Run, RunState, Settlement};
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

/// Stops a run: at once if nothing of it is under way, else as soon as that has been ended.
pub(super) async fn cancel(batch: &mut Batch<'_>, granted: &Granted, id: RunId) -> Result<ActOutcome, store::Error> {
    let who = granted.principal().name.clone();
    // Held, so that no step begins between the look at what is under way and the cancel.
    let Some(mut run) = batch.tx.hold_run(id).await? else { return Ok(unknown("run")) };
    if run.state == RunState::Unknown {
        return Ok(ActOutcome::refused(
            "unknown",
            "Nobody knows what became of a step of it, so a cancel cannot stop it. Settle it: Abort ends it.",
        ));
    }
    if !run.state.is_active() || run.is_ending() {
        let state = if run.is_ending() { "being cancelled" } else { run.state.as_str() };
        return Ok(ActOutcome::refused("already", format!("It is {} already.", state.replace('_', " "))));
    }
    runs::withdraw_approval(batch, id, ApprovalState::Cancelled).await?;
    run.cancelled_by = Some(who.clone());
    let attempts = batch.tx.attempts(id).await?;
    let step = run.under_way(&attempts).filter(|_| run.state == RunState::Running).map(|step| step.id.clone());
    let reason = if step.is_some() { "cancelling" } else { "cancelled" };
    batch.audit(&format!("principal:{who}"), "cancel", format!("run:{id}"), AuditDecision::Allowed, reason, json!({ "under_way": step }));
    let name = run.runbook.clone();
    let Some(step) = step else {
        stop_looking(batch, &run, attempts, &who).await?;
        if let Some(incident) = run.incident {
            batch.tell(incident, EntryKind::Run, Some(&who), format!("{who} cancelled {name}."));
        }
        runs::end_cancelled(batch, &mut run, &who).await?;
        return Ok(ActOutcome::done("cancelled", format!("{name} is cancelled.")));
    };
    let targets = run.plan.targets().into_iter().collect::<Vec<_>>().join(", ");
    let locked = if targets.is_empty() { String::new() } else { format!(", and {targets} stays locked until it has ended") };
    let why = format!("{who} cancelled it; step {step} is being ended{locked}");
    let expected = run.version;
    run.version += 1;
    run.reason = Some(why.clone());
    batch.put_run(&run, expected).await?;
    // Whoever carries the step out hears of it. This is for when nobody does any more.
    batch.job(runs::advance(id, batch.now));
    if let Some(incident) = run.incident {
        batch.tell(incident, EntryKind::Run, Some(&who), format!("{who} cancelled {name}: step {step} is being ended{locked}."));
        batch.hurry(incident);
        batch.note_automation(incident, domain::composing::ending_line(&run)).await?;
    }
    Ok(ActOutcome::done("cancelling", format!("{name} is being cancelled: step {step} is being ended{locked}.")))
}

/// The check of a cancelled run is not looked at any more.
async fn stop_looking(batch: &mut Batch<'_>, run: &Run, attempts: Vec<Attempt>, who: &str) -> Result<(), store::Error> {
    let looks = |attempt: &Attempt| attempt.state == AttemptState::Started && run.step(attempt.index).is_none();
    let Some(mut row) = attempts.into_iter().find(looks) else { return Ok(()) };
    row.state = AttemptState::Failed;
    row.finished_at = Some(batch.now);
    row.error = Some(format!("{who} cancelled the run"));
    batch.tx.finish_attempt(&row).await
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
    let Some(run) = batch.tx.run(id).await? else { return Ok(unknown("run")) };
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
    let row = lost(batch, id).await?;
    if row.is_none() && how != Settlement::Abort {
        let text = "Of no single step of it can it be said what became of it: it was between two steps when the backup was made, and may have gone on \
                    since. Look at what ran, then abort it, and ask for a new run if it is still needed.";
        return Ok(ActOutcome::refused("no_step", text));
    }
    if let (Settlement::Again, Some(by)) = (how, &run.cancelled_by) {
        let text =
            format!("{by} cancelled this run, so nothing of it is begun again. Say what happened, or abort it; then ask for a new run.");
        return Ok(ActOutcome::refused("cancelled", text));
    }
    if how == Settlement::Again
        && let Some(policy) = run.plan.approval.clone()
    {
        // It takes as much as at first, and it is a new question: the old approval was for one run of the step, and may have run out.
        let pending = batch.tx.approval_of(id).await?;
        let pending = pending.filter(|approval| approval.state == ApprovalState::Pending && batch.now < approval.expires_at);
        let (asked, new) = match pending {
            Some(approval) => (approval, false),
            None => (runs::new_approval(batch, &run, policy), true),
        };
        return Box::pin(give_vote(batch, granted, &asked, new, run, true, Some(reason))).await;
    }
    runs::withdraw_approval(batch, id, ApprovalState::Superseded).await?;
    settled(batch, run, row, how, &who, &format!("{who} says"), &reason).await
}

/// The newest attempt of a run of which nobody knows what became.
async fn lost(batch: &mut Batch<'_>, id: RunId) -> Result<Option<Attempt>, store::Error> {
    Ok(batch.tx.attempts(id).await?.into_iter().rfind(|attempt| attempt.state == AttemptState::Unknown))
}

/// A vote on whether a step of which nobody knows what became may be run again.
pub(super) async fn vote_again(
    batch: &mut Batch<'_>,
    granted: &Granted,
    approval: &Approval,
    run: Run,
    approve: bool,
    reason: Option<String>,
) -> Result<ActOutcome, store::Error> {
    Box::pin(give_vote(batch, granted, approval, false, run, approve, reason)).await
}

async fn give_vote(
    batch: &mut Batch<'_>,
    granted: &Granted,
    asked: &Approval,
    new: bool,
    run: Run,
    approve: bool,
    reason: Option<String>,
) -> Result<ActOutcome, store::Error> {
    let who = granted.principal().name.clone();
    let Some(row) = lost(batch, run.id).await? else {
        return Ok(ActOutcome::refused("no_step", "Of no step of it is it unknown any more what became of it."));
    };
    // The plan is the one that the run began with, whatever the rules are by now.
    let voted = match asked.vote(granted, approve, reason.clone(), &run.plan_digest, batch.now) {
        Ok(voted) => voted,
        Err(no_vote) => return Ok(ActOutcome::refused(no_vote.code(), no_vote.to_string())),
    };
    if new {
        runs::store_approval(batch, &run, asked).await?;
    }
    batch.tx.put_approval(&voted, asked.votes.len()).await?;
    batch.audit(
        &format!("principal:{who}"),
        if approve { "approve" } else { "deny" },
        format!("approval:{}", asked.id),
        AuditDecision::Allowed,
        voted.state.as_str(),
        json!({ "run": run.id, "again": true, "plan_digest": voted.plan_digest, "approval_digest": voted.digest(), "votes": voted.votes }),
    );
    let name = run.runbook.clone();
    let roles = voted.policy.roles.iter().cloned().collect::<Vec<_>>().join(", ");
    let outcome = match voted.state {
        ApprovalState::Approved => {
            let said = voted.votes.iter().filter_map(|vote| vote.reason.clone()).collect::<Vec<_>>().join("; ");
            let people = voted.votes.iter().map(|vote| vote.who.as_str()).collect::<Vec<_>>();
            let say = format!("{} {}", people.join(", "), if people.len() == 1 { "says" } else { "say" });
            settled(batch, run, Some(row), Settlement::Again, &who, &say, &said).await?
        }
        ApprovalState::Denied => {
            if let Some(incident) = run.incident {
                batch.tell(incident, EntryKind::Approval, Some(&who), format!("{who} denied that {name} runs its step again."));
                batch.hurry(incident);
                batch.touch(incident).await?;
            }
            ActOutcome::done("denied", format!("Denied: the step is not run again. {name} waits for somebody to say what happened."))
        }
        _ => {
            let more = voted.missing();
            if let Some(incident) = run.incident {
                let text = format!("{who} asks to run the step of {name} again: it takes {more} more of {roles}.");
                batch.tell(incident, EntryKind::Approval, Some(&who), text);
                batch.hurry(incident);
                batch.touch(incident).await?;
            }
            ActOutcome::done("voted", format!("Counted: {more} more of {roles} must say so before the step of {name} is run again."))
        }
    };
    let word = if voted.state == ApprovalState::Pending { "voted" } else { voted.state.as_str() };
    metrics::counter!("watchkeeper_approvals_total", "outcome" => word).increment(1);
    Ok(outcome)
}

/// Lets a run go on by what people say of it, or ends it. `who` said it last; `say` names all whose word it took.
async fn settled(
    batch: &mut Batch<'_>,
    mut run: Run,
    row: Option<Attempt>,
    how: Settlement,
    who: &str,
    say: &str,
    reason: &str,
) -> Result<ActOutcome, store::Error> {
    let (id, name) = (run.id, run.runbook.clone());
    let said = format!("{say}: {} ({reason})", how.label().to_lowercase());
    let of = row.as_ref().map(|row| (&row.step, row.attempt));
    let detail = json!({ "how": how.as_str(), "reason": reason, "step": of.map(|of| of.0), "attempt": of.map(|of| of.1) });
    batch.audit(&format!("principal:{who}"), "settle", format!("run:{id}"), AuditDecision::Allowed, how.as_str(), detail);
    if let Some(incident) = run.incident {
        let step = of.map(|of| format!(", step {}", of.0)).unwrap_or_default();
        batch.tell(incident, EntryKind::Run, Some(who), format!("{name}{step}: {said}."));
        batch.hurry(incident);
    }
    let Some(mut row) = row.filter(|_| how != Settlement::Abort) else {
        journal::end_in(batch, run, RunState::Failed, said).await?;
        return Ok(ActOutcome::done("aborted", format!("{name} ended; its targets are unlocked.")));
    };
    row.finished_at = Some(batch.now);
    if how == Settlement::Ran {
        row.state = AttemptState::Succeeded;
        row.output = Some(ActionOutput { summary: said, ..ActionOutput::default() });
        row.error = None;
    } else {
        row.state = AttemptState::Failed;
        row.again = how == Settlement::Again;
        row.error = Some(said);
    }
    batch.tx.finish_attempt(&row).await?;
    if let Some(by) = run.cancelled_by.clone() {
        runs::end_cancelled(batch, &mut run, &by).await?;
        return Ok(ActOutcome::done(how.as_str(), format!("{name} is cancelled; its targets are unlocked.")));
    }
    runs::put_state(batch, &mut run, RunState::Running, None).await?;
    if let Some(incident) = run.incident {
        batch.note_automation(incident, format!("{name} goes on: {who} said what happened")).await?;
    }
    let job = runs::advance(id, batch.now);
    batch.job(job);
    Ok(ActOutcome::done(how.as_str(), format!("{name} goes on.")))
}
