//! `/api/v1/stream`: tells over server-sent events which incidents changed and which runs print. A hint to look again, never the content.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use domain::permission::Right;
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use store::Change;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Caller;
use crate::error::ApiError;
use crate::gateway::App;

/// A comment this often tells both sides that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A stream ends after this long, so that a withdrawn right takes effect; the browser connects again by itself.
const LIFE: Duration = Duration::from_secs(15 * 60);

pub(super) fn routes() -> Router<App> {
    Router::new().route("/stream", get(listen))
}

/// `GET /stream`: `event: incident` with `{"id": …}` for each incident that changed, `event: printed` with
/// `{"run": …}` when a step of it printed something, `event: missed` when some were not told.
async fn listen(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    caller.needs(&app, Right::View).await?;
    changes(&app)
}

/// The stream itself, for whoever has checked who asks.
///
/// # Errors
/// 503 if too many are open.
pub(crate) fn changes(app: &App) -> Result<Response, ApiError> {
    let place = app.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| ApiError::Busy { code: "too_many_streams", detail: "Too many live streams are open.".to_owned() })?;
    let stopping = app.stopping.clone().cancelled_owned();
    let events = told(app.store.changes(), place).take_until(stopping).take_until(Box::pin(tokio::time::sleep(LIFE)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn told(changes: Receiver<Change>, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((changes, place), async |(mut changes, place)| {
        loop {
            let event = match changes.recv().await {
                Ok(Change::Incident(id)) => Event::default().event("incident").data(json!({"id": id}).to_string()),
                Ok(Change::Printed(id)) => Event::default().event("printed").data(json!({"run": id}).to_string()),
                Ok(Change::Missed) | Err(RecvError::Lagged(_)) => Event::default().event("missed").data("{}"),
                Ok(_) => continue,
                Err(RecvError::Closed) => return None,
            };
            return Some((Ok(event), (changes, place)));
        }
    })
}
