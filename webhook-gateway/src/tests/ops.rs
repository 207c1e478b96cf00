//! What operators ask, and what every answer carries.

use axum::body::Body;
use axum::http::StatusCode;
use domain::permission::Right;
use secrecy::SecretString;
use serde_json::json;

use super::world::{Setup, World, call, get, send};
use crate::{Check, HashedSecret};

fn check(name: &str, critical: bool, ok: bool) -> Check {
    Check { name: name.to_owned(), critical, ok, detail: format!("{name} says") }
}

async fn with(checks: Vec<Check>) -> World {
    World::with(Setup { checks, ..Setup::default() }).await
}

async fn plain(world: &World, path: &str) -> (StatusCode, serde_json::Value) {
    world.ask(call("GET", path, &[], Body::empty())).await
}

#[tokio::test]
async fn a_dependency_that_is_not_critical_degrades() {
    let world = with(vec![check("store", true, true), check("slack", false, false)]).await;
    let (status, health) = plain(&world, "/health").await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &json!("degraded")));
    assert_eq!(health["version"], "1.2.3");
    assert_eq!(health["timestamp"], "2026-11-20T12:00:00Z");
    assert_eq!(health["uptime"], 0);
    assert_eq!(health["checks"]["slack"], json!({"status": "unhealthy", "critical": false, "detail": "slack says"}));
    assert_eq!(health["checks"]["store"]["status"], "healthy");
    let (status, text) = plain(&world, "/readyz").await;
    assert_eq!((status, text), (StatusCode::OK, json!("[+]store: store says\n[!]slack: slack says\n")));
}

#[tokio::test]
async fn a_critical_one_makes_it_unready_but_not_dead() {
    let world = with(vec![check("store", true, false)]).await;
    let (status, health) = plain(&world, "/health").await;
    assert_eq!((status, &health["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unhealthy")));
    assert_eq!(plain(&world, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(plain(&world, "/livez").await.0, StatusCode::OK);
    assert_eq!(plain(&world, "/healthz").await.0, StatusCode::OK);
    let world = with(vec![check("store", true, true)]).await;
    assert_eq!(plain(&world, "/health").await.1["status"], "healthy");
}

#[tokio::test]
async fn metrics_may_want_a_token() {
    let secret: SecretString = "metrics-secret-0123456789".to_owned().into();
    let world = World::with(Setup { metrics_token: Some(HashedSecret::bearer(&secret)), ..Setup::default() }).await;
    assert_eq!(plain(&world, "/metrics").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.ask(get("/metrics", "metrics-secret-012345678")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.ask(get("/metrics", "metrics-secret-0123456789")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn reload_is_for_administrators_and_a_bad_configuration_says_why() {
    let world = World::new().await;
    let (root, ann) = (world.token("root", &Right::ALL).await, world.token("ann", &Right::ALL).await);
    assert_eq!(world.ask(send("/-/reload", "nothing", &json!({}))).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.ask(send("/-/reload", &ann, &json!({}))).await.0, StatusCode::FORBIDDEN);
    let (status, answer) = world.ask(send("/-/reload", &root, &json!({}))).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("bad_configuration")));
    assert_eq!(answer["detail"], "deploy.yaml:3: no such channel");
}

#[tokio::test]
async fn every_answer_is_guarded() {
    let world = World::new().await;
    for path in ["/livez", "/health", "/metrics", "/version", "/nowhere", "/api/v1/incidents", "/webhook/alertmanager"] {
        let response = world.send(call("GET", path, &[("origin", "https://evil.example")], Body::empty())).await;
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        assert!(header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!((header("x-content-type-options").as_str(), header("cache-control").as_str()), ("nosniff", "no-store"), "{path}");
        assert_eq!((header("x-frame-options").as_str(), header("referrer-policy").as_str()), ("DENY", "no-referrer"), "{path}");
        assert_eq!(header("access-control-allow-origin"), "", "{path}");
        if response.status().is_client_error() {
            assert_eq!(header("content-type"), "application/problem+json", "{path}");
        }
    }
    assert_eq!(plain(&world, "/version").await.1, json!({"name": "watchkeeper", "version": "1.2.3"}));
}
