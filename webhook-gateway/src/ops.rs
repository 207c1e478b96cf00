//! The routes for whoever runs Watchkeeper: liveness, readiness, health, metrics, version and reload.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::permission::Right;
use serde_json::json;

use crate::api::Caller;
use crate::auth;
use crate::error::ApiError;
use crate::gateway::App;
use crate::health::{Health, PATIENCE, ask, document, overall};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/livez", get(alive))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/-/reload", post(reload))
}

/// `GET /livez`, `/healthz`: the process answers. It asks nothing else, so that a store that is down restarts nobody.
async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 if events can be kept, 503 otherwise; one line per dependency.
async fn ready(State(app): State<App>) -> Response {
    let checks = ask(&*app.health, PATIENCE).await;
    let line = |check: &crate::health::Check| {
        let sign = match (check.ok, check.critical) {
            (true, _) => "[+]",
            (false, true) => "[-]",
            (false, false) => "[!]",
        };
        format!("{sign}{}: {}\n", check.name, check.detail)
    };
    let ready = overall(&checks) != Health::Unhealthy && !app.stopping.is_cancelled();
    let stopping = if app.stopping.is_cancelled() { "[-]server: stopping\n" } else { "" };
    let text: String = checks.iter().map(line).collect::<String>() + stopping;
    (status(ready), text).into_response()
}

/// `GET /health`: `{status, version, timestamp, checks, uptime}`; 503 only if something critical fails.
async fn health(State(app): State<App>) -> Response {
    let checks = ask(&*app.health, PATIENCE).await;
    let document = document(&checks, &app.settings.version, app.clock.now(), app.started.elapsed());
    (status(overall(&checks) != Health::Unhealthy), Json(document)).into_response()
}

/// `GET /metrics`: Prometheus text.
async fn metrics(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    if app.settings.metrics_token.as_ref().is_some_and(|token| !auth::carries(&headers, token)) {
        return Err(ApiError::Unauthorized);
    }
    // A store that does not answer must not cost the metrics that need none: what it said last stands then.
    let _late = tokio::time::timeout(PATIENCE, app.health.measure()).await;

    let text = (app.metrics)();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// `GET /version`.
async fn version(State(app): State<App>) -> Response {
    Json(json!({"name": "watchkeeper", "version": app.settings.version})).into_response()
}

/// `POST /-/reload`: reads the configuration again; needs the right `admin`. A bad one changes nothing and is a 409 that says why.
async fn reload(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    caller.needs(&app, Right::Admin).await?;
    match (app.reload)().await {
        Ok(done) => Ok(Json(json!({"status": "reloaded", "detail": done})).into_response()),
        Err(why) => Err(ApiError::Conflict { code: "bad_configuration".to_owned(), detail: why }),
    }
}

fn status(fine: bool) -> StatusCode {
    if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
