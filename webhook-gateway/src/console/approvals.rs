//! What waits for a decision.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use domain::approval::Approval;
use domain::composing::plan_lines;
use domain::run::Run;
use maud::html;

use super::layout::page;
use super::session::Viewer;
use super::words::ago;
use crate::api::ask;
use crate::error::ApiError;
use crate::gateway::App;

/// Requests on the page.
const MOST: i64 = 100;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/approvals", get(list))
}

async fn list(State(app): State<App>, viewer: Viewer) -> Result<Response, ApiError> {
    let waiting: Vec<(Approval, Option<Run>, Option<i64>)> = ask(&app, async {
        let mut tx = app.store.read().await?;
        let mut waiting = Vec::new();
        for approval in tx.pending_approvals(MOST).await? {
            let run = tx.run(approval.run).await?;
            let number = match approval.incident {
                Some(id) => tx.incident(id).await?.map(|incident| incident.number),
                None => None,
            };
            waiting.push((approval, run, number));
        }
        Ok(waiting)
    })
    .await?;
    let now = app.clock.now();
    let main = html! {
        h1 { "Waiting for approval" }
        @if waiting.is_empty() { div.panel.empty { p { "Nobody waits for a decision." } } }
        @for (approval, run, number) in &waiting {
            section.panel id={ "approval-" (approval.id) } {
                @if let Some(run) = run {
                    h2 { a href={ "/runs/" (run.id) } { (run.runbook) } }
                    pre { @for line in plan_lines(&run.plan) { (line) "\n" } }
                }
                p.small {
                    "asked for by " (approval.requester.as_deref().unwrap_or("automation"))
                    " " (ago(approval.created_at, now)) " · ends " (ago(approval.expires_at, now))
                    " · " (approval.missing()) " more of " (approval.policy.roles.iter().cloned().collect::<Vec<_>>().join(", "))
                }
                @if let Some(number) = number { p { a.button href={ "/incidents/" (number) } { "Decide on #" (number) } } }
                @else { @if let Some(run) = run { p { a.button href={ "/runs/" (run.id) } { "Decide" } } } }
            }
        }
    };
    Ok(page(&viewer, "/approvals", "Approvals", &main))
}
