//! What changes something: an act goes into the inbox, and the caller waits a bounded time for its outcome.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::act::{Act, ActOutcome, Verb};
use domain::canonical::digest;
use domain::event::{Delivery, NewEvent};
use domain::id::uuid_at;
use serde_json::json;

use super::Caller;
use crate::error::ApiError;
use crate::gateway::App;
use crate::ingest::accept;

/// The source of acts that come by the API.
const SOURCE: &str = "api";
/// Longest `Idempotency-Key`, in bytes.
const MAX_KEY: usize = 255;
/// Codes of outcomes that mean "you may not", rather than "not now".
const FORBIDDEN: [&str; 9] =
    ["barred", "not_linked", "no_right", "no_role", "not_human", "requester", "excluded", "token_scope", "forbidden"];

/// Stores the act, waits for its outcome, and answers: 200 done, 403 or 409 refused, 202 not known in time.
///
/// With an `Idempotency-Key` a repeated call meets the first one's act and gets its outcome. The key belongs to its caller and to what was
/// asked for: the same key with another request is another act.
pub(crate) async fn act(app: &App, caller: &Caller, headers: &HeaderMap, verb: Verb) -> Result<Response, ApiError> {
    caller.scope_allows(app, verb.right()).await?;
    let now = app.clock.now();
    let unique = match key(headers)? {
        Some(key) => format!("key/{key}/{}", digest(&verb)),
        None => format!("once/{}", uuid_at(now)),
    };
    let identity = format!("{}/{unique}", caller.principal.name);
    let act = Act { actor: caller.identity(), verb, button: None, place: None, reply: None };
    let event = NewEvent::act(SOURCE, &identity, act);
    let delivery = Delivery { source: SOURCE.to_owned(), events: vec![event], raw: Bytes::new(), received_at: now };
    let seq = accept(app, delivery).await?.seqs.first().copied().unwrap_or_default();
    match app.inbox.outcome(seq, app.settings.limits.outcome_time).await {
        Ok(Some(outcome)) => told(&outcome),
        Ok(None) => Ok(pending(seq)),
        Err(error) => {
            tracing::warn!(%error, "an act is stored, its outcome could not be asked for");
            Ok(pending(seq))
        }
    }
}

fn told(outcome: &ActOutcome) -> Result<Response, ApiError> {
    let (code, detail) = (outcome.code.clone(), outcome.text.clone());
    if outcome.done {
        let mut body = json!({"done": true, "code": code, "text": detail});
        if let Some(run) = outcome.run {
            body["run"] = json!(run);
        }
        return Ok(Json(body).into_response());
    }
    match code.as_str() {
        known if FORBIDDEN.contains(&known) => Err(ApiError::Forbidden { code, detail }),
        _ => Err(ApiError::Conflict { code, detail }),
    }
}

/// It is stored and will happen; the caller can look at the events from `seq` on.
fn pending(seq: i64) -> Response {
    let body = json!({"done": false, "code": "pending", "text": "Recorded. Its outcome is not known yet.", "seq": seq});
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let fine = |key: &&str| !key.is_empty() && key.len() <= MAX_KEY;
    value
        .to_str()
        .ok()
        .filter(fine)
        .map(Some)
        .ok_or_else(|| ApiError::Invalid("`Idempotency-Key` takes 1 to 255 visible characters.".to_owned()))
}
