//! `/api/v1/approvals`: what waits for a decision, and deciding.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::act::Verb;
use domain::id::ApprovalId;
use domain::permission::Right;
use serde::Deserialize;
use serde_json::{Value, json};

use super::acts::act;
use super::input::{Asked, Body, Named, page};
use super::{Caller, ask};
use crate::error::ApiError;
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/approvals", get(list)).route("/approvals/{id}", get(show)).route("/approvals/{id}/decision", post(decide))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    limit: Option<i64>,
}

/// `GET /approvals`: the pending ones, as `{items}`.
async fn list(State(app): State<App>, caller: Caller, Asked(asked): Asked<Filter>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let items = ask(&app, async { app.store.read().await?.pending_approvals(page(asked.limit)).await }).await?;
    Ok(Json(json!({"items": items})))
}

/// `GET /approvals/{id}`: the request and the plan that it is for.
async fn show(State(app): State<App>, caller: Caller, Named(id): Named<ApprovalId>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let found = ask(&app, async {
        let mut tx = app.store.read().await?;
        let Some(approval) = tx.approval(id).await? else { return Ok(None) };
        let run = tx.run(approval.run).await?;
        Ok(Some(json!({"approval": approval, "run": run})))
    });
    found.await?.map(Json).ok_or(ApiError::NotFound("approval"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    decision: Word,
    #[serde(default)]
    reason: String,
    /// The digest of the plan that the caller has seen: another one refuses the decision.
    plan_digest: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Approve,
    Deny,
}

/// `POST /approvals/{id}/decision` with `{decision: approve|deny, reason?, plan_digest?}`; a denial needs its reason.
async fn decide(
    State(app): State<App>,
    caller: Caller,
    Named(id): Named<ApprovalId>,
    headers: HeaderMap,
    Body(asked): Body<Decision>,
) -> Result<Response, ApiError> {
    let found = ask(&app, async { app.store.read().await?.approval(id).await }).await?;
    let approval = found.ok_or(ApiError::NotFound("approval"))?;
    // An approval is for one plan as long as it lives, so this cannot become untrue before the act is handled.
    if asked.plan_digest.is_some_and(|seen| seen != approval.plan_digest) {
        let detail = "The plan is not the one that you have seen. Look at it again and decide then.".to_owned();
        return Err(ApiError::Conflict { code: "superseded".to_owned(), detail });
    }
    let verb = match asked.decision {
        Word::Approve => Verb::Approve { approval: id },
        Word::Deny if asked.reason.trim().is_empty() => {
            return Err(ApiError::Invalid("A denial needs a `reason`: people will ask.".to_owned()));
        }
        Word::Deny => Verb::Deny { approval: id, reason: domain::text::escape_nul(&asked.reason).into_owned() },
    };
    act(&app, &caller, &headers, verb).await
}
