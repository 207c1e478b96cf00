//! Sign in by a one-time link or a password, sign out.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use domain::audit::{AuditDecision, NewAudit};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::form::Form;
use super::layout::plain;
use super::link::LoginLinks;
use super::session::{self, Viewer, same_origin};
use super::{link, password};
use crate::api::ask;
use crate::error::ApiError;
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/login", get(show).post(by_password)).route("/login/link", post(by_link)).route("/logout", post(logout))
}

#[derive(Deserialize)]
struct Shown {
    token: Option<String>,
}

/// Looking at a link spends nothing: only the form behind it does.
async fn show(State(app): State<App>, Query(shown): Query<Shown>) -> Response {
    let links = LoginLinks::new(app.console.link_keys.clone());
    match shown.token {
        Some(token) => match links.read(&token, app.clock.now()) {
            Ok(link) => plain("Sign in", &link_form(&token, &link)),
            Err(no_link) => plain("Sign in", &password_form(Some(&no_link.to_string()))),
        },
        None => plain("Sign in", &password_form(None)),
    }
}

#[derive(Deserialize)]
struct ByLink {
    token: String,
}

async fn by_link(State(app): State<App>, headers: HeaderMap, Form(form): Form<ByLink>) -> Result<Response, ApiError> {
    if !same_origin(&app, &headers) {
        return Err(cross_site());
    }
    let links = LoginLinks::new(app.console.link_keys.clone());
    let link = match links.read(&form.token, app.clock.now()) {
        Ok(link) => link,
        Err(no_link) => return Ok(refused(&no_link.to_string())),
    };
    let fresh = ask(&app, async {
        let mut tx = app.store.begin().await?;
        let fresh = tx.use_link(&link.id, link.expires_at).await?;
        tx.commit().await?;
        Ok(fresh)
    })
    .await?;
    if !fresh {
        app.refusals.count("console", crate::auth::Refusal::Wrong);
        return Ok(refused("This sign-in link was used already. Make a new one with `watchkeeper login-link`."));
    }
    enter(&app, &link.principal, "link").await
}

#[derive(Deserialize)]
struct ByPassword {
    name: String,
    password: String,
}

async fn by_password(State(app): State<App>, headers: HeaderMap, Form(form): Form<ByPassword>) -> Result<Response, ApiError> {
    if !same_origin(&app, &headers) {
        return Err(cross_site());
    }
    let stored = ask(&app, async { app.store.read().await?.password(&form.name).await }).await?;
    if !password::is(form.password, stored).await? {
        app.refusals.count("console", crate::auth::Refusal::Wrong);
        return Ok(refused("Name or password is wrong."));
    }
    enter(&app, &form.name, "password").await
}

async fn enter(app: &App, principal: &str, how: &str) -> Result<Response, ApiError> {
    if !app.rules.load().people.principals.contains_key(principal) {
        return Ok(refused("This person is not in the configuration any more. Ask an administrator."));
    }
    let row = NewAudit {
        at: app.clock.now(),
        actor: format!("principal:{principal}"),
        action: "sign_in".to_owned(),
        object: "console".to_owned(),
        decision: AuditDecision::Allowed,
        reason: how.to_owned(),
        detail: json!({}),
    };
    ask(app, async {
        let mut tx = app.store.begin().await?;
        tx.audit(&row).await?;
        tx.commit().await
    })
    .await?;
    let cookie = session::begin(app, principal).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/incidents")).into_response())
}

#[derive(Deserialize)]
struct Csrf {
    csrf: String,
}

async fn logout(State(app): State<App>, viewer: Viewer, headers: HeaderMap, Form(form): Form<Csrf>) -> Result<Response, ApiError> {
    viewer.check_form(&app, &headers, &form.csrf)?;
    let cookie = session::end(&app, viewer.session).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

fn link_form(token: &str, link: &link::Link) -> Markup {
    html! {
        div.panel.login {
            h1 { "Sign in as " (link.principal) "?" }
            form method="post" action="/login/link" {
                input type="hidden" name="token" value=(token);
                div.buttons { button.primary type="submit" { "Sign in" } }
            }
        }
    }
}

fn password_form(problem: Option<&str>) -> Markup {
    html! {
        div.panel.login {
            h1 { "Watchkeeper" }
            @if let Some(problem) = problem { p role="alert" { (problem) } }
            form method="post" action="/login" {
                label { span { "Name" } input name="name" autocomplete="username" required autofocus; }
                label { span { "Password" } input name="password" type="password" autocomplete="current-password" required; }
                div.buttons { button.primary type="submit" { "Sign in" } }
            }
            p.soft.small { "No password yet? Run " code { "watchkeeper login-link NAME" } " where the server runs." }
        }
    }
}

fn refused(problem: &str) -> Response {
    let mut response = plain("Sign in", &password_form(Some(problem)));
    *response.status_mut() = axum::http::StatusCode::UNAUTHORIZED;
    response
}

fn cross_site() -> ApiError {
    ApiError::Forbidden { code: "cross_site".to_owned(), detail: "This form is not from this page.".to_owned() }
}
