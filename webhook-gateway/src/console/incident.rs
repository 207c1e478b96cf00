//! One incident: its card, its runs, its timeline.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use domain::alert::Alert;
use domain::approval::Approval;
use domain::composing::{self, CARD_ALERTS, Parts};
use domain::incident::Incident;
use domain::run::Run;
use domain::timeline::Entry;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{csrf, page};
use super::run::printed;
use super::session::Viewer;
use super::words::{ago, badge, clock};
use super::{acts, card};
use crate::api::ask;
use crate::api::runs::live;
use crate::error::ApiError;
use crate::gateway::App;

/// Entries of a timeline that a page shows.
const ENTRIES: i64 = 500;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/incidents/{number}", get(show))
}

#[derive(Deserialize)]
struct Flash {
    done: Option<i64>,
}

struct Seen {
    incident: Incident,
    alerts: Vec<Alert>,
    runs: Vec<Run>,
    approval: Option<Approval>,
    timeline: Vec<(i64, Entry)>,
    /// What steps under way print.
    printed: Vec<store::Seen>,
}

async fn show(State(app): State<App>, viewer: Viewer, Path(number): Path<i64>, Query(flash): Query<Flash>) -> Result<Response, ApiError> {
    let seen = ask(&app, load(&app, number)).await?.ok_or(ApiError::NotFound("incident"))?;
    let flash = acts::flash(&app, flash.done).await;
    let rules = app.rules.load_full();
    let now = app.clock.now();
    let parts =
        Parts { rules: &rules, incident: &seen.incident, alerts: &seen.alerts, runs: &seen.runs, approval: seen.approval.as_ref(), now };
    // A browser's buttons are forms of a signed-in session: they need no token, only what they are about.
    let drawn = composing::card(parts, &|_, object| object.to_string());
    let main = html! {
        (flash)
        div.grid {
            div {
                (card::card(&viewer, &drawn, now))
                @if !seen.runs.is_empty() { (runs(&seen.runs, &seen.printed, now)) }
            }
            div.panel {
                h2 { "Timeline" }
                (timeline(&seen.timeline))
                (note(&viewer, number))
            }
        }
    };
    Ok(page(&viewer, "/incidents", &format!("#{number} {}", seen.incident.title), &main))
}

async fn load(app: &App, number: i64) -> Result<Option<Seen>, store::Error> {
    let mut tx = app.store.read().await?;
    let Some(incident) = tx.incident_by_number(number).await? else { return Ok(None) };
    let alerts = tx.incident_alerts(incident.id, CARD_ALERTS as i64).await?;
    let mut runs = tx.runs_of(incident.id).await?;
    runs.sort_by_key(|run| std::cmp::Reverse(run.rank()));
    let approval = match runs.first() {
        Some(run) => tx.approval_of(run.id).await?,
        None => None,
    };
    let timeline = tx.timeline(incident.id, ENTRIES).await?;
    let mut printed = Vec::new();
    for run in runs.iter().filter(|run| run.state.is_active()) {
        let attempts = tx.attempts(run.id).await?;
        printed.extend(live(&app.store, &attempts).map(|(_, seen)| seen));
    }
    Ok(Some(Seen { incident, alerts, runs, approval, timeline, printed }))
}

fn runs(runs: &[Run], live: &[store::Seen], now: Timestamp) -> Markup {
    html! {
        section.panel {
            h2 { "Runs" }
            table {
                tbody {
                    @for run in runs {
                        tr data-run=(run.id) {
                            td.title { a href={ "/runs/" (run.id) } { (run.runbook) } @if let Some(reason) = &run.reason { div.soft.small { (reason) } } }
                            td { (badge(run.state.as_str())) }
                            td.num { (ago(run.created_at, now)) }
                        }
                    }
                }
            }
            @for seen in live { (printed(seen)) }
        }
    }
}

fn timeline(entries: &[(i64, Entry)]) -> Markup {
    html! {
        ol.timeline {
            @for (seq, entry) in entries {
                li class={ "kind-" (entry.kind.as_str()) } id={ "entry-" (seq) } {
                    (clock(entry.at))
                    @if let Some(who) = &entry.who { span.by { " · " (who) } }
                    div { (entry.text) }
                    @if let Some(detail) = &entry.detail {
                        details id={ "detail-" (seq) } { summary.soft.small { "details" } pre { (detail) } }
                    }
                }
            }
        }
    }
}

fn note(viewer: &Viewer, number: i64) -> Markup {
    html! {
        form method="post" action={ "/incidents/" (number) "/act" } {
            (csrf(viewer))
            input type="hidden" name="act" value="note";
            textarea id="note" name="text" placeholder="Write on the timeline" aria-label="Note" maxlength="4000" required {}
            div.buttons { button type="submit" { "Add note" } }
        }
    }
}
