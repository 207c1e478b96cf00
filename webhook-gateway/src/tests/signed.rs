//! Signatures: GitHub's header and Standard Webhooks, on a source that has no other credentials.

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::event::Payload;
use domain::time::Clock;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;

use super::world::{HUB, STANDARD, World, post};

const DEPLOYS: &str = "/api/v1/webhooks/generic/deploys";
const BODY: &str = r#"{ "id": 7,  "title": "Deploy failed" }"#;

fn hmac(key: &[u8], parts: &[&str]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part.as_bytes()));
    mac.finalize().into_bytes().to_vec()
}

fn hub(body: &str) -> String {
    format!("sha256={}", hex::encode(hmac(HUB.as_bytes(), &[body])))
}

/// Id, timestamp and signature headers.
fn standard(id: &str, at: i64, body: &str) -> [String; 3] {
    let key = BASE64.decode(STANDARD.strip_prefix("whsec_").unwrap()).unwrap();
    let mac = BASE64.encode(hmac(&key, &[id, ".", &at.to_string(), ".", body]));
    [id.to_owned(), at.to_string(), format!("v1,{mac}")]
}

async fn send(world: &World, [id, at, signature]: &[String; 3], body: &str) -> StatusCode {
    let headers = [("webhook-id", id.as_str()), ("webhook-timestamp", at), ("webhook-signature", signature)];
    world.ask(post(DEPLOYS, &headers, body.to_owned())).await.0
}

#[tokio::test]
async fn github_signs_the_raw_bytes() {
    let world = World::new().await;
    let headers = [("x-hub-signature-256", hub(BODY)), ("x-event", "deployment".to_owned()), ("x-gitlab-token", "secret".to_owned())];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (status, answer) = world.ask(post(DEPLOYS, &headers, BODY)).await;
    assert_eq!((status, &answer["events"]), (StatusCode::OK, &json!(1)));
    let Payload::Alert(sighting) = world.events().await.remove(0).payload else { panic!("no alert") };
    assert_eq!((sighting.fingerprint.as_str(), sighting.labels["event"].as_str()), ("7", "deployment"));
    let respaced = BODY.replace("  ", " ");
    assert_eq!(world.ask(post(DEPLOYS, &headers, respaced)).await.0, StatusCode::UNAUTHORIZED, "the same JSON, other bytes");
}

#[tokio::test]
async fn standard_webhooks_bind_id_time_and_body() {
    let world = World::new().await;
    let now = world.clock.now().as_second();
    let good = standard("msg_1", now, BODY);
    assert_eq!(send(&world, &good, BODY).await, StatusCode::OK);
    let other = |n: usize, value: &str| {
        let mut changed = good.clone();
        changed[n] = value.to_owned();
        changed
    };
    assert_eq!(send(&world, &good, &BODY.replace('7', "8")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&world, &other(0, "msg_2"), BODY).await, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&world, &other(0, "msg.1"), BODY).await, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&world, &other(1, &(now + 1).to_string()), BODY).await, StatusCode::UNAUTHORIZED);
    for signature in ["", "v1", "v1,", "v2,AAAA", "v1a,AAAA", &good[2].replace("v1,", "v1a,")] {
        assert_eq!(send(&world, &other(2, signature), BODY).await, StatusCode::UNAUTHORIZED, "{signature}");
    }
    let listed = format!("v1,{} v1a,AAAA {}", BASE64.encode([0; 32]), good[2]);
    assert_eq!(send(&world, &other(2, &listed), BODY).await, StatusCode::OK, "one of a list is enough: rotation");
}

#[tokio::test]
async fn a_signature_ages_in_both_directions() {
    let world = World::new().await;
    let now = world.clock.now().as_second();
    for (at, status) in [
        (now - 300, StatusCode::OK),
        (now + 300, StatusCode::OK),
        (now - 301, StatusCode::UNAUTHORIZED),
        (now + 301, StatusCode::UNAUTHORIZED),
        (i64::MIN, StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(send(&world, &standard("msg", at, BODY), BODY).await, status, "{at}");
    }
}

#[tokio::test]
async fn a_replayed_heartbeat_counts_once() {
    let world = World::new().await;
    world.expect_deploys();
    let now = world.clock.now().as_second();
    for id in ["a", "a", "b"] {
        assert_eq!(send(&world, &standard(id, now, BODY), BODY).await, StatusCode::OK);
    }
    assert_eq!(world.events().await.len(), 2);
}

#[tokio::test]
async fn what_is_signed_by_somebody_else_leaves_no_sample_behind() {
    let world = World::new().await;
    assert_eq!(world.ask(post(DEPLOYS, &[("x-hub-signature-256", &hub("x"))], "{")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.ask(post(DEPLOYS, &[("x-hub-signature-256", &hub("{"))], "{")).await.0, StatusCode::BAD_REQUEST);
    let samples = world.store.read().await.unwrap().samples("deploys").await.unwrap();
    assert_eq!(samples.len(), 1);
}
