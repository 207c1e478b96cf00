//! `/api/v1/agents`: who carries out steps on other hosts, and what each announced.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use domain::permission::Right;
use serde_json::{Value, json};

use super::Caller;
use crate::error::ApiError;
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/agents", get(list))
}

/// `GET /agents`: all that the configuration knows, as `{items}`.
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    Ok(Json(json!({"items": app.agents.as_ref().map_or_else(Vec::new, |agents| agents.seen())})))
}
