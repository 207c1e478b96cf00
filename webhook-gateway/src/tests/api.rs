//! The API: reads by right, and changes as acts whose outcome the caller hears.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use domain::act::{ActOutcome, Verb};
use domain::approval::{Approval, ApprovalState};
use domain::event::Payload;
use domain::id::{ApprovalId, IncidentId, RunId};
use domain::incident::{Incident, IncidentState};
use domain::permission::Right;
use domain::plan::ApprovalPolicy;
use domain::time::Clock;
use domain::timeline::{Entry, EntryKind};
use serde_json::json;
use tokio_stream::StreamExt;

use super::world::{Setup, World, call, get, send};
use crate::Limits;

fn done() -> ActOutcome {
    ActOutcome::done("acknowledged", "Yours.")
}

/// `count` incidents, and their ids.
pub(super) async fn incidents(world: &World, count: usize) -> Vec<IncidentId> {
    let now = world.clock.now();
    let mut tx = world.store.begin().await.unwrap();
    let mut ids = Vec::new();
    for n in 0..count {
        let incident = Incident {
            id: IncidentId::new(now),
            number: tx.next_incident_number().await.unwrap(),
            source: "prod".to_owned(),
            group_key: format!("g{n}"),
            route: "routes[0]".to_owned(),
            title: format!("Service {n} is down"),
            summary: String::new(),
            severity: 0,
            severity_name: "P1".to_owned(),
            state: IncidentState::Open,
            labels: Default::default(),
            channels: Default::default(),
            opened_at: now,
            acked: None,
            ack_due: None,
            quiet_since: None,
            resolved: None,
            closed_at: None,
            reopened: 0,
            alerts_total: 1,
            alerts_active: 1,
            automation: None,
            rule_set: "0".repeat(64),
            links: Vec::new(),
            version: 1,
        };
        tx.insert_incidents(&[&incident]).await.unwrap();
        let text = "Opened.".to_owned();
        tx.tell(&[Entry { incident: incident.id, at: now, kind: EntryKind::Opened, who: None, text, detail: None }]).await.unwrap();
        ids.push(incident.id);
    }
    tx.commit().await.unwrap();
    ids
}

async fn approval(world: &World) -> Approval {
    let now = world.clock.now();
    let policy =
        ApprovalPolicy { roles: ["sre".to_owned()].into(), quorum: 1, expires: "15m".parse().unwrap(), exclude: Default::default() };
    let approval = Approval {
        id: ApprovalId::new(now),
        run: RunId::new(now),
        incident: None,
        state: ApprovalState::Pending,
        plan_digest: "a".repeat(64),
        requester: None,
        policy,
        nonce: "n".to_owned(),
        created_at: now,
        expires_at: now + jiff::SignedDuration::from_mins(15),
        votes: Vec::new(),
        decided_at: None,
    };
    let mut tx = world.store.begin().await.unwrap();
    tx.insert_approval(&approval).await.unwrap();
    tx.commit().await.unwrap();
    approval
}

/// The verbs of all stored acts, and who asked.
async fn acts(world: &World) -> Vec<(String, Verb)> {
    let act = |payload| match payload {
        Payload::Act(act) => Some((format!("{}/{}", act.actor.platform, act.actor.user), act.verb)),
        _ => None,
    };
    world.events().await.into_iter().filter_map(|event| act(event.payload)).collect()
}

#[tokio::test]
async fn incidents_come_in_pages_newest_first() {
    let world = World::new().await;
    incidents(&world, 5).await;
    let token = world.token("gus", &[Right::View]).await;
    let (_, first) = world.ask(get("/api/v1/incidents?limit=2", &token)).await;
    let numbers =
        |page: &serde_json::Value| page["items"].as_array().unwrap().iter().map(|i| i["number"].as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!((numbers(&first), &first["next"]), (vec![5, 4], &json!(4)));
    let (_, second) = world.ask(get("/api/v1/incidents?limit=2&cursor=4", &token)).await;
    assert_eq!(numbers(&second), [3, 2]);
    let (_, last) = world.ask(get("/api/v1/incidents?limit=2&cursor=2", &token)).await;
    assert_eq!((numbers(&last), &last["next"]), (vec![1], &json!(null)));
    let (_, one) = world.ask(get("/api/v1/incidents/3", &token)).await;
    assert_eq!((&one["incident"]["title"], &one["runs"]), (&json!("Service 2 is down"), &json!([])));
    let (_, timeline) = world.ask(get("/api/v1/incidents/3/timeline", &token)).await;
    assert_eq!(timeline["items"][0]["entry"]["text"], "Opened.");
    for (path, status) in
        [("incidents/99", 404), ("incidents/x", 404), ("incidents?limt=1", 400), ("incidents?cursor=x", 400), ("runs/x", 404)]
    {
        let (got, answer) = world.ask(get(&format!("/api/v1/{path}"), &token)).await;
        assert_eq!((got.as_u16(), answer["status"].as_u64()), (status, Some(u64::from(status))), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_change_is_an_act_whose_outcome_is_the_answer() {
    let world = World::new().await;
    let ids = incidents(&world, 1).await;
    let _handlers = world.answer(|verb| match verb {
        Verb::Acknowledge { .. } => done(),
        Verb::Resolve { .. } => ActOutcome::refused("no_right", "Ask somebody."),
        _ => ActOutcome::refused("already", "#1 is already closed."),
    });
    let token = world.token("ann", &Right::ALL).await;
    let (status, answer) = world.ask(send("/api/v1/incidents/1/ack", &token, &json!({}))).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"done": true, "code": "acknowledged", "text": "Yours."})));
    let (status, answer) = world.ask(send("/api/v1/incidents/1/resolve", &token, &json!({}))).await;
    assert_eq!((status, &answer["code"], &answer["detail"]), (StatusCode::FORBIDDEN, &json!("no_right"), &json!("Ask somebody.")));
    let (status, answer) = world.ask(send("/api/v1/incidents/1/close", &token, &json!({}))).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("already")));
    let acts = acts(&world).await;
    assert_eq!(acts[0], ("api/ann".to_owned(), Verb::Acknowledge { incident: ids[0] }));
    assert_eq!(acts.len(), 3);
    for (path, status) in [("incidents/1/explode", 404), ("incidents/7/ack", 404)] {
        assert_eq!(world.ask(send(&format!("/api/v1/{path}"), &token, &json!({}))).await.0.as_u16(), status);
    }
}

#[tokio::test]
async fn an_outcome_that_is_not_known_in_time_is_a_202() {
    let limits = Limits { outcome_time: std::time::Duration::from_millis(50), ..Setup::default().limits };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    incidents(&world, 1).await;
    let token = world.token("ann", &Right::ALL).await;
    let (status, answer) = world.ask(send("/api/v1/incidents/1/ack", &token, &json!({}))).await;
    assert_eq!((status, &answer["code"]), (StatusCode::ACCEPTED, &json!("pending")));
    assert_eq!(answer["seq"].as_i64(), world.events().await.first().map(|event| event.seq));
}

#[tokio::test]
async fn an_idempotency_key_makes_one_act_of_many_calls() {
    let world = World::new().await;
    incidents(&world, 1).await;
    let decided = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&decided);
    let _handlers = world.answer(move |_| ActOutcome::done("n", count.fetch_add(1, Ordering::SeqCst).to_string()));
    let (ann, root) = (world.token("ann", &Right::ALL).await, world.token("root", &Right::ALL).await);
    let call = |path: &'static str, token: &str, key: &str| {
        let bearer = format!("Bearer {token}");
        call("POST", path, &[("authorization", &bearer), ("idempotency-key", key)], "")
    };
    let first = world.ask(call("/api/v1/incidents/1/ack", &ann, "k1")).await;
    assert_eq!(first, world.ask(call("/api/v1/incidents/1/ack", &ann, "k1")).await);
    assert_eq!(acts(&world).await.len(), 1);
    world.ask(call("/api/v1/incidents/1/ack", &ann, "k2")).await;
    world.ask(call("/api/v1/incidents/1/ack", &root, "k1")).await;
    world.ask(call("/api/v1/incidents/1/unack", &ann, "k1")).await;
    assert_eq!((acts(&world).await.len(), decided.load(Ordering::SeqCst)), (4, 4), "another key, caller or request is another act");
    for key in ["", &"k".repeat(256)] {
        assert_eq!(world.ask(call("/api/v1/incidents/1/ack", &ann, key)).await.0, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn bodies_are_checked_before_anything_is_stored() {
    let world = World::new().await;
    incidents(&world, 1).await;
    let approval = approval(&world).await;
    let token = world.token("ann", &Right::ALL).await;
    let decision = format!("/api/v1/approvals/{}/decision", approval.id);
    for (path, body, status) in [
        ("/api/v1/incidents/1/note", json!({"text": " "}), 400),
        ("/api/v1/incidents/1/note", json!({"txt": "x"}), 400),
        ("/api/v1/automation", json!({"paused": true}), 400),
        ("/api/v1/automation", json!({}), 400),
        ("/api/v1/runbooks/none/runs", json!({}), 404),
        (&decision, json!({"decision": "deny"}), 400),
        (&decision, json!({"decision": "maybe"}), 400),
        (&decision, json!({"decision": "approve", "plan_digest": "b"}), 409),
    ] {
        let (got, answer) = world.ask(send(path, &token, &body)).await;
        assert_eq!(got.as_u16(), status, "{path} {body}: {answer}");
    }
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    assert_eq!(
        world.ask(call("POST", "/api/v1/incidents/1/note", &headers, r#"{"text":"x"}"#)).await.0,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    assert!(acts(&world).await.is_empty());
}

#[tokio::test]
async fn decisions_notes_and_the_switch_become_their_verbs() {
    let world = World::new().await;
    let ids = incidents(&world, 1).await;
    let approval = approval(&world).await;
    let _handlers = world.answer(|_| done());
    let token = world.token("ann", &Right::ALL).await;
    let decision = format!("/api/v1/approvals/{}/decision", approval.id);
    for (path, body) in [
        (decision.as_str(), json!({"decision": "approve", "plan_digest": approval.plan_digest})),
        (&decision, json!({"decision": "deny", "reason": "not now\u{0}"})),
        ("/api/v1/incidents/1/note", json!({"text": "saw it"})),
    ] {
        assert_eq!(world.ask(send(path, &token, &body)).await.0, StatusCode::OK, "{path} {body}");
    }
    let verbs: Vec<Verb> = acts(&world).await.into_iter().map(|(_, verb)| verb).collect();
    let wanted = [
        Verb::Approve { approval: approval.id },
        Verb::Deny { approval: approval.id, reason: "not now␀".to_owned() },
        Verb::Note { incident: ids[0], text: "saw it".to_owned() },
    ];
    assert_eq!(verbs, wanted);
    let (_, pending) = world.ask(get("/api/v1/approvals", &token)).await;
    assert_eq!(pending["items"][0]["plan_digest"], approval.plan_digest);
    let (_, events) = world.ask(get("/api/v1/events?after=1&limit=1", &token)).await;
    assert_eq!((&events["items"][0]["payload"]["verb"]["verb"], &events["next"]), (&json!("deny"), &json!(2)));
}

#[tokio::test]
async fn the_stream_tells_what_changed_and_ends_with_the_server() {
    let world = World::new().await;
    let token = world.token("gus", &[Right::View]).await;
    let response = world.send(get("/api/v1/stream", &token)).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let ids = incidents(&world, 1).await;
    let chunk = body.next().await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&chunk), format!("event: incident\ndata: {}\n\n", json!({"id": ids[0]})));
    world.stopping.cancel();
    assert!(body.next().await.is_none());
    assert_eq!(world.ask(get("/readyz", &token)).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_place_back() {
    let limits = Limits { streams: 1, ..Setup::default().limits };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let token = world.token("gus", &[Right::View]).await;
    let first = world.send(get("/api/v1/stream", &token)).await;
    assert_eq!(world.ask(get("/api/v1/stream", &token)).await.1["code"], "too_many_streams");
    drop(first);
    assert_eq!(world.send(get("/api/v1/stream", &token)).await.status(), StatusCode::OK);
}
