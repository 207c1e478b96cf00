//! What a sender may rely on: durable before 2xx, repeats recognised, and one answer for everybody who is not entitled.

use anyhow::ensure;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use domain::event::Payload;
use harness::eventually;
use harness::world::SOON;
use serde_json::json;

use super::world::{BEARER, World, call, post};

const FIRING: &str = include_str!("../../fixtures/alertmanager/firing.json");
const RESOLVED: &str = include_str!("../../fixtures/alertmanager/resolved.json");
const WATCHDOG: &str = include_str!("../../fixtures/alertmanager/watchdog.json");
const PROD: &str = "/api/v1/webhooks/alertmanager/prod";

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

fn basic(pair: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

#[tokio::test]
async fn a_group_is_stored_once_and_its_repeat_is_counted() {
    let world = World::new().await;
    let send = || world.ask(post(PROD, &[("authorization", &bearer(BEARER))], FIRING));
    assert_eq!(send().await, (StatusCode::OK, json!({"status": "accepted", "events": 2, "repeats": 0})));
    assert_eq!(send().await, (StatusCode::OK, json!({"status": "accepted", "events": 2, "repeats": 2})));
    let (_, answer) = world.ask(post(PROD, &[("authorization", &bearer(BEARER))], RESOLVED)).await;
    assert_eq!(answer["repeats"], 0);
    let events = world.events().await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.source == "prod"));
}

#[tokio::test]
async fn every_path_of_alertmanager_works_with_and_without_a_slash_and_none_redirects() {
    let world = World::new().await;
    let plain = ["/api/v1/webhooks/alertmanager", "/webhook/alertmanager", "/webhooks/alertmanager"];
    for path in plain {
        for (path, source) in [
            (path.to_owned(), "alertmanager"),
            (format!("{path}/"), "alertmanager"),
            (format!("{path}/prod"), "prod"),
            (format!("{path}/prod/"), "prod"),
        ] {
            let before = world.events().await.len();
            let body = FIRING.replace("10.0.3.1", &format!("{}:", path.len() + path.matches('/').count() * 100));
            let (status, _) = world.ask(post(&path, &[("authorization", &bearer(BEARER))], body)).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            let events = world.events().await;
            assert!(events.len() == before + 2 && events.last().unwrap().source == source, "{path}");
        }
    }
    for path in ["/api/v1/webhooks/alertmanager//prod", "/api/v1/webhooks/alertmanager/prod/x", "/API/v1/webhooks/alertmanager", "/webhook"]
    {
        let (status, answer) = world.ask(post(path, &[("authorization", &bearer(BEARER))], FIRING)).await;
        assert_eq!((status, &answer["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{path}");
    }
    let (status, answer) = world.ask(call("GET", PROD, &[], Body::empty())).await;
    assert_eq!((status, &answer["code"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("method_not_allowed")));
}

#[tokio::test]
async fn two_secrets_are_active_and_basic_works_too() {
    let world = World::new().await;
    for value in [bearer(BEARER), bearer("the-next-secret-0123456789"), basic("am:basic-secret-0123456789"), format!("bEaReR {BEARER}")] {
        let (status, _) = world.ask(post(PROD, &[("authorization", &value)], WATCHDOG)).await;
        assert_eq!(status, StatusCode::OK, "{value}");
    }
}

/// Everything about an answer that a stranger could compare.
async fn seen(world: &World, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
    let response = world.send(post(path, headers, body.to_owned())).await;
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap().to_vec())
}

#[tokio::test]
async fn whoever_is_not_entitled_gets_one_and_the_same_answer() {
    let world = World::new().await;
    let wrong = bearer("not-the-secret-0123456789");
    let right = bearer(BEARER);
    let zero_mac = format!("sha256={}", "0".repeat(64));
    let reference = seen(&world, PROD, &[], FIRING).await;
    assert_eq!(reference.0, StatusCode::UNAUTHORIZED);
    let cases: [(&str, Vec<(&str, &str)>); 10] = [
        (PROD, vec![("authorization", &wrong)]),
        (PROD, vec![("authorization", "Bearer")]),
        (PROD, vec![("authorization", "Bearer ")]),
        (PROD, vec![("authorization", "Digest x")]),
        (PROD, vec![("x-hub-signature-256", &zero_mac)]),
        (PROD, vec![("x-hub-signature-256", "sha256=zz")]),
        ("/api/v1/webhooks/alertmanager/closed", vec![("authorization", &right)]),
        ("/api/v1/webhooks/alertmanager/nobody", vec![("authorization", &right)]),
        ("/api/v1/webhooks/alertmanager/nobody", vec![("x-hub-signature-256", &zero_mac)]),
        ("/api/v1/webhooks/generic/prod", vec![("authorization", &right)]),
    ];
    for (path, headers) in cases {
        assert_eq!(seen(&world, path, &headers, FIRING).await, reference, "{path} {headers:?}");
    }
    assert!(!String::from_utf8(reference.2).unwrap().contains("prod"));
    assert!(world.events().await.is_empty());
}

#[tokio::test]
async fn the_secret_of_nobody_opens_nothing() {
    // The MAC under the key that stands in for an absent one must not count for a source that has none.
    use hmac::{Hmac, KeyInit, Mac};
    let world = World::new().await;
    for path in [PROD, "/api/v1/webhooks/generic/nobody", "/api/v1/webhooks/alertmanager/closed"] {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&[0; 32]).unwrap();
        mac.update(FIRING.as_bytes());
        let value = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let (status, _) = world.ask(post(path, &[("x-hub-signature-256", &value)], FIRING)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn refusals_are_counted_per_source_reason_and_minute_and_made_up_names_are_one() {
    let world = World::new().await;
    for n in 0..5 {
        let path = format!("/api/v1/webhooks/alertmanager/made-up-{n}");
        world.send(post(&path, &[("authorization", "Bearer x")], FIRING)).await;
    }
    world.send(post(PROD, &[], FIRING)).await;
    let wanted =
        [(("prod".to_owned(), "no_credentials".to_owned()), 1), (("unknown".to_owned(), "wrong_credentials".to_owned()), 5)].into();
    let are_counted = async || {
        let counted = world.refusals().await;
        ensure!(counted == wanted, "{counted:?}");
        Ok(())
    };
    eventually(SOON, are_counted).await.unwrap();
}

#[tokio::test]
async fn a_stop_writes_down_what_was_counted() {
    let limits = crate::Limits { refusals_every: std::time::Duration::from_secs(3600), ..Default::default() };
    let world = World::with(super::world::Setup { limits, ..Default::default() }).await;
    world.send(post(PROD, &[], FIRING)).await;
    assert!(world.refusals().await.is_empty());
    world.stopping.cancel();
    let is_written = async || {
        ensure!(!world.refusals().await.is_empty(), "the refusal was forgotten");
        Ok(())
    };
    eventually(SOON, is_written).await.unwrap();
}

#[tokio::test]
async fn a_watchdog_is_a_heartbeat_each_time() {
    let world = World::new().await;
    for _ in 0..2 {
        let (_, answer) = world.ask(post(PROD, &[("authorization", &bearer(BEARER))], WATCHDOG)).await;
        assert_eq!((&answer["events"], &answer["repeats"]), (&json!(1), &json!(0)));
    }
    let events = world.events().await;
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| matches!(&event.payload, Payload::Heartbeat(beat) if beat.name == "Watchdog")));
    let (status, _) = world.ask(post("/webhook/alertmanager", &[("authorization", &bearer(BEARER))], WATCHDOG)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.alerts().await, ["Watchdog"], "a source without such a rule has an alert of that name");
}

#[tokio::test]
async fn an_unreadable_body_is_a_400_and_its_sample_is_kept_after_authentication_only() {
    let world = World::new().await;
    let deep = "[".repeat(65);
    for body in ["{", "null", r#"{"alerts":[{"status":"maybe"}]}"#, deep.as_str(), "\u{0}"] {
        let (status, answer) = world.ask(post(PROD, &[("authorization", &bearer(BEARER))], body.to_owned())).await;
        assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("invalid")), "{body}");
        let (status, _) = world.ask(post(PROD, &[("authorization", "Bearer x")], body.to_owned())).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let samples = world.store.read().await.unwrap().samples("prod").await.unwrap();
    assert_eq!(samples.len(), 5);
    assert!(samples[1].body == deep.as_bytes() && samples[1].error.contains("64 levels"));
    assert!(world.events().await.is_empty());
    world.ask(post(PROD, &[("authorization", &bearer(BEARER))], "x".repeat(1_000_000))).await;
    let samples = world.store.read().await.unwrap().samples("prod").await.unwrap();
    assert_eq!(samples[0].body.len(), 64 * 1024);
}

#[tokio::test]
async fn no_alerts_are_no_events() {
    let world = World::new().await;
    let (status, answer) = world.ask(post(PROD, &[("authorization", &bearer(BEARER))], r#"{"alerts":[]}"#)).await;
    assert_eq!((status, &answer["events"]), (StatusCode::OK, &json!(0)));
}

#[tokio::test]
async fn a_storm_in_one_body_is_stored_whole_and_in_order() {
    let world = World::new().await;
    let alert = |n: usize| json!({"status": "firing", "labels": {"alertname": format!("A{n:05}")}, "startsAt": "2026-11-20T11:00:00Z", "fingerprint": format!("{n:016x}")});
    let body = json!({"version": "4", "alerts": (0..10_000).map(alert).collect::<Vec<_>>()}).to_string();
    let (status, answer) = world.ask(post(PROD, &[("authorization", &bearer(BEARER))], body)).await;
    assert_eq!((status, &answer["events"]), (StatusCode::OK, &json!(10_000)));
    let names = world.alerts().await;
    assert!(names.is_sorted() && names.len() == 10_000);
}

#[tokio::test]
async fn metrics_count_by_source_and_nothing_that_a_sender_chose() {
    super::world::recorder();
    let world = World::new().await;
    world.ask(post(PROD, &[("authorization", &bearer(BEARER))], FIRING)).await;
    world.ask(post("/api/v1/webhooks/alertmanager/evil-name", &[], FIRING)).await;
    world.send(call("BREW", "/evil-path", &[], Body::empty())).await;
    let (_, text) = world.ask(call("GET", "/metrics", &[], Body::empty())).await;
    let text = text.as_str().unwrap();
    assert!(text.contains(r#"watchkeeper_events_received_total{source="prod"}"#), "{text}");
    assert!(text.contains(r#"watchkeeper_events_rejected_total{source="unknown",reason="no_credentials"}"#), "{text}");
    assert!(text.contains(r#"route="/api/v1/webhooks/alertmanager/{source}""#), "{text}");
    assert!(!text.contains("evil") && !text.contains("BREW"), "{text}");
}
