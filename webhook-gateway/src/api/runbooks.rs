//! `/api/v1/runbooks`: what can be run, and asking for a run.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::act::Verb;
use domain::permission::Right;
use domain::rules::{ParamSpec, ParamType, Runbook};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::acts::act;
use super::input::{Body, Named};
use super::{Caller, incidents};
use crate::error::ApiError;
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/runbooks", get(list)).route("/runbooks/{name}/runs", post(run))
}

/// `GET /runbooks`: those of the rule set in force, by name.
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let rules = app.rules.load();
    let items: Vec<Value> = rules.runbooks.values().map(view).collect();
    Ok(Json(json!({"items": items, "rule_set": rules.digest})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// For which incident, by number.
    incident: Option<i64>,
    #[serde(default)]
    params: Map<String, Value>,
}

/// `POST /runbooks/{name}/runs` with `{incident?, params?}`. Whether it runs, waits for an approval or is refused is the outcome's to say.
async fn run(
    State(app): State<App>,
    caller: Caller,
    Named(runbook): Named<String>,
    headers: HeaderMap,
    Body(Wanted { incident, params }): Body<Wanted>,
) -> Result<Response, ApiError> {
    if !app.rules.load().runbooks.contains_key(&runbook) {
        return Err(ApiError::NotFound("runbook"));
    }
    let incident = match incident {
        Some(number) => Some(incidents::of(&app, number).await?.id),
        None => None,
    };
    act(&app, &caller, &headers, Verb::Run { incident, runbook, params }).await
}

fn view(runbook: &Runbook) -> Value {
    let params: Map<String, Value> = runbook.params.iter().map(|(name, spec)| (name.clone(), param(spec))).collect();
    let steps: Vec<Value> = runbook.steps.iter().map(|step| json!({"id": step.id, "uses": step.uses})).collect();
    json!({
        "name": runbook.name,
        "about": runbook.about,
        "params": params,
        "steps": steps,
        "verify": runbook.verify.as_ref().map(|verify| &verify.step.uses),
        "approval": runbook.approval,
        "guards": runbook.guards,
    })
}

fn param(spec: &ParamSpec) -> Value {
    let mut kind = match &spec.kind {
        ParamType::Target(kinds) => json!({"type": "target", "kinds": kinds}),
        ParamType::Text { max, pattern } => json!({"type": "text", "max": max, "pattern": pattern}),
        ParamType::Choice(choices) => json!({"type": "choice", "choices": choices}),
        ParamType::Integer { min, max } => json!({"type": "integer", "min": min, "max": max}),
        ParamType::Boolean => json!({"type": "boolean"}),
        ParamType::Duration => json!({"type": "duration"}),
    };
    kind["default"] = json!(spec.default);
    kind["about"] = json!(spec.about);
    kind
}
