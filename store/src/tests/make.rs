//! Things to store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use domain::act::{Act, Identity, Verb};
use domain::action::{Effect, OnUnknown, Risk};
use domain::alert::{Alert, AlertState};
use domain::approval::{Approval, ApprovalState};
use domain::duration::Dur;
use domain::event::{Delivery, Event, NewEvent, Payload, Sighting, Status};
use domain::id::{ApprovalId, IncidentId, RunId};
use domain::incident::{Incident, IncidentState};
use domain::job::{NewJob, Urgency};
use domain::plan::{ApprovalPolicy, Guards, OnFailure, Plan, PlannedStep, Retry, Target};
use domain::run::{Attempt, AttemptState, Run, RunState};
use jiff::Timestamp;
use serde_json::json;

/// Text that has hurt others: quotes, a comment, NUL, a line break, markup, an override of the reading direction.
pub(crate) const NASTY: &str = "o'hara\"; drop table alerts; --\0\r\n<b>%_\\ \u{202e}😀";

pub(crate) fn sighting(fingerprint: &str, status: Status, at: Timestamp) -> Sighting {
    Sighting {
        fingerprint: fingerprint.to_owned(),
        status,
        labels: BTreeMap::from([("alertname".to_owned(), "ServiceDown".to_owned()), ("text".to_owned(), NASTY.to_owned())]),
        annotations: BTreeMap::new(),
        starts_at: at,
        ends_at: (status == Status::Resolved).then_some(at),
        generator_url: None,
        external_url: None,
        cut: 0,
    }
}

pub(crate) fn delivery(source: &str, sightings: Vec<Sighting>, at: Timestamp) -> Delivery {
    let events = sightings.into_iter().map(|s| NewEvent::sighting(source, s)).collect();
    Delivery { source: source.to_owned(), events, raw: Bytes::from_static(b"{\"raw\":true}"), received_at: at }
}

/// A person's note on an incident, as a click or command would bring it.
pub(crate) fn note(identity: &str, incident: IncidentId, at: Timestamp) -> Delivery {
    let actor = Identity {
        platform: "slack".to_owned(),
        workspace: "T1".to_owned(),
        user: "U1".to_owned(),
        display: NASTY.to_owned(),
        barred: None,
    };
    let act = Act { actor, verb: Verb::Note { incident, text: NASTY.to_owned() }, button: None, place: None, reply: None };
    Delivery { source: "chat".to_owned(), events: vec![NewEvent::act("chat", identity, act)], raw: Bytes::new(), received_at: at }
}

/// What an event is about: `fp:firing`, `fp:resolved`, `note`.
pub(crate) fn told(event: &Event) -> String {
    match &event.payload {
        Payload::Alert(s) => format!("{}:{}", s.fingerprint, if s.status == Status::Firing { "firing" } else { "resolved" }),
        Payload::Act(act) => act.verb.name().to_owned(),
        Payload::Heartbeat(beat) => beat.name.clone(),
    }
}

pub(crate) fn alert(source: &str, fingerprint: &str, state: AlertState, incident: Option<IncidentId>, at: Timestamp) -> Alert {
    let s = sighting(fingerprint, Status::Firing, at);
    let (mut alert, _) = domain::alert::on_sighting(source, None, &s, at, false);
    alert.state = state;
    alert.incident = incident;
    alert
}

pub(crate) fn incident(number: i64, group_key: &str, state: IncidentState, at: Timestamp) -> Incident {
    Incident {
        id: IncidentId::new(at),
        number,
        source: "am".to_owned(),
        group_key: group_key.to_owned(),
        route: "all".to_owned(),
        title: format!("Service {group_key} is down"),
        summary: NASTY.to_owned(),
        severity: 0,
        severity_name: "critical".to_owned(),
        state,
        labels: BTreeMap::from([("alertname".to_owned(), NASTY.to_owned())]),
        channels: BTreeSet::from(["ops".to_owned()]),
        opened_at: at,
        acked: None,
        ack_due: None,
        quiet_since: None,
        resolved: (!state.is_open()).then_some((at, None)),
        closed_at: None,
        reopened: 0,
        alerts_total: 1,
        alerts_active: 1,
        automation: None,
        rule_set: "d1".to_owned(),
        links: vec![("graph".to_owned(), "https://example.test/?q=%00".to_owned())],
        version: 1,
    }
}

/// A run that restarts these targets.
pub(crate) fn run(incident: Option<IncidentId>, targets: &[&str], at: Timestamp) -> Run {
    let step = |name: &&str| PlannedStep {
        id: format!("restart-{name}"),
        uses: "service.restart".to_owned(),
        with: json!({ "reason": NASTY }),
        target: Some(Target { name: (*name).to_owned(), kind: "systemd".to_owned(), fields: BTreeMap::new() }),
        timeout: Dur::from_secs(60),
        retry: Retry { attempts: 1, delay: Dur::ZERO, max_delay: Dur::ZERO },
        risk: Risk::Disruptive,
        effect: Effect::Idempotent,
        on_unknown: OnUnknown::Ask,
        check: None,
        continue_on_error: false,
    };
    let plan = Plan {
        runbook: "restart".to_owned(),
        params: BTreeMap::new(),
        approval: None,
        guards: Guards::default(),
        steps: targets.iter().map(step).collect(),
        verify: None,
        on_failure: OnFailure::default(),
    };
    Run {
        id: RunId::new(at),
        incident,
        runbook: "restart".to_owned(),
        state: RunState::Queued,
        reason: Some(NASTY.to_owned()),
        requester: None,
        route: Some("all".to_owned()),
        inputs: json!({}),
        plan_digest: plan.digest().to_string(),
        plan,
        rule_set: "d1".to_owned(),
        asked: 0,
        created_at: at,
        started_at: None,
        finished_at: None,
        cancelled_by: None,
        version: 1,
    }
}

pub(crate) fn attempt(run: RunId, index: i64, attempt: i64, at: Timestamp) -> Attempt {
    Attempt {
        run,
        index,
        step: "restart".to_owned(),
        attempt,
        state: AttemptState::Started,
        started_at: at,
        finished_at: None,
        output: None,
        error: None,
        place: None,
        again: false,
        restored: false,
    }
}

pub(crate) fn approval(run: RunId, at: Timestamp) -> Approval {
    Approval {
        id: ApprovalId::new(at),
        run,
        incident: None,
        state: ApprovalState::Pending,
        plan_digest: "p1".to_owned(),
        requester: None,
        policy: ApprovalPolicy {
            roles: BTreeSet::from(["oncall".to_owned()]),
            quorum: 2,
            expires: Dur::from_mins(10),
            exclude: BTreeSet::new(),
        },
        nonce: "n1".to_owned(),
        created_at: at,
        expires_at: at,
        votes: Vec::new(),
        decided_at: None,
    }
}

pub(crate) fn job(kind: &'static str, key: &str, due_at: Timestamp) -> NewJob {
    NewJob { kind, key: key.to_owned(), due_at, urgency: Urgency::Tell, payload: json!({ "key": key }) }
}
