//! `/api/v1/audit`: the audit log, for those with the right to read it.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use domain::permission::Right;
use serde::Deserialize;
use serde_json::{Value, json};

use super::input::{Asked, page};
use super::{Caller, ask};
use crate::error::ApiError;
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/audit", get(list))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    /// Rows behind this place.
    #[serde(default)]
    after: i64,
    limit: Option<i64>,
}

/// `GET /audit?after=&limit=`: oldest first, as `{items, next}`; ask again with `after=next`.
async fn list(State(app): State<App>, caller: Caller, Asked(asked): Asked<Filter>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::Audit).await?;
    let rows = ask(&app, async { app.store.read().await?.audit_rows(asked.after, page(asked.limit)).await }).await?;
    let next = rows.last().map_or(asked.after, |row| row.seq);
    Ok(Json(json!({"items": rows, "next": next})))
}
