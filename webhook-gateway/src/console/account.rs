//! One's own page: what one may do, a new password, and tokens for the API. A token's secret is shown once, on the page that answers its form.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use domain::audit::{AuditDecision, NewAudit};
use domain::id::TokenId;
use domain::permission::Right;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::json;
use store::TokenRow;

use super::form::Form;
use super::layout::{csrf, page};
use super::password;
use super::session::{self, Viewer};
use super::words::ago;
use crate::api::{ask, tokens};
use crate::error::ApiError;
use crate::gateway::App;

/// The longest life of a token, in days.
const MOST_DAYS: i64 = 366;
/// Longest name of a token, in characters.
const MAX_NAME: usize = 100;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/account", get(account))
        .route("/account/password", post(set_password))
        .route("/account/tokens", post(make_token))
        .route("/account/tokens/{id}/revoke", post(revoke_token))
}

async fn account(State(app): State<App>, viewer: Viewer) -> Result<Response, ApiError> {
    shown(&app, &viewer, None).await
}

/// The page; with a fresh token on it, if there is one.
async fn shown(app: &App, viewer: &Viewer, fresh: Option<&str>) -> Result<Response, ApiError> {
    let all = ask(app, async { app.store.read().await?.tokens().await }).await?;
    let now = app.clock.now();
    let live = |row: &TokenRow| row.revoked_at.is_none() && row.expires_at.is_none_or(|end| end > now);
    let own: Vec<TokenRow> = all.into_iter().filter(|row| row.principal == viewer.principal.name && live(row)).collect();
    let roles = viewer.principal.roles.iter().cloned().collect::<Vec<_>>().join(", ");
    let main = html! {
        h1 { (viewer.principal.name) }
        @if let Some(token) = fresh {
            div.panel.flash role="status" {
                p { "This is your token. Keep it in a file that only you can read: it is not shown again." }
                pre id="token" { (token) }
            }
        }
        div.panel { p { "Roles: " (roles) } (password_change(viewer)) }
        div.panel {
            h2 { "Tokens for the API and the command line" }
            @if own.is_empty() { p.soft { "None." } } @else { (table(viewer, &own, now)) }
            (token_form(viewer, &rights(app, viewer)))
        }
    };
    Ok(page(viewer, "/account", "Account", &main))
}

#[derive(Deserialize)]
struct NewPassword {
    csrf: String,
    password: String,
}

async fn set_password(
    State(app): State<App>,
    viewer: Viewer,
    headers: HeaderMap,
    Form(form): Form<NewPassword>,
) -> Result<Response, ApiError> {
    viewer.check_form(&app, &headers, &form.csrf)?;
    let hash = password::hash(form.password).await?;
    let name = viewer.principal.name.clone();
    let row = audit(&viewer, app.clock.now(), "password.set", "set", format!("principal:{name}"));
    // Whoever else is signed in under this name is signed out: a new password ends old sessions.
    ask(&app, async {
        let mut tx = app.store.begin().await?;
        tx.set_password(&name, &hash).await?;
        tx.delete_sessions_of(&name).await?;
        tx.audit(&row).await?;
        tx.commit().await
    })
    .await?;
    let cookie = session::begin(&app, &name).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/account")).into_response())
}

#[derive(Deserialize)]
struct NewToken {
    csrf: String,
    name: String,
    /// As text: numbers cannot be read beside flattened fields.
    days: String,
    /// `right.view=on`, one for each box that is ticked.
    #[serde(flatten)]
    boxes: BTreeMap<String, String>,
}

async fn make_token(State(app): State<App>, viewer: Viewer, headers: HeaderMap, Form(form): Form<NewToken>) -> Result<Response, ApiError> {
    viewer.check_form(&app, &headers, &form.csrf)?;
    let now = app.clock.now();
    let name = domain::text::clean_line(form.name.trim(), MAX_NAME);
    let ticked = |right: &Right| form.boxes.contains_key(&format!("right.{}", word(*right)));
    let rights: BTreeSet<Right> = rights(&app, &viewer).into_iter().filter(ticked).collect();
    if name.is_empty() || rights.is_empty() {
        return Err(ApiError::Invalid("A token needs a name and at least one right.".to_owned()));
    }
    let days: i64 = form.days.trim().parse().map_err(|_| ApiError::Invalid("Days are a whole number.".to_owned()))?;
    let expires_at = now + SignedDuration::from_hours(24 * days.clamp(1, MOST_DAYS));
    let order = tokens::Order { principal: viewer.principal.name.clone(), name, rights, expires_at };
    let token = tokens::make(&app, &order, audit(&viewer, now, "token.create", "created", String::new())).await?;
    shown(&app, &viewer, Some(token.reveal().expose_secret())).await
}

#[derive(Deserialize)]
struct Csrf {
    csrf: String,
}

async fn revoke_token(
    State(app): State<App>,
    viewer: Viewer,
    Path(id): Path<TokenId>,
    headers: HeaderMap,
    Form(form): Form<Csrf>,
) -> Result<Response, ApiError> {
    viewer.check_form(&app, &headers, &form.csrf)?;
    let found = ask(&app, async { app.store.read().await?.token(id).await }).await?;
    if found.is_some_and(|row| row.principal == viewer.principal.name) {
        let audit = audit(&viewer, app.clock.now(), "token.revoke", "revoked", format!("token:{id}"));
        tokens::end_of_life(&app, id, &audit).await?;
    }
    Ok(Redirect::to("/account").into_response())
}

fn audit(viewer: &Viewer, at: Timestamp, action: &str, reason: &str, object: String) -> NewAudit {
    let actor = format!("principal:{}", viewer.principal.name);
    let (action, reason) = (action.to_owned(), reason.to_owned());
    NewAudit { at, actor, action, object, decision: AuditDecision::Allowed, reason, detail: json!({ "by": "console" }) }
}

/// What the person may, and so a token of theirs at most.
fn rights(app: &App, viewer: &Viewer) -> Vec<Right> {
    let rules = app.rules.load();
    Right::ALL.into_iter().filter(|right| rules.people.has(&viewer.principal, *right)).collect()
}

/// A right as it is written in the configuration and in the API.
fn word(right: Right) -> String {
    json!(right).as_str().unwrap_or_default().to_owned()
}

fn table(viewer: &Viewer, own: &[TokenRow], now: Timestamp) -> Markup {
    html! {
        table {
            thead { tr { th { "Name" } th { "Rights" } th { "Used" } th { "Ends" } th {} } }
            tbody {
                @for row in own {
                    tr {
                        td.title { (row.name) }
                        td { (row.rights.iter().map(|right| word(*right)).collect::<Vec<_>>().join(", ")) }
                        td.num { @match row.last_used { Some(at) => (ago(at, now)), None => "never" } }
                        td.num { @if let Some(end) = row.expires_at { (ago(end, now)) } }
                        td {
                            form method="post" action={ "/account/tokens/" (row.id) "/revoke" } {
                                (csrf(viewer))
                                button.danger type="submit" { "Revoke" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn token_form(viewer: &Viewer, rights: &[Right]) -> Markup {
    html! {
        form method="post" action="/account/tokens" {
            (csrf(viewer))
            label { span { "Name" } input name="name" maxlength=(MAX_NAME) placeholder="what it is for" required; }
            label { span { "Days until it ends" } input name="days" type="number" min="1" max=(MOST_DAYS) value="90" required; }
            fieldset {
                legend { "It may" }
                @for right in rights {
                    label.tick { input type="checkbox" name={ "right." (word(*right)) }; " " (word(*right)) }
                }
            }
            div.buttons { button.primary type="submit" { "Make a token" } }
        }
    }
}

fn password_change(viewer: &Viewer) -> Markup {
    html! {
        form method="post" action="/account/password" {
            (csrf(viewer))
            label {
                span { "New password, " (password::SHORTEST) " characters or more" }
                input name="password" type="password" autocomplete="new-password" minlength=(password::SHORTEST) required;
            }
            div.buttons { button.primary type="submit" { "Set password" } }
        }
    }
}
