//! Hints that something changed, for pages that are open.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::session::Viewer;
use crate::api::stream::changes;
use crate::error::ApiError;
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/live", get(listen))
}

async fn listen(State(app): State<App>, _viewer: Viewer) -> Result<Response, ApiError> {
    changes(&app)
}
