//! How a run comes to be: from a route's remedy or a person's wish to a plan, an approval or a place in the queue.

use domain::alert::{Alert, AlertState};
use domain::approval::{Approval, ApprovalState};
use domain::audit::AuditDecision;
use domain::event::Sighting;
use domain::id::{ApprovalId, IncidentId, RunId};
use domain::job::{NewJob, Urgency};
use domain::plan::{ApprovalPolicy, Plan};
use domain::planning::{self, Asked, NoPlan};
use domain::route;
use domain::rules::{Mode, Remedy, Route, RuleSet};
use domain::run::{Run, RunState};
use domain::timeline::EntryKind;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::Cx;
use crate::batch::Batch;
use crate::{guards, journal};

/// After this many fresh requests a run whose plan keeps changing is held.
pub(crate) const MOST_ASKS: u32 = 3;

/// A route asks for its remedy.
pub(crate) async fn ask_for_remedy(
    batch: &mut Batch<'_>,
    alert: &Alert,
    sighting: &Sighting,
    incident: Option<IncidentId>,
    route: &Route,
    remedy: &Remedy,
) -> Result<(), store::Error> {
    if let Some(id) = incident
        && batch.runs_of(id).await?.iter().any(|run| run.runbook == remedy.runbook && run.state.is_active())
    {
        // The run that is under way is for this incident: one more alert asks for no second one.
        return Ok(());
    }
    let rules = batch.rules.clone();
    let context = route::context(&alert.source, sighting);
    let (mode, why) = mode_now(batch, alert, route, remedy).await?;
    let made = planning::remedy_params(remedy, &context).and_then(|given| {
        planning::plan(&rules, batch.cx.actions.as_ref(), &remedy.runbook, &given, &context, Asked::ByRoute(mode)).map(|plan| (given, plan))
    });
    let (given, plan) = match made {
        Ok(made) => made,
        Err(no_plan) => return refuse_plan(batch, incident, &remedy.runbook, "automation", &no_plan).await,
    };
    let wanted =
        Wanted { incident, requester: None, route: Some(route.name.clone()), given, context, hold: remedy.hold.after(batch.now), plan };
    match mode {
        Mode::Observe => observe(batch, &wanted, "would have run (mode observe)").await,
        Mode::Suggest => observe(batch, &wanted, "is suggested: press Run to ask for it").await,
        Mode::Approve | Mode::Auto => create(batch, wanted, why).await.map(|_| ()),
    }
}

/// A person asks for a run.
///
/// # Errors
/// The inner error says why there is no plan.
pub(crate) async fn ask_by_person(
    batch: &mut Batch<'_>,
    incident: Option<IncidentId>,
    who: &str,
    runbook: &str,
    given: Map<String, Value>,
) -> Result<Result<Run, NoPlan>, store::Error> {
    let rules = batch.rules.clone();
    let mut context = json!({ "labels": {}, "annotations": {}, "alert": {} });
    let mut given = given;
    let mut route = None;
    if let Some(id) = incident
        && let Some(alert) = batch.tx.incident_alerts(id, 1).await?.into_iter().next()
    {
        let sighting = crate::on_alert::as_sighting(&alert);
        context = route::context(&alert.source, &sighting);
        // A suggested remedy brings its own parameters.
        let routed = route::route(&rules, &alert.source, &sighting);
        if let Some((by, remedy)) = routed.remedies.into_iter().find(|(_, remedy)| remedy.runbook == runbook)
            && given.is_empty()
        {
            match planning::remedy_params(remedy, &context) {
                Ok(params) => given = params,
                Err(no_plan) => return Ok(Err(no_plan)),
            }
            route = Some(by.name.clone());
        }
    }
    let plan = match planning::plan(&rules, batch.cx.actions.as_ref(), runbook, &given, &context, Asked::ByPerson) {
        Ok(plan) => plan,
        Err(no_plan) => return Ok(Err(no_plan)),
    };
    let wanted = Wanted { incident, requester: Some(who.to_owned()), route, given, context, hold: batch.now, plan };
    create(batch, wanted, None).await.map(Ok)
}

/// The runbook that a button without a name asks for: the one that the incident's route suggests.
pub(crate) async fn suggested(batch: &mut Batch<'_>, incident: IncidentId) -> Result<Option<String>, store::Error> {
    let rules = batch.rules.clone();
    let Some(alert) = batch.tx.incident_alerts(incident, 1).await?.into_iter().next() else { return Ok(None) };
    let routed = route::route(&rules, &alert.source, &crate::on_alert::as_sighting(&alert));
    Ok(routed.remedies.first().map(|(_, remedy)| remedy.runbook.clone()))
}

/// The plan of a run rendered afresh under the rules in force: what an approval is compared with.
pub(crate) fn fresh_plan(cx: &Cx, rules: &RuleSet, run: &Run) -> Result<Plan, NoPlan> {
    let context = &run.inputs["context"];
    let by_route = run.route.as_deref().and_then(|name| rules.routes.iter().find(|route| route.name == name));
    let remedy = by_route.and_then(|route| route.remedy.as_ref()).filter(|remedy| remedy.runbook == run.runbook);
    let given = match (&run.requester, &run.route, remedy) {
        (None, Some(_), Some(remedy)) => planning::remedy_params(remedy, context)?,
        (None, Some(_), None) => return Err(NoPlan::NoRunbook(run.runbook.clone())),
        _ => run.inputs["given"].as_object().cloned().unwrap_or_default(),
    };
    let asked = match (&run.requester, run.plan.approval.is_some()) {
        (Some(_), _) => Asked::ByPerson,
        (None, true) => Asked::ByRoute(Mode::Approve),
        (None, false) => Asked::ByRoute(Mode::Auto),
    };
    planning::plan(rules, cx.actions.as_ref(), &run.runbook, &given, context, asked)
}

/// A request for approval of a run's plan, with the nonce that makes it unlike any other. It is not stored yet.
pub(crate) fn new_approval(batch: &Batch<'_>, run: &Run, policy: ApprovalPolicy) -> Approval {
    Approval {
        id: ApprovalId::new(batch.now),
        run: run.id,
        incident: run.incident,
        state: ApprovalState::Pending,
        plan_digest: run.plan_digest.clone(),
        requester: run.requester.clone(),
        expires_at: policy.expires.after(batch.now),
        policy,
        nonce: domain::id::uuid_at(batch.now).simple().to_string(),
        created_at: batch.now,
        votes: Vec::new(),
        decided_at: None,
    }
}

/// Asks for approval of a run's plan by a new request.
pub(crate) async fn ask_approval(batch: &mut Batch<'_>, run: &Run) -> Result<(), store::Error> {
    let Some(policy) = run.plan.approval.clone() else { return Ok(()) };
    let approval = new_approval(batch, run, policy);
    store_approval(batch, run, &approval).await?;
    if let Some(id) = run.incident {
        let roles = approval.policy.roles.iter().cloned().collect::<Vec<_>>().join(", ");
        batch.tell(
            id,
            EntryKind::Approval,
            run.requester.as_deref(),
            format!("Asked to approve {}: takes {} of {roles}.", run.runbook, approval.policy.quorum),
        );
        batch.hurry(id);
        batch.note_automation(id, format!("{} waits for approval", run.runbook)).await?;
    }
    Ok(())
}

/// Stores a new request for approval, with its end and its audit row.
pub(crate) async fn store_approval(batch: &mut Batch<'_>, run: &Run, approval: &Approval) -> Result<(), store::Error> {
    batch.insert_approval(approval).await?;
    batch.first_job(NewJob {
        kind: "approval.expire",
        key: approval.id.to_string(),
        due_at: approval.expires_at,
        urgency: Urgency::Action,
        payload: json!({ "approval": approval.id }),
    });
    batch.audit(
        run.requester.as_deref().map_or_else(|| "automation".to_owned(), |who| format!("principal:{who}")).as_str(),
        "approval.ask",
        format!("approval:{}", approval.id),
        AuditDecision::Allowed,
        "asked",
        json!({ "run": run.id, "plan_digest": approval.plan_digest, "approval_digest": approval.digest(), "policy": approval.policy }),
    );
    Ok(())
}

/// Ends the request for approval that a run waits for, if it does: there is nothing to decide any more.
pub(crate) async fn withdraw_approval(batch: &mut Batch<'_>, run: RunId, state: ApprovalState) -> Result<bool, store::Error> {
    let pending = batch.tx.approval_of(run).await?.filter(|approval| approval.state == ApprovalState::Pending);
    let Some(mut approval) = pending else { return Ok(false) };
    let votes = approval.votes.len();
    approval.state = state;
    approval.decided_at = Some(batch.now);
    batch.tx.put_approval(&approval, votes).await?;
    Ok(true)
}

/// Ends a run that a person cancelled and of which nothing is under way any more: its targets are unlocked.
pub(crate) async fn end_cancelled(batch: &mut Batch<'_>, run: &mut Run, who: &str) -> Result<(), store::Error> {
    put_state(batch, run, RunState::Cancelled, Some(format!("cancelled by {who}"))).await?;
    batch.tx.unlock_targets(run.id).await?;
    tracing::info!(run.id = %run.id, runbook = %run.runbook, "run cancelled");
    let Some(incident) = run.incident else { return Ok(()) };
    batch.hurry(incident);
    batch.note_automation(incident, format!("{} was cancelled by {who}", run.runbook)).await?;
    // It held the incident's resolve back.
    if batch.incident(incident).await?.is_some_and(|incident| incident.quiet_since.is_some()) {
        journal::look_when_quiet(batch, incident);
    }
    Ok(())
}

/// Moves a run to another state, with its reason, by the table of its state machine.
///
/// # Errors
/// `Conflict` if the table forbids it or somebody else changed the run.
pub(crate) async fn put_state(batch: &mut Batch<'_>, run: &mut Run, next: RunState, reason: Option<String>) -> Result<(), store::Error> {
    if !run.state.may_become(next) {
        return Err(store::Error::Conflict);
    }
    let (expected, before) = (run.version, run.state);
    run.state = next;
    run.reason = reason.map(|reason| batch.cx.redactor.redact(&reason).into_owned());
    run.version += 1;
    if next == RunState::Running && run.started_at.is_none() {
        run.started_at = Some(batch.now);
    }
    if !next.is_active() {
        run.finished_at = Some(batch.now);
    }
    batch.put_run(run, expected).await?;
    tracing::debug!(run.id = %run.id, runbook = %run.runbook, before = before.as_str(), state = next.as_str(), "run goes on");
    if !next.is_active() {
        metrics::counter!("watchkeeper_runs_total", "runbook" => run.runbook.clone(), "outcome" => next.as_str()).increment(1);
    }
    Ok(())
}

/// The job that carries a run forward.
pub(crate) fn advance(run: RunId, due_at: Timestamp) -> NewJob {
    NewJob { kind: "run.advance", key: run.to_string(), due_at, urgency: Urgency::Action, payload: json!({ "run": run }) }
}

struct Wanted {
    incident: Option<IncidentId>,
    requester: Option<String>,
    route: Option<String>,
    given: Map<String, Value>,
    context: Value,
    hold: Timestamp,
    plan: Plan,
}

async fn create(batch: &mut Batch<'_>, wanted: Wanted, why: Option<String>) -> Result<Run, store::Error> {
    let Wanted { incident, requester, route, given, context, hold, plan } = wanted;
    let digest = plan.digest().to_string();
    let waits = plan.approval.is_some();
    let run = Run {
        id: RunId::new(batch.now),
        incident,
        runbook: plan.runbook.clone(),
        state: if waits { RunState::AwaitingApproval } else { RunState::Queued },
        reason: why.clone(),
        requester,
        route,
        inputs: json!({ "given": given, "context": context }),
        plan,
        plan_digest: digest,
        rule_set: batch.rules.digest.clone(),
        asked: 1,
        created_at: batch.now,
        started_at: None,
        finished_at: None,
        cancelled_by: None,
        version: 1,
    };
    batch.insert_run(&run).await?;
    let actor = run.requester.as_deref().map_or_else(|| "automation".to_owned(), |who| format!("principal:{who}"));
    batch.audit(
        &actor,
        "run.ask",
        format!("run:{}", run.id),
        AuditDecision::Allowed,
        if waits { "awaiting_approval" } else { "queued" },
        json!({ "runbook": run.runbook, "plan_digest": run.plan_digest, "incident": run.incident, "route": run.route, "rule_set": run.rule_set }),
    );
    tracing::info!(run.id = %run.id, runbook = %run.runbook, state = run.state.as_str(), "run asked for");
    if waits {
        if let (Some(id), Some(why)) = (run.incident, why) {
            batch.tell(id, EntryKind::Refused, None, why);
        }
        ask_approval(batch, &run).await?;
    } else {
        batch.first_job(advance(run.id, hold));
        if let Some(id) = run.incident {
            let wait = if hold > batch.now { format!(" at {hold} unless the alert resolves") } else { String::new() };
            batch.tell(id, EntryKind::Run, run.requester.as_deref(), format!("{} is queued{wait}.", run.runbook));
            batch.note_automation(id, format!("{} is queued{wait}", run.runbook)).await?;
        }
    }
    Ok(run)
}

/// `observe` and `suggest` keep the plan on the timeline; there is no run. Many alerts of one incident are told of once.
async fn observe(batch: &mut Batch<'_>, wanted: &Wanted, what: &str) -> Result<(), store::Error> {
    let line = format!("{} {what}", wanted.plan.runbook);
    if is_told(batch, wanted.incident, &line).await? {
        return Ok(());
    }
    batch.audit(
        "automation",
        "run.observe",
        wanted.incident.map_or_else(|| "route".to_owned(), |id| format!("incident:{id}")),
        AuditDecision::Allowed,
        "mode",
        json!({ "runbook": wanted.plan.runbook, "plan_digest": wanted.plan.digest(), "plan": wanted.plan }),
    );
    if let Some(id) = wanted.incident {
        let steps = domain::composing::plan_lines(&wanted.plan).join("\n");
        batch.tell_more(id, EntryKind::Run, None, format!("{line}."), Some(steps));
        batch.note_automation(id, line).await?;
    }
    Ok(())
}

async fn refuse_plan(
    batch: &mut Batch<'_>,
    incident: Option<IncidentId>,
    runbook: &str,
    actor: &str,
    no_plan: &NoPlan,
) -> Result<(), store::Error> {
    metrics::counter!("watchkeeper_remedies_refused_total", "reason" => "no_plan").increment(1);
    let line = format!("{runbook} refused: {no_plan}");
    if is_told(batch, incident, &line).await? {
        return Ok(());
    }
    let object = incident.map_or_else(|| format!("runbook:{runbook}"), |id| format!("incident:{id}"));
    batch.audit(actor, "run.ask", object, AuditDecision::Refused, "no_plan", json!({ "runbook": runbook, "why": no_plan.to_string() }));
    if let Some(id) = incident {
        batch.tell(id, EntryKind::Refused, None, format!("{runbook} was refused: {no_plan}."));
        batch.note_automation(id, line).await?;
    }
    Ok(())
}

/// Whether the card says so already.
async fn is_told(batch: &mut Batch<'_>, incident: Option<IncidentId>, line: &str) -> Result<bool, store::Error> {
    let Some(id) = incident else { return Ok(false) };
    Ok(batch.incident(id).await?.is_some_and(|incident| incident.automation.as_deref() == Some(line)))
}

/// The route's mode, less what experience took away: a flapping alert, or a remedy that keeps failing, needs a person.
async fn mode_now(batch: &mut Batch<'_>, alert: &Alert, route: &Route, remedy: &Remedy) -> Result<(Mode, Option<String>), store::Error> {
    if remedy.mode != Mode::Auto {
        return Ok((remedy.mode, None));
    }
    if alert.state == AlertState::Flapping {
        return Ok((Mode::Approve, Some(format!("{} asks for approval: the alert is flapping.", remedy.runbook))));
    }
    let lock_after = batch.rules.runbooks.get(&remedy.runbook).and_then(|runbook| runbook.on_failure.lock_after);
    if let Some(most) = lock_after {
        let failures = guards::failures(batch, &remedy.runbook, &route.name).await?;
        if failures >= most {
            return Ok((Mode::Approve, Some(format!("{} asks for approval: it failed {failures} times in a row.", remedy.runbook))));
        }
    }
    Ok((Mode::Auto, None))
}

/// What an incident's end does to runs that have not begun: there is nothing left to remedy.
pub(crate) async fn supersede_waiting(batch: &mut Batch<'_>, incident: &domain::incident::Incident) -> Result<(), store::Error> {
    if incident.state.is_open() {
        return Ok(());
    }
    for mut run in batch.runs_of(incident.id).await? {
        if matches!(run.state, RunState::Held | RunState::AwaitingApproval | RunState::Queued) {
            let why = format!("#{} is {}", incident.number, incident.state.as_str());
            supersede(batch, &mut run, why).await?;
        }
    }
    Ok(())
}

/// Ends a run that has not begun, and its request for approval.
pub(crate) async fn supersede(batch: &mut Batch<'_>, run: &mut Run, why: String) -> Result<(), store::Error> {
    if withdraw_approval(batch, run.id, ApprovalState::Superseded).await? {
        metrics::counter!("watchkeeper_approvals_total", "outcome" => "superseded").increment(1);
    }
    batch.audit("system", "run.supersede", format!("run:{}", run.id), AuditDecision::Allowed, "over", json!({ "why": why }));
    if let Some(id) = run.incident {
        batch.tell(id, EntryKind::Run, None, format!("{} does not run: {why}.", run.runbook));
        batch.note_automation(id, format!("{} did not run: {why}", run.runbook)).await?;
    }
    put_state(batch, run, RunState::Superseded, Some(why)).await
}
