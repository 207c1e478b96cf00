//! The signatures of Slack's, Stripe's and Discord's kind, each right, wrong, stale, tampered with and rotated.

use axum::http::StatusCode;
use domain::time::Clock;
use hmac::{Hmac, KeyInit, Mac};

use super::world::{BEARER, HUB, SEEDS, SLACK, STRIPE, World, post, signer};

const DEPLOYS: &str = "/api/v1/webhooks/generic/deploys";
const BODY: &str = r#"{ "id": 7,  "title": "Deploy failed" }"#;

type Headers = Vec<(&'static str, String)>;

fn hmac(key: &str, text: &str) -> String {
    hex::encode(Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap().chain_update(text).finalize().into_bytes())
}

fn slack(which: usize, at: i64, body: &str) -> Headers {
    let mac = hmac(SLACK[which], &format!("v0:{at}:{body}"));
    vec![("x-slack-signature", format!("v0={mac}")), ("x-slack-request-timestamp", at.to_string())]
}

fn stripe(which: usize, at: i64, body: &str) -> Headers {
    let (mac, old) = (hmac(STRIPE[which], &format!("{at}.{body}")), "0".repeat(64));
    vec![("stripe-signature", format!("t={at},v1={old},v1={mac},v0={old}"))]
}

fn ed25519(which: usize, at: i64, body: &str) -> Headers {
    let signature = signer(&SEEDS[which]).sign(format!("{at}{body}").as_bytes());
    vec![("x-signature-ed25519", hex::encode(signature)), ("x-signature-timestamp", at.to_string())]
}

async fn send(world: &World, path: &str, headers: &Headers, body: &str) -> u16 {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    world.ask(post(path, &headers, body.to_owned())).await.0.as_u16()
}

#[tokio::test]
async fn every_form_takes_the_right_bytes_of_either_key_and_nothing_else() {
    let world = World::new().await;
    let now = world.clock.now().as_second();
    for form in [slack, stripe, ed25519] {
        let good = form(0, now, BODY);
        let name = good[0].0;
        assert_eq!(send(&world, DEPLOYS, &good, BODY).await, 200, "{name}");
        assert_eq!(send(&world, DEPLOYS, &form(1, now, BODY), BODY).await, 200, "{name}: the other key of a rotation");
        assert_eq!(send(&world, DEPLOYS, &good, &BODY.replace("  ", " ")).await, 401, "{name}: the same JSON, other bytes");
        assert_eq!(send(&world, DEPLOYS, &good, &BODY.replace('7', "8")).await, 401, "{name}");
        for (at, status) in [(now - 300, 200), (now + 300, 200), (now - 301, 401), (now + 301, 401), (i64::MIN, 401), (i64::MAX, 401)] {
            assert_eq!(send(&world, DEPLOYS, &form(0, at, BODY), BODY).await, status, "{name} at {at}");
        }
        for other in ["prod", "closed", "nobody"] {
            let path = format!("/api/v1/webhooks/alertmanager/{other}");
            assert_eq!(send(&world, &path, &good, BODY).await, 401, "{name} to {other}, which has no such key");
        }
    }
}

#[tokio::test]
async fn a_signature_is_bound_to_its_time_and_to_its_form() {
    let world = World::new().await;
    let now = world.clock.now().as_second();
    let moved = |mut headers: Headers| {
        for (_, value) in &mut headers {
            *value = value.replace(&now.to_string(), &(now + 1).to_string());
        }
        headers
    };
    for form in [slack, stripe, ed25519] {
        assert_eq!(send(&world, DEPLOYS, &moved(form(0, now, BODY)), BODY).await, 401, "another time than was signed");
    }
    // Slack's secret over what Stripe signs, and the other way round.
    let crossed = vec![("stripe-signature", format!("t={now},v1={}", hmac(SLACK[0], &format!("{now}.{BODY}"))))];
    assert_eq!(send(&world, DEPLOYS, &crossed, BODY).await, 401);
    let mac = hmac(HUB, &format!("v0:{now}:{BODY}"));
    let crossed = vec![("x-slack-signature", format!("v0={mac}")), ("x-slack-request-timestamp", now.to_string())];
    assert_eq!(send(&world, DEPLOYS, &crossed, BODY).await, 401);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_before_the_body() {
    let world = World::new().await;
    let now = world.clock.now().as_second().to_string();
    let zeros = |n| "0".repeat(n);
    let bad: [Headers; 10] = [
        vec![("x-slack-signature", format!("v0={}", zeros(64)))],
        vec![("x-slack-signature", format!("v1={}", zeros(64))), ("x-slack-request-timestamp", now.clone())],
        vec![("x-slack-signature", format!("v0={}", zeros(63))), ("x-slack-request-timestamp", now.clone())],
        vec![("x-slack-signature", format!("v0={}", zeros(64))), ("x-slack-request-timestamp", format!("+{now}"))],
        vec![("stripe-signature", format!("v1={}", zeros(64)))],
        vec![("stripe-signature", format!("t={now}"))],
        vec![("stripe-signature", format!("t={now},v1=x,v0={}", zeros(64)))],
        vec![("x-signature-ed25519", zeros(128))],
        vec![("x-signature-ed25519", zeros(126)), ("x-signature-timestamp", now.clone())],
        vec![("x-signature-ed25519", zeros(128)), ("x-signature-timestamp", String::new())],
    ];
    for headers in bad {
        assert_eq!(send(&world, DEPLOYS, &headers, BODY).await, 401, "{headers:?}");
    }
}

#[tokio::test]
async fn basic_takes_user_and_password_together() {
    use base64::Engine as _;
    let world = World::new().await;
    let body = r#"{"version": "4", "alerts": []}"#;
    let try_with = async |pair: &str| {
        let header = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let headers = vec![("authorization", header)];
        send(&world, "/api/v1/webhooks/alertmanager/prod", &headers, body).await
    };
    assert_eq!(try_with("am:basic-secret-0123456789").await, StatusCode::OK.as_u16());
    for wrong in
        ["am:", "am:basic-secret-012345678", "an:basic-secret-0123456789", ":basic-secret-0123456789", "am", &format!("am:{BEARER}")]
    {
        assert_eq!(try_with(wrong).await, 401, "{wrong}");
    }
}

#[tokio::test]
async fn a_replayed_heartbeat_of_a_timed_form_counts_once() {
    let world = World::new().await;
    world.expect_deploys();
    let now = world.clock.now().as_second();
    for (form, at) in [(slack as fn(usize, i64, &str) -> Headers, now), (slack, now), (slack, now + 1), (stripe, now), (stripe, now)] {
        assert_eq!(send(&world, DEPLOYS, &form(0, at, BODY), BODY).await, 200);
    }
    assert_eq!(world.events().await.len(), 3);
}
