//! The chat platforms' own routes.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::json;

use super::world::{World, call, post};

#[tokio::test]
async fn headers_and_bytes_go_over_and_the_platforms_answer_comes_back() {
    let world = World::new().await;
    let (status, answer) = world.ask(post("/echo/interactions", &[("X-Sig", "v0=1")], "payload=%7B%7D")).await;
    assert_eq!((status, answer), (StatusCode::ACCEPTED, json!({"path": "/echo/interactions", "x-sig": "v0=1", "length": 14})));
    let (status, _) = world.ask(call("GET", "/echo/interactions", &[], Body::empty())).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _) = world.ask(post("/echo/interactions", &[], " ".repeat(1024 * 1024 + 1))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}
