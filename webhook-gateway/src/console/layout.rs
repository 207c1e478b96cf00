//! What every page shares: the head, the way around, the policy that lets nothing foreign in.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::session::Viewer;

/// Only our own files; no inline script or style; nobody may frame us.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// A page for somebody who is signed in.
pub(super) fn page(viewer: &Viewer, here: &str, title: &str, main: &Markup) -> Response {
    let entry = |path: &str, name: &str| {
        html! { a href=(path) aria-current=[(here == path).then_some("page")] { (name) } }
    };
    let body = html! {
        body data-live="on" {
            header.top {
                a.brand href="/incidents" { img src="/assets/icon.svg" alt=""; "Watchkeeper" }
                nav {
                    (entry("/incidents", "Incidents")) (entry("/approvals", "Approvals")) (entry("/runs", "Runs"))
                    @if viewer.agents { (entry("/agents", "Agents")) }
                    @if viewer.may_audit { (entry("/audit", "Audit")) }
                }
                div.who {
                    span #live data-state="" { "connecting" }
                    a href="/account" { (viewer.principal.name) }
                    form method="post" action="/logout" {
                        (csrf(viewer))
                        button.link type="submit" { "Sign out" }
                    }
                }
            }
            main { (main) }
        }
    };
    document(title, &body)
}

/// A page for anybody.
pub(super) fn plain(title: &str, main: &Markup) -> Response {
    document(title, &html! { body { main { (main) } } })
}

/// The hidden field that every form carries.
pub(super) fn csrf(viewer: &Viewer) -> Markup {
    html! { input type="hidden" name="csrf" value=(viewer.csrf); }
}

fn document(title: &str, body: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Watchkeeper" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/style.css";
                script src="/assets/idiomorph.js" defer {}
                script src="/assets/live.js" defer {}
            }
            (body)
        }
    };
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page.into_string())).into_response()
}
