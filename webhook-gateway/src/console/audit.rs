//! The audit log for those with the right to read it: newest first, with what is sealed, and each row on the page checked as it is drawn.

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use domain::audit::{AuditDecision, AuditRow, NewAudit, Seal, Unreadable};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use store::AuditFilter;

use super::layout::page;
use super::session::Viewer;
use super::words::{ago, badge};
use crate::api::ask;
use crate::error::ApiError;
use crate::gateway::App;

/// Rows on one page.
const PAGE: i64 = 100;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/audit", get(list))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Filter {
    before: i64,
    actor: String,
    action: String,
    object: String,
}

/// A row with whether its keyed hash fits, if it can be read.
type Row = Result<(AuditRow, bool), Unreadable>;

/// What the page shows.
struct Seen {
    rows: Vec<Row>,
    seal: Option<Seal>,
    waiting: usize,
}

async fn list(State(app): State<App>, viewer: Viewer, Query(filter): Query<Filter>) -> Result<Response, ApiError> {
    if !viewer.may_audit {
        return Err(refuse(&app, &viewer).await?);
    }
    let wanted = AuditFilter {
        before: filter.before,
        actor: filter.actor.trim().to_owned(),
        action: filter.action.clone(),
        object: filter.object.clone(),
        limit: PAGE,
    };
    let seen = ask(&app, async {
        let mut tx = app.store.read().await?;
        let rows = tx.newest_audit(&wanted).await?;
        let check = |row: Result<AuditRow, Unreadable>| match row {
            Ok(row) => app.store.audit_intact(&row).map(|intact| Ok((row, intact))),
            Err(row) => Ok(Err(row)),
        };
        let rows = rows.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
        Ok(Seen { rows, seal: tx.last_seal().await?, waiting: tx.audit_waiting(0, PAGE).await?.len() })
    })
    .await?;
    let now = app.clock.now();
    let main = html! {
        h1 { "Audit log" }
        (state(&seen, now))
        div.panel { (form(&filter)) }
        (table(&seen.rows, now))
        @if seen.rows.len() as i64 == PAGE {
            @if let Some(last) = seen.rows.last().map(seq) {
                form method="get" action="/audit" {
                    @for (name, value) in [("actor", &filter.actor), ("action", &filter.action), ("object", &filter.object)] {
                        input type="hidden" name=(name) value=(value);
                    }
                    input type="hidden" name="before" value=(last);
                    button type="submit" { "Older" }
                }
            }
        }
    };
    Ok(page(&viewer, "/audit", "Audit log", &main))
}

fn state(seen: &Seen, now: Timestamp) -> Markup {
    let wrong = seen.rows.iter().filter(|row| !matches!(row, Ok((_, true)))).count();
    html! {
        @if wrong > 0 {
            div.panel.flash.refused role="alert" {
                b { (wrong) " rows on this page are not what was written. " }
                "Somebody changed them in the database, or the audit key is another one. Run " code { "watchkeeper audit verify" } " where the server runs."
            }
        }
        div.panel {
            @match &seen.seal {
                Some(seal) => {
                    p { "Sealed up to row " b { (seal.seq) } ", " (seal.rows) " rows in " (seal.batch) " batches, " (ago(seal.at, now)) "." }
                    p.soft.small { "The chain ends with " code { (seal.hash) } }
                }
                None => p { "Nothing is sealed yet." }
            }
            p.soft.small {
                @if seen.waiting > 0 { (seen.waiting) @if seen.waiting as i64 == PAGE { " or more" } " rows wait to be sealed. " }
                "The rows on this page were checked by their keyed hashes. " code { "watchkeeper audit verify" } " follows the whole chain."
            }
        }
    }
}

fn form(filter: &Filter) -> Markup {
    html! {
        form.filter method="get" action="/audit" {
            input name="actor" value=(filter.actor) placeholder="Who: ann, system" aria-label="Who";
            input name="action" value=(filter.action) placeholder="What: approve" aria-label="What";
            input name="object" value=(filter.object) placeholder="About: run:…" aria-label="About what";
            button type="submit" { "Show" }
        }
    }
}

fn seq(row: &Row) -> i64 {
    row.as_ref().map_or_else(|row| row.seq, |(row, _)| row.seq)
}

fn table(rows: &[Row], now: Timestamp) -> Markup {
    if rows.is_empty() {
        return html! { div.panel.empty { p { "No row fits." } } };
    }
    html! {
        div.panel {
            table {
                thead { tr { th { "#" } th { "When" } th { "Who" } th { "What" } th.wide { "About" } th { "Outcome" } th.wide { "Seal" } } }
                tbody {
                    @for row in rows {
                        @match row {
                            Ok((row, intact)) => (line(row, *intact, now)),
                            Err(row) => tr id={ "audit-" (row.seq) } {
                                td.num { (row.seq) }
                                td colspan="6" { (badge("failed")) " It cannot be read: " (row.why) }
                            },
                        }
                    }
                }
            }
        }
    }
}

fn line(AuditRow { seq, row, batch, .. }: &AuditRow, intact: bool, now: Timestamp) -> Markup {
    let run = row.object.strip_prefix("run:");
    html! {
        tr id={ "audit-" (seq) } {
            td.num { (seq) }
            td.num { (ago(row.at, now)) }
            td.word { (row.actor.strip_prefix("principal:").unwrap_or(&row.actor)) }
            td.word {
                (row.action)
                @if row.detail.as_object().is_some_and(|detail| !detail.is_empty()) { details { summary.soft.small { "details" } pre { (pretty(row)) } } }
            }
            td.title.wide.small { @if let Some(id) = run { a href={ "/runs/" (id) } { (row.object) } } @else { (row.object) } }
            td {
                @match row.decision {
                    AuditDecision::Allowed => (row.reason),
                    AuditDecision::Refused => { (badge("refused")) div.soft.small { (row.reason) } }
                }
            }
            td.num.wide.small {
                @if !intact { (badge("failed")) " changed" }
                @else { @match batch { Some(batch) => { "batch " (batch) } None => span.soft { "waits" } } }
            }
        }
    }
}

fn pretty(row: &NewAudit) -> String {
    serde_json::to_string_pretty(&row.detail).unwrap_or_default()
}

/// A person who may look, and not at this: they are known, so it is written down.
async fn refuse(app: &App, viewer: &Viewer) -> Result<ApiError, ApiError> {
    let row = NewAudit {
        at: app.clock.now(),
        actor: format!("principal:{}", viewer.principal.name),
        action: "GET /audit".to_owned(),
        object: "console".to_owned(),
        decision: AuditDecision::Refused,
        reason: "no_right".to_owned(),
        detail: json!({}),
    };
    ask(app, async {
        let mut tx = app.store.begin().await?;
        tx.audit(&row).await?;
        tx.commit().await
    })
    .await?;
    let detail = format!("{} may not read the audit log: it takes a role with the right `audit`.", viewer.principal.name);
    Ok(ApiError::Forbidden { code: "no_right".to_owned(), detail })
}
