//! From state to card: what people see of an incident, the same on every platform.

use jiff::Timestamp;
use uuid::Uuid;

use crate::alert::{Alert, AlertState};
use crate::approval::{Approval, ApprovalState};
use crate::card::{ApprovalCard, Button, ButtonKind, ButtonStyle, Card, CardAlert};
use crate::incident::{Incident, IncidentState};
use crate::plan::{Plan, PlannedStep};
use crate::rules::{Mode, RuleSet};
use crate::run::{Run, RunState, Settlement};
use crate::text::clean_line;

/// How many alerts a card shows.
pub const CARD_ALERTS: usize = 5;
/// Longest line of a card, in characters.
const LINE: usize = 300;

/// What a card is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The rules in force, for the suggestion.
    pub rules: &'a RuleSet,
    /// The incident.
    pub incident: &'a Incident,
    /// Its first alerts, active ones first; at most [`CARD_ALERTS`] are shown.
    pub alerts: &'a [Alert],
    /// Its runs, by their rank.
    pub runs: &'a [Run],
    /// The approval of the first run, if it needs one.
    pub approval: Option<&'a Approval>,
    /// The present time.
    pub now: Timestamp,
}

/// Composes a card. `sign` makes a button's token for the channel that the card is for.
pub fn card(parts: Parts<'_>, sign: &dyn Fn(ButtonKind, Uuid) -> String) -> Card {
    let incident = parts.incident;
    let alerts: Vec<CardAlert> = parts.alerts.iter().take(CARD_ALERTS).map(card_alert).collect();
    let shown = i64::try_from(alerts.len()).unwrap_or(i64::MAX);
    Card {
        incident: incident.id,
        number: incident.number,
        version: incident.version,
        title: clean_line(&incident.title, 150),
        state: incident.state,
        severity: incident.severity_name.clone(),
        severity_rank: incident.severity,
        summary: incident.summary.clone(),
        fields: fields(incident),
        alerts,
        alerts_more: (incident.alerts_total - shown).max(0),
        automation: automation(parts),
        approval: parts.approval.zip(parts.runs.first()).map(|(approval, run)| approval_card(approval, run)),
        buttons: buttons(parts, sign),
        links: incident.links.clone(),
        opened_at: incident.opened_at,
        updated_at: parts.now,
    }
}

/// One line per step of a plan: what exactly runs, on what. Nothing is left out: a platform that cannot show all of it says so.
pub fn plan_lines(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = plan.steps.iter().enumerate().map(|(index, step)| format!("{}. {}", index + 1, step_line(step))).collect();
    if let Some(verify) = &plan.verify {
        lines.push(format!("then verify: {} within {}", step_line(&verify.step), verify.within));
    }
    lines
}

fn step_line(step: &PlannedStep) -> String {
    let target = step.target.as_ref().map(|target| format!(" on {} ({})", target.name, target.kind)).unwrap_or_default();
    let with = match &step.with {
        serde_json::Value::Object(fields) if fields.is_empty() => String::new(),
        serde_json::Value::Null => String::new(),
        with => format!(" {with}"),
    };
    clean_line(&format!("{}{target}{with}", step.uses), usize::MAX)
}

fn card_alert(alert: &Alert) -> CardAlert {
    let sighting_text = ["summary", "description", "message"].into_iter().find_map(|name| alert.annotations.get(name));
    let name = alert.labels.get("alertname").map_or("alert", String::as_str);
    let what = ["instance", "service", "pod", "job"].into_iter().find_map(|label| alert.labels.get(label));
    let mark = match alert.state {
        AlertState::Flapping => " (flapping)",
        AlertState::Stale => " (stale: not heard of any more)",
        AlertState::Suppressed => " (suppressed)",
        AlertState::Firing | AlertState::Resolved => "",
    };
    let what = what.map(|what| format!(" {what}")).unwrap_or_default();
    let text = sighting_text.map(|text| format!(": {text}")).unwrap_or_default();
    CardAlert {
        active: alert.state.is_active(),
        text: clean_line(&format!("{name}{what}{mark}{text}"), LINE),
        since: if alert.state.is_active() { alert.starts_at } else { alert.ends_at.unwrap_or(alert.starts_at) },
    }
}

fn fields(incident: &Incident) -> Vec<(String, String)> {
    let mut fields = vec![
        ("Severity".to_owned(), incident.severity_name.clone()),
        ("Alerts".to_owned(), format!("{} active of {}", incident.alerts_active, incident.alerts_total)),
    ];
    for name in ["service", "env", "cluster", "namespace", "team"] {
        if let Some(value) = incident.labels.get(name).filter(|value| !value.is_empty()) {
            fields.push((capitalised(name), clean_line(value, 100)));
        }
    }
    if let Some((_, who)) = &incident.acked {
        fields.push(("Taken by".to_owned(), who.clone()));
    }
    if let Some((_, who)) = &incident.resolved {
        fields.push(("Resolved by".to_owned(), who.clone().unwrap_or_else(|| "its alerts".to_owned())));
    }
    if incident.reopened > 0 {
        fields.push(("Reopened".to_owned(), format!("{} times", incident.reopened)));
    }
    fields
}

fn automation(parts: Parts<'_>) -> Vec<String> {
    let mut lines: Vec<String> = parts.incident.automation.iter().map(|line| clean_line(line, LINE)).collect();
    if let Some(run) = parts.runs.first() {
        let reason = run.reason.as_deref().unwrap_or("no reason given");
        let line = match run.state {
            RunState::Held | RunState::Unknown => format!("{} is {}: {reason}", run.runbook, run.state.as_str()),
            _ if run.is_ending() => ending_line(run),
            _ => return lines,
        };
        let line = clean_line(&line, LINE);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// What is said of a run that was cancelled and has not ended.
pub fn ending_line(run: &Run) -> String {
    format!("{} is being cancelled: {}", run.runbook, run.reason.as_deref().unwrap_or("what it does is being ended"))
}

fn approval_card(approval: &Approval, run: &Run) -> ApprovalCard {
    let pending = approval.state == ApprovalState::Pending;
    let names = |approve: bool| {
        approval.votes.iter().filter(|vote| vote.approve == approve).map(|vote| vote.who.as_str()).collect::<Vec<_>>().join(", ")
    };
    let yes = names(true);
    let status = match approval.state {
        ApprovalState::Pending if yes.is_empty() => format!("0/{} approved", approval.policy.quorum),
        ApprovalState::Pending => format!("{}/{} approved: {yes}", approval.policy.quorum - approval.missing(), approval.policy.quorum),
        ApprovalState::Approved => format!("approved by {yes}"),
        ApprovalState::Denied => {
            let why = approval.votes.last().and_then(|vote| vote.reason.as_deref()).map(|why| format!(": {why}")).unwrap_or_default();
            clean_line(&format!("denied by {}{why}", names(false)), LINE)
        }
        ApprovalState::Expired => "expired: nobody decided in time".to_owned(),
        ApprovalState::Superseded => "superseded: the plan changed or is no longer needed".to_owned(),
        ApprovalState::Cancelled => "cancelled".to_owned(),
    };
    ApprovalCard {
        id: approval.id,
        runbook: run.runbook.clone(),
        requester: approval.requester.clone().unwrap_or_else(|| "automation".to_owned()),
        steps: plan_lines(&run.plan),
        risk: format!("{:?}", run.plan.risk()).to_lowercase(),
        digest: approval.plan_digest.chars().take(12).collect(),
        status,
        roles: approval.policy.roles.iter().cloned().collect(),
        expires_at: pending.then_some(approval.expires_at),
    }
}

fn buttons(parts: Parts<'_>, sign: &dyn Fn(ButtonKind, Uuid) -> String) -> Vec<Button> {
    let incident = parts.incident;
    let button = |kind: ButtonKind, label: &str, style: ButtonStyle, object: Uuid| Button {
        kind,
        label: label.to_owned(),
        style,
        token: sign(kind, object),
        confirm: None,
    };
    let mut buttons = Vec::new();
    if let Some(approval) = parts.approval.filter(|approval| approval.state == ApprovalState::Pending) {
        let runbook = parts.runs.first().map_or("the run", |run| run.runbook.as_str());
        let destructive = parts.runs.first().is_some_and(|run| run.plan.risk() == crate::action::Risk::Destructive);
        let mut approve = button(ButtonKind::Approve, "Approve", ButtonStyle::Primary, approval.id.0);
        approve.confirm = destructive.then(|| format!("Really run {runbook}? It destroys something for good."));
        buttons.push(approve);
        buttons.push(button(ButtonKind::Deny, "Deny", ButtonStyle::Danger, approval.id.0));
    }
    for run in parts.runs.iter().filter(|run| run.state == RunState::Unknown).take(1) {
        for settlement in Settlement::ALL {
            let style = if settlement == Settlement::Abort { ButtonStyle::Danger } else { ButtonStyle::Plain };
            buttons.push(button(ButtonKind::of_settlement(settlement), settlement.label(), style, run.id.0));
        }
    }
    match incident.state {
        IncidentState::Open => buttons.push(button(ButtonKind::Acknowledge, "Acknowledge", ButtonStyle::Primary, incident.id.0)),
        IncidentState::Acknowledged => buttons.push(button(ButtonKind::Unacknowledge, "Unacknowledge", ButtonStyle::Plain, incident.id.0)),
        IncidentState::Resolved => buttons.push(button(ButtonKind::Reopen, "Reopen", ButtonStyle::Plain, incident.id.0)),
        IncidentState::Mitigated | IncidentState::Closed => {}
    }
    if incident.state.is_open() {
        buttons.push(button(ButtonKind::Resolve, "Resolve", ButtonStyle::Plain, incident.id.0));
        let busy = parts.runs.iter().any(|run| run.state.is_active());
        if let Some(runbook) = suggestion(parts.rules, incident).filter(|_| !busy) {
            buttons.push(button(ButtonKind::Run, &clean_line(&format!("Run {runbook}"), 70), ButtonStyle::Plain, incident.id.0));
        }
    }
    buttons
}

/// The runbook that the incident's route would have people run.
pub fn suggestion<'r>(rules: &'r RuleSet, incident: &Incident) -> Option<&'r str> {
    let route = rules.routes.iter().find(|route| route.name == incident.route)?;
    route.remedy.as_ref().filter(|remedy| remedy.mode >= Mode::Suggest).map(|remedy| remedy.runbook.as_str())
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
