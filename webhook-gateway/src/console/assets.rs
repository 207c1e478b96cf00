//! The style sheet and the scripts, inside the binary.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::gateway::App;

const STYLE: &str = include_str!("assets/style.css");
const LIVE: &str = include_str!("assets/live.js");
/// idiomorph 0.8.0 (0BSD): changes a page into a newer one without losing what a person is typing.
const MORPH: &str = include_str!("assets/idiomorph.min.js");
const ICON: &str = include_str!("assets/icon.svg");

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/assets/style.css", get(async || asset(CSS, STYLE)))
        .route("/assets/live.js", get(async || asset(JS, LIVE)))
        .route("/assets/idiomorph.js", get(async || asset(JS, MORPH)))
        .route("/assets/icon.svg", get(async || asset("image/svg+xml", ICON)))
}

fn asset(kind: &'static str, body: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=300")], body)
}
