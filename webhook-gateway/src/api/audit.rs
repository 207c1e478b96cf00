//! `/api/v1/audit`: the audit log, for those with the right to read it.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use domain::audit::{AuditRow, Unreadable};
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

/// `GET /audit?after=&limit=`: oldest first, as `{items, next}`; ask again with `after=next`. Of a row that cannot be read it says `{seq, unreadable}`.
async fn list(State(app): State<App>, caller: Caller, Asked(asked): Asked<Filter>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::Audit).await?;
    let rows = ask(&app, async { app.store.read().await?.audit_rows(asked.after, page(asked.limit)).await }).await?;
    let item = |row: &Result<AuditRow, Unreadable>| match row {
        Ok(row) => json!(row),
        Err(row) => json!({"seq": row.seq, "unreadable": row.why}),
    };
    let items: Vec<Value> = rows.iter().map(item).collect();
    let next = items.last().map_or(json!(asked.after), |item| item["seq"].clone());
    Ok(Json(json!({"items": items, "next": next})))
}
