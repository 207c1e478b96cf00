//! `/api/v1/automation`: the switch that stops all automation.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use domain::act::{PAUSED_FLAG, Verb};
use domain::permission::Right;
use serde::Deserialize;
use serde_json::{Value, json};

use super::acts::act;
use super::input::Body;
use super::{Caller, ask};
use crate::error::ApiError;
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/automation", get(show).post(switch))
}

/// `GET /automation`: what the switch says, or null if nobody ever touched it.
async fn show(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let flag = ask(&app, async { app.store.read().await?.flag(PAUSED_FLAG).await }).await?;
    Ok(Json(json!({"automation": flag})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    paused: bool,
    #[serde(default)]
    reason: String,
}

/// `POST /automation` with `{paused, reason}`; stopping needs its reason.
async fn switch(State(app): State<App>, caller: Caller, headers: HeaderMap, Body(asked): Body<Wanted>) -> Result<Response, ApiError> {
    if asked.paused && asked.reason.trim().is_empty() {
        return Err(ApiError::Invalid("Stopping the automation needs a `reason`: people will ask.".to_owned()));
    }
    let reason = domain::text::escape_nul(&asked.reason).into_owned();
    act(&app, &caller, &headers, Verb::Pause { paused: asked.paused, reason }).await
}
