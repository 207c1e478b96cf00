//! The agents: who is there, of which version, on which host, for which targets, and what is not as it should be.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use domain::announcement::AgentSeen;
use jiff::Timestamp;
use maud::{Markup, html};

use super::layout::page;
use super::session::Viewer;
use super::words::{ago, badge};
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/agents", get(list))
}

async fn list(State(app): State<App>, viewer: Viewer) -> Response {
    let agents = app.agents.as_ref().map_or_else(Vec::new, |agents| agents.seen());
    let now = app.clock.now();
    let main = html! {
        h1 { "Agents" }
        @if agents.is_empty() { div.panel.empty { p { "No agents are configured: every step is carried out by the server itself." } } }
        @else {
            div.panel {
                table {
                    thead { tr { th { "Agent" } th { "State" } th.wide { "Version and host" } th.wide { "Targets" } th { "Heard of" } } }
                    tbody { @for agent in &agents { (line(agent, now)) } }
                }
            }
        }
    };
    page(&viewer, "/agents", "Agents", &main)
}

fn line(agent: &AgentSeen, now: Timestamp) -> Markup {
    let announced = agent.announced.as_ref();
    html! {
        tr {
            td.title { (agent.name) @for warning in &agent.warnings { div.soft.small { (warning) } } }
            td { (badge(state(agent))) }
            td.wide { @if let Some(announced) = announced { (announced.version) div.soft.small { (announced.host) } } }
            td.wide { @if let Some(announced) = announced { (announced.targets.iter().map(String::as_str).collect::<Vec<_>>().join(", ")) } }
            td.num { @if let Some(at) = agent.heard_at { (ago(at, now)) } @else { "never" } }
        }
    }
}

fn state(agent: &AgentSeen) -> &'static str {
    match (agent.here, agent.warnings.is_empty()) {
        (false, _) => "away",
        (true, true) => "here",
        (true, false) => "look",
    }
}
