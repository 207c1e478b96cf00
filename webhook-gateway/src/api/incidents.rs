//! `/api/v1/incidents`: list, look, read the timeline, and act.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::act::Verb;
use domain::id::IncidentId;
use domain::incident::Incident;
use domain::permission::Right;
use serde::Deserialize;
use serde_json::{Value, json};
use store::IncidentFilter;

use super::acts::act;
use super::input::{Asked, Body, Named, page};
use super::{Caller, ask};
use crate::error::ApiError;
use crate::gateway::App;

/// Entries of a timeline, and alerts of an incident, that one answer holds.
const DETAILS: i64 = 500;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/incidents", get(list))
        .route("/incidents/{number}", get(show))
        .route("/incidents/{number}/timeline", get(timeline))
        .route("/incidents/{number}/note", post(note))
        .route("/incidents/{number}/{verb}", post(change))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    /// Open ones only.
    #[serde(default)]
    open: bool,
    /// Number or title begins with this.
    prefix: Option<String>,
    /// The `next` of the page before.
    cursor: Option<i64>,
    limit: Option<i64>,
}

/// `GET /incidents?open=&prefix=&cursor=&limit=`: newest first, as `{items, next}`; `next` is null on the last page.
async fn list(State(app): State<App>, caller: Caller, Asked(asked): Asked<Filter>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let limit = page(asked.limit);
    let filter = IncidentFilter { open_only: asked.open, prefix: asked.prefix, before: asked.cursor, limit };
    let items = ask(&app, async { app.store.read().await?.incidents(&filter).await }).await?;
    let next = items.last().filter(|_| items.len() as i64 == limit).map(|incident| incident.number);
    Ok(Json(json!({"items": items, "next": next})))
}

/// `GET /incidents/{number}`: the incident with its first alerts and its runs.
async fn show(State(app): State<App>, caller: Caller, Named(number): Named<i64>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let found = ask(&app, async {
        let mut tx = app.store.read().await?;
        let Some(incident) = tx.incident_by_number(number).await? else { return Ok(None) };
        let alerts = tx.incident_alerts(incident.id, DETAILS).await?;
        let runs = tx.runs_of(incident.id).await?;
        Ok(Some(json!({"incident": incident, "alerts": alerts, "runs": runs})))
    });
    found.await?.map(Json).ok_or(ApiError::NotFound("incident"))
}

/// `GET /incidents/{number}/timeline`: its last 500 entries, each with its place.
async fn timeline(State(app): State<App>, caller: Caller, Named(number): Named<i64>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let found = ask(&app, async {
        let mut tx = app.store.read().await?;
        let Some(incident) = tx.incident_by_number(number).await? else { return Ok(None) };
        Ok(Some(tx.timeline(incident.id, DETAILS).await?))
    });
    let entries = found.await?.ok_or(ApiError::NotFound("incident"))?;
    let items: Vec<Value> = entries.iter().map(|(seq, entry)| json!({"seq": seq, "entry": entry})).collect();
    Ok(Json(json!({"items": items})))
}

/// `POST /incidents/{number}/{ack|unack|resolve|reopen|close}`.
async fn change(
    State(app): State<App>,
    caller: Caller,
    Named((number, verb)): Named<(i64, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let verb: fn(IncidentId) -> Verb = match verb.as_str() {
        "ack" => |incident| Verb::Acknowledge { incident },
        "unack" => |incident| Verb::Unacknowledge { incident },
        "resolve" => |incident| Verb::Resolve { incident },
        "reopen" => |incident| Verb::Reopen { incident },
        "close" => |incident| Verb::Close { incident },
        _ => return Err(ApiError::NotFound("path")),
    };
    let incident = of(&app, number).await?;
    act(&app, &caller, &headers, verb(incident.id)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
}

/// `POST /incidents/{number}/note` with `{text}`.
async fn note(
    State(app): State<App>,
    caller: Caller,
    Named(number): Named<i64>,
    headers: HeaderMap,
    Body(Note { text }): Body<Note>,
) -> Result<Response, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::Invalid("`text` is empty: say something.".to_owned()));
    }
    let incident = of(&app, number).await?;
    act(&app, &caller, &headers, Verb::Note { incident: incident.id, text: domain::text::escape_nul(&text).into_owned() }).await
}

/// The incident of this number.
pub(super) async fn of(app: &App, number: i64) -> Result<Incident, ApiError> {
    let found = ask(app, async { app.store.read().await?.incident_by_number(number).await }).await?;
    found.ok_or(ApiError::NotFound("incident"))
}
