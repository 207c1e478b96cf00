//! What the forms do: each becomes an act in the inbox, like a button in any chat, and the page shows what became of it.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use bytes::Bytes;
use domain::act::{Act, Verb};
use domain::card::ButtonKind;
use domain::event::{Delivery, NewEvent};
use domain::id::{ApprovalId, IncidentId, RunId, uuid_at};
use maud::{Markup, html};
use serde::Deserialize;

use super::form::Form;
use super::session::Viewer;
use crate::api::ask;
use crate::error::ApiError;
use crate::gateway::App;
use crate::ingest::accept;

/// The source of acts that come from here.
const SOURCE: &str = "console";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/incidents/{number}/act", post(on_incident))
        .route("/runs/{id}/act", post(on_run))
        .route("/automation", post(on_automation))
}

#[derive(Deserialize)]
struct Pressed {
    csrf: String,
    act: String,
    approval: Option<ApprovalId>,
    run: Option<RunId>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    text: String,
}

async fn on_incident(
    State(app): State<App>,
    viewer: Viewer,
    Path(number): Path<i64>,
    headers: HeaderMap,
    Form(pressed): Form<Pressed>,
) -> Result<Response, ApiError> {
    viewer.check_form(&app, &headers, &pressed.csrf)?;
    let incident = ask(&app, async { app.store.read().await?.incident_by_number(number).await }).await?;
    let incident = incident.ok_or(ApiError::NotFound("incident"))?.id;
    let verb = incident_verb(&pressed, incident)?;
    submit(&app, &viewer, verb, &format!("/incidents/{number}")).await
}

fn incident_verb(pressed: &Pressed, incident: IncidentId) -> Result<Verb, ApiError> {
    Ok(match pressed.act.as_str() {
        "ack" => Verb::Acknowledge { incident },
        "unack" => Verb::Unacknowledge { incident },
        "resolve" => Verb::Resolve { incident },
        "reopen" => Verb::Reopen { incident },
        "run" => Verb::Run { incident: Some(incident), runbook: String::new(), params: serde_json::Map::new() },
        "note" => Verb::Note { incident, text: domain::text::escape_nul(&pressed.text).into_owned() },
        _ => decision(pressed)?,
    })
}

fn decision(pressed: &Pressed) -> Result<Verb, ApiError> {
    let reason = domain::text::escape_nul(&pressed.reason).into_owned();
    let settlement = ButtonKind::ALL.into_iter().find(|kind| kind.code() == pressed.act).and_then(ButtonKind::settlement);
    match (pressed.act.as_str(), pressed.approval, settlement.zip(pressed.run)) {
        (_, _, Some((how, run))) => Ok(Verb::Settle { run, how, reason }),
        ("approve", Some(approval), _) => Ok(Verb::Approve { approval }),
        ("deny", Some(approval), _) => Ok(Verb::Deny { approval, reason }),
        _ => Err(ApiError::Invalid("This form asks for nothing that is known here.".to_owned())),
    }
}

async fn on_run(
    State(app): State<App>,
    viewer: Viewer,
    Path(run): Path<RunId>,
    headers: HeaderMap,
    Form(pressed): Form<Pressed>,
) -> Result<Response, ApiError> {
    viewer.check_form(&app, &headers, &pressed.csrf)?;
    let verb = if pressed.act == "cancel" { Verb::Cancel { run } } else { decision(&pressed)? };
    submit(&app, &viewer, verb, &format!("/runs/{run}")).await
}

#[derive(Deserialize)]
struct Switch {
    csrf: String,
    paused: bool,
    #[serde(default)]
    reason: String,
}

async fn on_automation(
    State(app): State<App>,
    viewer: Viewer,
    headers: HeaderMap,
    Form(switch): Form<Switch>,
) -> Result<Response, ApiError> {
    viewer.check_form(&app, &headers, &switch.csrf)?;
    submit(&app, &viewer, Verb::Pause { paused: switch.paused, reason: switch.reason }, "/incidents").await
}

/// Stores the act, waits for its outcome a while, and sends the browser back to where it was, which then tells.
async fn submit(app: &App, viewer: &Viewer, verb: Verb, back: &str) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let act = Act { actor: viewer.identity(), verb, button: None, place: None, reply: None };
    let event = NewEvent::act(SOURCE, &format!("{}/{}", viewer.principal.name, uuid_at(now)), act);
    let delivery = Delivery { source: SOURCE.to_owned(), events: vec![event], raw: Bytes::new(), received_at: now };
    let seq = accept(app, delivery).await?.seqs.first().copied().unwrap_or_default();
    if let Err(error) = app.inbox.outcome(seq, app.settings.limits.outcome_time).await {
        tracing::warn!(%error, "an act is stored, its outcome could not be asked for");
    }
    Ok(Redirect::to(&format!("{back}?done={seq}")).into_response())
}

/// What became of the act that a page was reached by.
pub(super) async fn flash(app: &App, seq: Option<i64>) -> Markup {
    let Some(seq) = seq else { return html! {} };
    match app.inbox.outcome(seq, Duration::ZERO).await {
        Ok(Some(outcome)) => html! {
            div.panel.flash.refused[!outcome.done] id="flash" role="status" { (outcome.text) }
        },
        Ok(None) => html! { div.panel.flash id="flash" role="status" { "Recorded. It has not been decided yet." } },
        Err(_) => html! {},
    }
}
