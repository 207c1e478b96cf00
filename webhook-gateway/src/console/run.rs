//! Runs: the list, and one with its plan, its request for approval and its journal.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use domain::approval::{Approval, ApprovalState};
use domain::card::ButtonKind;
use domain::composing::plan_lines;
use domain::id::RunId;
use domain::run::{Attempt, AttemptState, Run, RunState, Settlement};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use store::{RunFilter, Seen};

use super::acts;
use super::layout::{csrf, page};
use super::session::Viewer;
use super::words::{ago, badge, clock};
use crate::api::ask;
use crate::api::runs::live;
use crate::error::ApiError;
use crate::gateway::App;

/// Runs on one page.
const PAGE: i64 = 50;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/runs", get(list)).route("/runs/{id}", get(show))
}

#[derive(Deserialize)]
struct Asked {
    before: Option<RunId>,
    done: Option<i64>,
}

async fn list(State(app): State<App>, viewer: Viewer, Query(asked): Query<Asked>) -> Result<Response, ApiError> {
    let filter = RunFilter { active_only: false, runbook: None, before: asked.before, limit: PAGE };
    let runs = ask(&app, async { app.store.read().await?.runs(&filter).await }).await?;
    let now = app.clock.now();
    let main = html! {
        h1 { "Runs" }
        @if runs.is_empty() { div.panel.empty { p { "Nothing has run yet." } } }
        @else {
            div.panel {
                table {
                    thead { tr { th { "Runbook" } th { "State" } th.wide { "Asked for by" } th { "When" } } }
                    tbody { @for run in &runs { (line(run, now)) } }
                }
            }
            @if runs.len() as i64 == PAGE { @if let Some(last) = runs.last() { p { a href={ "/runs?before=" (last.id) } { "Older" } } } }
        }
    };
    Ok(page(&viewer, "/runs", "Runs", &main))
}

fn line(run: &Run, now: Timestamp) -> Markup {
    html! {
        tr {
            td.title { a href={ "/runs/" (run.id) } { (run.runbook) } @if let Some(reason) = &run.reason { div.soft.small { (reason) } } }
            td { (badge(run.state.as_str())) }
            td.wide { (run.requester.as_deref().unwrap_or("automation")) }
            td.num { (ago(run.created_at, now)) }
        }
    }
}

async fn show(State(app): State<App>, viewer: Viewer, Path(id): Path<RunId>, Query(asked): Query<Asked>) -> Result<Response, ApiError> {
    let found = ask(&app, async {
        let mut tx = app.store.read().await?;
        let Some(run) = tx.run(id).await? else { return Ok(None) };
        let incident = match run.incident {
            Some(id) => tx.incident(id).await?.map(|incident| incident.number),
            None => None,
        };
        let approval = tx.approval_of(id).await?;
        let attempts = tx.attempts(id).await?;
        Ok(Some((run, incident, approval, attempts)))
    })
    .await?;
    let (run, incident, approval, attempts) = found.ok_or(ApiError::NotFound("run"))?;
    let printing: Vec<Seen> = live(&app.store, &attempts).map(|(_, seen)| seen).collect();
    let now = app.clock.now();
    let main = html! {
        (acts::flash(&app, asked.done).await)
        div.panel {
            h1 { (run.runbook) " " (badge(run.state.as_str())) }
            @if let Some(reason) = &run.reason { p { (reason) } }
            p.soft.small {
                "run " code { (run.id) } " · plan " code { (run.plan_digest.chars().take(12).collect::<String>()) }
                " · asked for by " (run.requester.as_deref().unwrap_or("automation")) " " (ago(run.created_at, now))
                @if let Some(number) = incident { " · " a href={ "/incidents/" (number) } { "#" (number) } }
            }
            pre { @for line in plan_lines(&run.plan) { (line) "\n" } }
            (decide(&viewer, &run, approval.as_ref()))
        }
        div.panel data-run=(run.id) { h2 { "Journal" } (journal(&run, &attempts, &printing, app.store.instance())) }
    };
    Ok(page(&viewer, "/runs", &run.runbook, &main))
}

fn decide(viewer: &Viewer, run: &Run, approval: Option<&Approval>) -> Markup {
    let pending = approval.filter(|approval| approval.state == ApprovalState::Pending);
    let action = format!("/runs/{}/act", run.id);
    html! {
        div.buttons {
            @if let Some(approval) = pending {
                form method="post" action=(action) {
                    (csrf(viewer)) input type="hidden" name="act" value="approve"; input type="hidden" name="approval" value=(approval.id);
                    button.primary type="submit" { "Approve" }
                }
                details.ask id="ask-deny" {
                    summary { "Deny" }
                    form method="post" action=(action) {
                        (csrf(viewer)) input type="hidden" name="act" value="deny"; input type="hidden" name="approval" value=(approval.id);
                        input name="reason" placeholder="Why?" maxlength="500" required;
                        button.danger type="submit" { "Deny" }
                    }
                }
            }
            @if run.state == RunState::Unknown {
                @for how in Settlement::ALL {
                    @let kind = ButtonKind::of_settlement(how);
                    details.ask id={ "ask-" (kind.code()) } {
                        summary.calm[how != Settlement::Abort] { (how.label()) }
                        form method="post" action=(action) {
                            (csrf(viewer)) input type="hidden" name="act" value=(kind.code()); input type="hidden" name="run" value=(run.id);
                            input name="reason" placeholder=(kind.asks()) maxlength="500" required;
                            button.danger[how == Settlement::Abort] type="submit" { (how.label()) }
                        }
                    }
                }
            }
            @if run.state.is_active() && run.state != RunState::Unknown && !run.is_ending() {
                form method="post" action=(action) {
                    (csrf(viewer)) input type="hidden" name="act" value="cancel"; button type="submit" { "Cancel the run" }
                }
            }
        }
    }
}

fn journal(run: &Run, attempts: &[Attempt], live: &[Seen], here: &str) -> Markup {
    let of = |attempt: &Attempt| {
        let (index, number) = (attempt.index, attempt.attempt);
        live.iter().filter(move |seen| (seen.watched.index, seen.watched.attempt) == (index, number))
    };
    // What a command of another server prints is told here a moment later, or not at all if the way between is bad.
    let elsewhere = |attempt: &Attempt| {
        let step = usize::try_from(attempt.index).ok().and_then(|index| run.plan.steps.get(index))?;
        let server = &attempt.place.as_ref()?.instance;
        let told = step.target.as_ref().is_some_and(|target| target.text("agent").is_some()) || of(attempt).next().is_some();
        (attempt.state == AttemptState::Started && server != here && !told).then(|| server.clone())
    };
    html! {
        @if attempts.is_empty() { p.soft { "Nothing has been carried out yet." } }
        ol.timeline {
            @for attempt in attempts {
                li."kind-run" {
                    (clock(attempt.started_at)) " " strong { (attempt.step) } " " (badge(attempt.state.as_str()))
                    @if attempt.attempt > 1 { span.soft.small { " attempt " (attempt.attempt) } }
                    @if let Some(output) = &attempt.output {
                        div { (output.summary) }
                        @if !output.text.trim().is_empty() {
                            details id={ "out-" (attempt.index) "-" (attempt.attempt) } { summary.soft.small { "output" } pre { (output.text) } }
                        }
                    }
                    @if let Some(error) = &attempt.error { div { (error) } }
                    @if let Some(server) = elsewhere(attempt) {
                        div.soft.small { "carried out by " (server) ": what it prints is asked for there" }
                    }
                    @for seen in of(attempt) {
                        (printed(seen))
                    }
                }
            }
        }
    }
}

/// What a step under way printed last.
pub(super) fn printed(seen: &Seen) -> Markup {
    let [stdout, stderr] = &seen.shown;
    html! {
        @for (name, shown) in [("output", stdout), ("error output", stderr)] {
            @if !shown.text.is_empty() {
                div.soft.small { (name) ", " (shown.lines) @if shown.lines == 1 { " line" } @else { " lines" } " so far" }
                pre.live role="log" { span { (shown.text) } }
            }
        }
    }
}
