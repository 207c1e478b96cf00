//! `/api/v1/runs`: list, look with all attempts, cancel, settle.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::act::Verb;
use domain::id::RunId;
use domain::permission::Right;
use domain::run::{Attempt, AttemptState, Settlement};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{RunFilter, Seen};

use super::acts::act;
use super::input::{Asked, Body, Named, page};
use super::{Caller, ask};
use crate::error::ApiError;
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/runs", get(list))
        .route("/runs/{id}", get(show))
        .route("/runs/{id}/cancel", post(cancel))
        .route("/runs/{id}/settle", post(settle))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    /// Only those that have not ended.
    #[serde(default)]
    active: bool,
    /// Only those of this runbook.
    runbook: Option<String>,
    /// The `next` of the page before.
    cursor: Option<RunId>,
    limit: Option<i64>,
}

/// `GET /runs?active=&runbook=&cursor=&limit=`: newest first, as `{items, next}`.
async fn list(State(app): State<App>, caller: Caller, Asked(asked): Asked<Filter>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let limit = page(asked.limit);
    let filter = RunFilter { active_only: asked.active, runbook: asked.runbook, before: asked.cursor, limit };
    let items = ask(&app, async { app.store.read().await?.runs(&filter).await }).await?;
    let next = items.last().filter(|_| items.len() as i64 == limit).map(|run| run.id);
    Ok(Json(json!({"items": items, "next": next})))
}

/// `GET /runs/{id}`: the run, its attempts and its approval; in `live` what steps under way print.
async fn show(State(app): State<App>, caller: Caller, Named(id): Named<RunId>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let found = ask(&app, async {
        let mut tx = app.store.read().await?;
        let Some(run) = tx.run(id).await? else { return Ok(None) };
        let attempts = tx.attempts(id).await?;
        let approval = tx.approval_of(id).await?;
        let live: Vec<Value> = live(&app.store, &attempts).map(|(attempt, seen)| written(attempt, &seen)).collect();
        Ok(Some(json!({"run": run, "attempts": attempts, "approval": approval, "live": live})))
    });
    found.await?.map(Json).ok_or(ApiError::NotFound("run"))
}

/// What attempts under way print.
pub(crate) fn live<'a>(store: &store::Store, attempts: &'a [Attempt]) -> impl Iterator<Item = (&'a Attempt, Seen)> {
    // Other replicas are asked for what they show of it, so only while there is something.
    let under_way = attempts.iter().find(|attempt| attempt.state == AttemptState::Started);
    let seen = under_way.map(|attempt| store.printed(attempt.run)).unwrap_or_default();
    seen.into_iter().filter_map(|seen| {
        let (index, number) = (seen.watched.index, seen.watched.attempt);
        let attempt = attempts.iter().find(|attempt| attempt.index == index && attempt.attempt == number)?;
        (attempt.state == AttemptState::Started).then_some((attempt, seen))
    })
}

fn written(attempt: &Attempt, seen: &Seen) -> Value {
    let [stdout, stderr] = &seen.shown;
    json!({"step": attempt.step, "attempt": attempt.attempt, "stdout": stdout, "stderr": stderr})
}

/// `POST /runs/{id}/cancel`.
async fn cancel(State(app): State<App>, caller: Caller, Named(run): Named<RunId>, headers: HeaderMap) -> Result<Response, ApiError> {
    ask(&app, async { app.store.read().await?.run(run).await }).await?.ok_or(ApiError::NotFound("run"))?;
    act(&app, &caller, &headers, Verb::Cancel { run }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settle {
    how: Settlement,
    #[serde(default)]
    reason: String,
}

/// `POST /runs/{id}/settle` with `{how: ran|did_not_run|again|abort, reason}`: what became of a step whose outcome nobody knew.
async fn settle(
    State(app): State<App>,
    caller: Caller,
    Named(run): Named<RunId>,
    headers: HeaderMap,
    Body(asked): Body<Settle>,
) -> Result<Response, ApiError> {
    ask(&app, async { app.store.read().await?.run(run).await }).await?.ok_or(ApiError::NotFound("run"))?;
    if asked.reason.trim().is_empty() {
        return Err(ApiError::Invalid("Say in `reason` how you know: it is kept with the decision.".to_owned()));
    }
    let reason = domain::text::escape_nul(&asked.reason).into_owned();
    act(&app, &caller, &headers, Verb::Settle { run, how: asked.how, reason }).await
}
