//! `/api/v1/events`: what came in, in the order in which it was stored.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use domain::act::{Act, ReplyTo};
use domain::event::{Event, Payload};
use domain::permission::Right;
use serde::Deserialize;
use serde_json::{Value, json};

use super::input::{Asked, page};
use super::{Caller, ask};
use crate::error::ApiError;
use crate::gateway::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/events", get(list))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    /// Events behind this place.
    #[serde(default)]
    after: i64,
    limit: Option<i64>,
}

/// `GET /events?after=&limit=`: oldest first, as `{items, next}`; ask again with `after=next`.
async fn list(State(app): State<App>, caller: Caller, Asked(asked): Asked<Filter>) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let events = ask(&app, async { app.store.read().await?.events_since(asked.after, page(asked.limit)).await }).await?;
    let next = events.last().map_or(asked.after, |event| event.seq);
    let items: Vec<Value> = events.iter().map(view).collect();
    Ok(Json(json!({"items": items, "next": next})))
}

/// Tokens by which a person can be answered are no reader's business.
fn view(event: &Event) -> Value {
    let payload = match &event.payload {
        Payload::Act(act) => {
            let reply = act.reply.as_ref().map(|to| ReplyTo { platform: to.platform.clone(), token: String::new() });
            Payload::Act(Box::new(Act { reply, button: None, ..(**act).clone() }))
        }
        other => other.clone(),
    };
    json!({
        "seq": event.seq,
        "key": event.key,
        "source": event.source,
        "received_at": event.received_at,
        "last_seen": event.last_seen,
        "seen": event.seen,
        "attempts": event.attempts,
        "payload": payload,
    })
}
