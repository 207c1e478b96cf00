//! Bodies that are too large, compressed, or too many at once, and a store that is busy.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{StatusCode, header};
use domain::act::ActOutcome;
use domain::event::Delivery;
use domain::inbox::{Accepted, Inbox, InboxError};
use serde_json::json;

use super::world::{BEARER, Setup, World, post};
use crate::Limits;

const FIRING: &str = include_str!("../../fixtures/alertmanager/firing.json");
const PROD: &str = "/api/v1/webhooks/alertmanager/prod";

fn auth() -> (&'static str, String) {
    ("authorization", format!("Bearer {BEARER}"))
}

async fn small() -> World {
    let limits = Limits { alertmanager_body: 4000, in_flight: 6000, ..Setup::default().limits };
    World::with(Setup { limits, ..Setup::default() }).await
}

#[tokio::test]
async fn a_body_that_is_too_large_is_an_incident_about_ourselves() {
    let world = small().await;
    let (name, value) = auth();
    let large = " ".repeat(4001);
    for _ in 0..3 {
        let (status, answer) = world.ask(post(PROD, &[(name, &value), ("content-length", "4001")], large.clone())).await;
        assert_eq!((status, &answer["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")));
    }
    // The same without an announcement.
    let stream =
        futures::stream::iter(large.as_bytes().chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>());
    let (status, _) = world.ask(post(PROD, &[(name, &value)], axum::body::Body::from_stream(stream))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.alerts().await, ["WatchkeeperBodyTooLarge"], "one alert a minute, whatever comes");
    assert_eq!(world.events().await[0].source, "watchkeeper");
}

#[tokio::test]
async fn a_stranger_makes_no_incident_by_size() {
    let world = small().await;
    let large = " ".repeat(4001);
    let mac = format!("sha256={}", "0".repeat(64));
    for (headers, status) in
        [(("authorization", "Bearer x"), StatusCode::UNAUTHORIZED), (("x-hub-signature-256", mac.as_str()), StatusCode::PAYLOAD_TOO_LARGE)]
    {
        assert_eq!(world.ask(post(PROD, &[headers, ("content-length", "4001")], large.clone())).await.0, status);
    }
    assert!(world.events().await.is_empty());
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    let world = World::new().await;
    let (name, value) = auth();
    for (encoding, status) in
        [("gzip", StatusCode::UNSUPPORTED_MEDIA_TYPE), ("identity, br", StatusCode::UNSUPPORTED_MEDIA_TYPE), ("identity", StatusCode::OK)]
    {
        let (got, _) = world.ask(post(PROD, &[(name, &value), ("content-encoding", encoding)], FIRING)).await;
        assert_eq!(got, status, "{encoding}");
    }
}

/// An inbox that says what it is told to, or never answers.
struct Says(Option<InboxError>);

#[async_trait]
impl Inbox for Says {
    async fn accept(&self, _: Delivery) -> Result<Accepted, InboxError> {
        match &self.0 {
            Some(error) => Err(error.clone()),
            None => std::future::pending().await,
        }
    }

    async fn outcome(&self, _: i64, _: Duration) -> Result<Option<ActOutcome>, InboxError> {
        Ok(None)
    }
}

#[tokio::test]
async fn a_busy_store_is_a_503_that_asks_to_come_back_and_never_a_429() {
    let (name, value) = auth();
    let why = |error| Says(error);
    for (inbox, code) in [
        (why(Some(InboxError::Overloaded)), "overloaded"),
        (why(Some(InboxError::Unavailable("disk full".to_owned()))), "store_unavailable"),
        (why(None), "store_unavailable"),
    ] {
        let limits = Limits { store_time: Duration::from_millis(50), ..Setup::default().limits };
        let world = World::with(Setup { limits, inbox: Some(Arc::new(inbox)), ..Setup::default() }).await;
        let response = world.send(post(PROD, &[(name, &value)], FIRING)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], code);
        assert!(!body.to_string().contains("disk full"), "what is wrong inside stays inside");
    }
}

#[tokio::test]
async fn bytes_that_wait_to_be_stored_are_still_in_flight() {
    let (name, value) = auth();
    let body = || FIRING.to_owned() + &" ".repeat(3900 - FIRING.len());
    let limits = Limits { alertmanager_body: 4000, in_flight: 6000, store_time: Duration::from_millis(300), ..Setup::default().limits };
    let world = Arc::new(World::with(Setup { limits, inbox: Some(Arc::new(Says(None))), ..Setup::default() }).await);
    let first = tokio::spawn({
        let (world, request) = (Arc::clone(&world), post(PROD, &[(name, &value), ("content-length", "3900")], body()));
        async move { world.ask(request).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (status, answer) = world.ask(post(PROD, &[(name, &value), ("content-length", "3900")], body())).await;
    assert_eq!((status, &answer["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("overloaded")));
    assert_eq!(first.await.unwrap().1["code"], "store_unavailable");
    let (_, answer) = world.ask(post(PROD, &[(name, &value), ("content-length", "3900")], body())).await;
    assert_eq!(answer["code"], "store_unavailable", "the first one's share is free again");
}
