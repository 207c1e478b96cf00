//! The list: what is open, what waits for a person, whether automation runs.

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use domain::act::PAUSED_FLAG;
use domain::incident::Incident;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use store::IncidentFilter;

use super::layout::{csrf, page};
use super::session::Viewer;
use super::words::{ago, badge};
use crate::api::ask;
use crate::error::ApiError;
use crate::gateway::App;

/// Incidents on one page.
const PAGE: i64 = 50;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/incidents", get(list))
}

#[derive(Deserialize)]
struct Filter {
    #[serde(default)]
    all: bool,
    before: Option<i64>,
    q: Option<String>,
}

struct Seen {
    incidents: Vec<Incident>,
    open: Vec<(String, i64)>,
    approvals: usize,
    paused: Option<Value>,
}

async fn list(State(app): State<App>, viewer: Viewer, Query(filter): Query<Filter>) -> Result<Response, ApiError> {
    let wanted =
        IncidentFilter { open_only: !filter.all, prefix: filter.q.clone().filter(|q| !q.is_empty()), before: filter.before, limit: PAGE };
    let seen = ask(&app, async {
        let mut tx = app.store.read().await?;
        Ok(Seen {
            incidents: tx.incidents(&wanted).await?,
            open: tx.count_open().await?,
            approvals: tx.pending_approvals(100).await?.len(),
            paused: tx.flag(PAUSED_FLAG).await?.filter(|flag| flag["paused"] == true),
        })
    })
    .await?;
    let now = app.clock.now();
    let main = html! {
        @if let Some(flag) = &seen.paused { (paused(&viewer, flag)) }
        (tiles(&seen))
        div.panel {
            form.filter method="get" action="/incidents" {
                input name="q" value=(filter.q.clone().unwrap_or_default()) placeholder="Number or title" aria-label="Search";
                label.soft { input type="checkbox" name="all" value="true" checked[filter.all]; " with resolved and closed ones" }
                button type="submit" { "Show" }
            }
        }
        (table(&seen.incidents, filter.all, now))
        @if seen.incidents.len() as i64 == PAGE {
            @if let Some(last) = seen.incidents.last() { p { a href={ "/incidents?all=" (filter.all) "&before=" (last.number) } { "Older" } } }
        }
    };
    Ok(page(&viewer, "/incidents", "Incidents", &main))
}

fn tiles(seen: &Seen) -> Markup {
    let total: i64 = seen.open.iter().map(|(_, count)| count).sum();
    html! {
        div.tiles {
            div.tile { b { (total) } span { "open incidents" } }
            @for (severity, count) in &seen.open { div.tile { b { (count) } span { (severity) } } }
            div.tile { b { (seen.approvals) } span { a href="/approvals" { "wait for approval" } } }
            div.tile { b { @if seen.paused.is_some() { "paused" } @else { "on" } } span { "automation" } }
        }
    }
}

fn paused(viewer: &Viewer, flag: &Value) -> Markup {
    html! {
        div.panel.banner role="status" {
            span { "Automation is paused: " (flag["reason"].as_str().unwrap_or("no reason given")) }
            form method="post" action="/automation" { (csrf(viewer)) input type="hidden" name="paused" value="false"; button type="submit" { "Resume" } }
        }
    }
}

fn table(incidents: &[Incident], all: bool, now: Timestamp) -> Markup {
    if incidents.is_empty() {
        let text = if all { "No incident fits." } else { "Nothing is open. All is quiet." };
        return html! { div.panel.empty { p { (text) } } };
    }
    html! {
        div.panel {
            table {
                thead { tr { th { "#" } th { "Severity" } th { "Incident" } th { "State" } th.wide { "Alerts" } th { "Opened" } } }
                tbody {
                    @for incident in incidents {
                        tr id={ "incident-" (incident.number) } {
                            td.num { (incident.number) }
                            td { (incident.severity_name) }
                            td.title {
                                a href={ "/incidents/" (incident.number) } { (incident.title) }
                                @if let Some(line) = &incident.automation { div.soft.small.auto { (line) } }
                            }
                            td { (badge(incident.state.as_str())) @if let Some((_, who)) = &incident.acked { div.soft.small { (who) } } }
                            td.num.wide { (incident.alerts_active) " of " (incident.alerts_total) }
                            td.num { (ago(incident.opened_at, now)) }
                        }
                    }
                }
            }
        }
    }
}
