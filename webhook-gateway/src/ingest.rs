//! The ingest routes: prove who you are, send a bounded body, and get a 2xx only when its events would survive a power loss.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use domain::event::{Delivery, NewEvent};
use domain::id::DeliveryId;
use domain::inbox::{Accepted, Inbox, InboxError, Sealed};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::{Proof, Refusal, check_body, check_headers};
use crate::body::{Bounds, Unread, discard, read};
use crate::error::ApiError;
use crate::gateway::App;
use crate::settings::{SourceSettings, SourceTable};
use crate::sources::{self, Counted, KINDS, ParseCx, ParseError, Parsed, Source};
use crate::{chat, json, own};

/// Bodies larger than this are parsed one at a time, in bytes.
const HEAVY: usize = 1024 * 1024;
/// Bodies larger than this are parsed off the request threads, in bytes: about a millisecond of work. Mappings take longer.
const LONG: usize = 256 * 1024;
const LONG_MAPPED: usize = 8 * 1024;
/// What is kept of a body that cannot be read, in bytes.
const SAMPLE: usize = 64 * 1024;
/// What is read of a refused stranger's body, so that an honest one sees the answer, in bytes.
const COURTESY: usize = 64 * 1024;

/// The routes of every kind. Each exists with and without a slash at the end: a redirect would lose the body.
pub(crate) fn routes() -> Router<App> {
    let mut router = Router::new();
    for kind in KINDS.iter().copied() {
        let named = |path: &str| format!("{path}/{{source}}");
        let mut paths = BTreeSet::from([named(&format!("/api/v1/webhooks/{}", kind.kind()))]);
        for path in kind.short_paths() {
            paths.extend([(*path).to_owned(), named(path)]);
        }
        for path in paths {
            let handler = async move |State(app): State<App>, source: Option<Path<String>>, request: Request| {
                let name = source.as_ref().map_or(kind.kind(), |Path(name)| name.as_str());
                receive(&app, kind, name, request).await
            };
            router = router.route(&format!("{path}/"), post(handler)).route(&path, post(handler));
        }
    }
    router
}

/// `POST /api/v1/webhooks/{kind}/{source}`: 200 with `{"status": "accepted", "events": n, "repeats": m}`, without the repeats where so much comes in that they
/// are found out later.
async fn receive(app: &App, kind: &'static dyn Source, name: &str, request: Request) -> Result<Json<Value>, ApiError> {
    let began = Instant::now();
    let received_at = app.clock.now();
    let (parts, body) = request.into_parts();
    let table = app.settings.sources.load_full();
    let source = table.get(name).filter(|source| source.kind.kind() == kind.kind());
    let label = if source.is_some() { name } else { "unknown" };

    let auth = source.map(|source| &source.auth);
    let proof = match check_headers(auth, &parts.headers) {
        Ok(proof) => proof,
        Err(why) => {
            discard(&parts.headers, body, COURTESY);
            return Err(refused(app, label, why));
        }
    };
    let bytes = match read(&parts.headers, body, &bounds(app, kind, &proof)).await {
        Ok(bytes) => bytes,
        Err(unread) => return Err(not_read(app, label, &proof, unread).await),
    };
    if let Proof::Body(signed) = &proof {
        check_body(auth, signed, &bytes, received_at).map_err(|why| refused(app, label, why))?;
    }
    // Nobody has the secrets of a source that does not exist.
    let source = source.ok_or_else(|| refused(app, label, Refusal::Wrong))?;

    let heavy = bytes.len() > HEAVY;
    let _turn = if heavy { Some(turn(app).await.ok_or_else(|| reject(label, Unread::NoRoom))?) } else { None };
    let reading = Reading { table: &table, name, source, parts: &parts, bytes: &bytes, received_at };
    let in_rush = source.map.is_none() && app.intake.wants_sealed(1);
    let read = if in_rush { reading.by(Read::count).await } else { reading.by(Read::parse).await };
    let read = match read {
        Ok(read) => read,
        Err(error) => return Err(unparsable(app, name, &bytes, received_at, &error).await),
    };
    let Counted { sightings: events, left_out: missing } = read.counted();
    let accepted = if source.map.is_none() && events > 0 && app.intake.wants_sealed(events) {
        // It was read so that bad input is refused; it is read again when it is its turn.
        left_out(name, missing);
        let id = own_id(&proof, &bytes);
        let sealed = Sealed { source: name.to_owned(), kind: kind.kind(), id, events, raw: bytes, received_at };
        within(app, events, app.intake.accept_sealed(sealed)).await
    } else {
        let parsed = match read {
            Read::All(parsed) => parsed,
            // The rush is over since it was counted.
            Read::Count(_) => match reading.by(|kind, cx, body| kind.parse(cx, body)).await {
                Ok(parsed) => parsed,
                Err(error) => return Err(unparsable(app, name, &bytes, received_at, &error).await),
            },
        };
        let delivery = delivery(app, name, &proof, parsed, bytes, received_at);
        accept_in(app, &*app.intake, delivery).await
    };
    let repeats = accepted.inspect_err(|_| rejected(name, "store"))?.repeats;

    let labels = [("source", name.to_owned())];
    metrics::counter!("watchkeeper_events_received_total", &labels).increment(events as u64);
    metrics::histogram!("watchkeeper_ingest_duration_seconds", &labels).record(began.elapsed());
    let mut answer = json!({"status": "accepted", "events": events});
    if let Some(repeats) = repeats {
        answer["repeats"] = repeats.into();
    }
    Ok(Json(answer))
}

fn bounds<'a>(app: &'a App, kind: &dyn Source, proof: &Proof) -> Bounds<'a> {
    let limits = &app.settings.limits;
    let limit = kind.body_limit(limits);
    match proof {
        Proof::Given => Bounds { limit, within: limits.body_time, budget: &app.proven, proven: true },
        Proof::Body(_) => Bounds { limit: limit.min(limits.signed_body), within: limits.body_time, budget: &app.unproven, proven: false },
    }
}

/// Waits for its turn to parse a large body; not for long.
async fn turn(app: &App) -> Option<tokio::sync::SemaphorePermit<'_>> {
    tokio::time::timeout(app.settings.limits.store_time, app.heavy.acquire()).await.ok()?.ok()
}

/// What was read of a body.
enum Read {
    All(Parsed),
    /// In a rush nothing is kept of it.
    Count(Counted),
}

/// A way to read a body.
type Way<T> = fn(&dyn Source, &ParseCx<'_>, &[u8]) -> Result<T, ParseError>;

impl Read {
    fn parse(kind: &dyn Source, cx: &ParseCx<'_>, body: &[u8]) -> Result<Self, ParseError> {
        kind.parse(cx, body).map(Self::All)
    }

    fn count(kind: &dyn Source, cx: &ParseCx<'_>, body: &[u8]) -> Result<Self, ParseError> {
        kind.count(cx, body).map(Self::Count)
    }

    fn counted(&self) -> Counted {
        match self {
            Self::All(parsed) => Counted { sightings: parsed.sightings.len(), left_out: parsed.left_out },
            Self::Count(counted) => *counted,
        }
    }
}

/// A body, and what is known about it.
struct Reading<'a> {
    table: &'a Arc<SourceTable>,
    name: &'a str,
    source: &'a SourceSettings,
    parts: &'a Parts,
    bytes: &'a Bytes,
    received_at: Timestamp,
}

impl Reading<'_> {
    /// Reads it; a long one off the threads that serve everybody.
    async fn by<T: Send + 'static>(&self, way: Way<T>) -> Result<T, ParseError> {
        let Self { source, received_at, .. } = *self;
        let headers = if source.map.is_some() { told_headers(&self.parts.headers) } else { Vec::new() };
        if self.bytes.len() <= if source.map.is_some() { LONG_MAPPED } else { LONG } {
            return read_now(source, &headers, self.bytes, received_at, way);
        }
        let (table, name, bytes) = (Arc::clone(self.table), self.name.to_owned(), self.bytes.clone());
        let work = move || match table.get(&name) {
            Some(source) => read_now(source, &headers, &bytes, received_at, way),
            None => Err(ParseError("the source is gone".to_owned())),
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(ParseError(format!("the parser failed: {panic}"))))
    }
}

fn read_now<T>(
    source: &SourceSettings,
    headers: &[(String, String)],
    bytes: &[u8],
    received_at: Timestamp,
    way: Way<T>,
) -> Result<T, ParseError> {
    json::bounded(bytes).map_err(|bound| ParseError(bound.to_owned()))?;
    way(source.kind, &ParseCx { received_at, headers, map: source.map.as_deref() }, bytes)
}

/// The headers that a mapping may look at: nothing that proves identity is ever an event's content.
fn told_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    const SECRET: [&str; 8] = ["auth", "cookie", "signature", "token", "secret", "key", "password", "credential"];
    let mut told = chat::text_headers(headers);
    told.retain(|(name, _)| !SECRET.iter().any(|word| name.contains(word)));
    told
}

fn delivery(app: &App, name: &str, proof: &Proof, parsed: Parsed, raw: Bytes, received_at: Timestamp) -> Delivery {
    left_out(name, parsed.left_out);
    let id = own_id(proof, &raw).unwrap_or_else(|| DeliveryId::new(received_at).to_string());
    let rules = app.rules.load();
    let events = sources::events(name, rules.sources.get(name), parsed.sightings, received_at, &id);
    Delivery { source: name.to_owned(), events, raw, received_at }
}

/// What its sender calls a delivery, the same over its retries.
fn own_id(proof: &Proof, raw: &[u8]) -> Option<String> {
    match proof {
        Proof::Body(signed) => signed.id(raw),
        Proof::Given => None,
    }
}

fn left_out(name: &str, count: u64) {
    if count > 0 {
        metrics::counter!("watchkeeper_events_truncated_total", "source" => name.to_owned()).increment(count);
        tracing::warn!(source = name, left_out = count, "the sender left alerts out: they are unknown, not resolved");
    }
}

/// Stores a delivery, for so long as its size deserves.
pub(crate) async fn accept(app: &App, delivery: Delivery) -> Result<Accepted, ApiError> {
    accept_in(app, &*app.inbox, delivery).await
}

async fn accept_in(app: &App, inbox: &dyn Inbox, delivery: Delivery) -> Result<Accepted, ApiError> {
    if delivery.events.is_empty() {
        return Ok(Accepted { seqs: Vec::new(), repeats: Some(0) });
    }
    within(app, delivery.events.len(), inbox.accept(delivery)).await
}

async fn within(app: &App, events: usize, accept: impl Future<Output = Result<Accepted, InboxError>>) -> Result<Accepted, ApiError> {
    let patience = app.settings.limits.store_time + Duration::from_millis(events as u64);
    match tokio::time::timeout(patience, accept).await {
        Ok(accepted) => Ok(accepted?),
        Err(_) => Err(ApiError::store_slow()),
    }
}

async fn not_read(app: &App, label: &str, proof: &Proof, unread: Unread) -> ApiError {
    if let (Unread::TooLarge(limit), Proof::Given) = (unread, proof) {
        let event = NewEvent::sighting(own::SOURCE, own::body_too_large(label, limit, app.clock.now()));
        let delivery = Delivery { source: own::SOURCE.to_owned(), events: vec![event], raw: Bytes::new(), received_at: app.clock.now() };
        if let Err(error) = accept(app, delivery).await {
            tracing::error!(%error, source = label, "a body was too large, and the incident about it could not be stored");
        }
    }
    reject(label, unread)
}

async fn unparsable(app: &App, name: &str, body: &[u8], at: Timestamp, error: &ParseError) -> ApiError {
    rejected(name, "unparsable");
    tracing::warn!(source = name, %error, "a body could not be read; a sample is kept");
    let kept = async {
        let mut tx = app.store.begin().await?;
        tx.keep_sample(name, at, &body[..body.len().min(SAMPLE)], &error.to_string()).await?;
        tx.commit().await
    };
    if !matches!(tokio::time::timeout(app.settings.limits.store_time, kept).await, Ok(Ok(()))) {
        tracing::warn!(source = name, "the sample could not be kept");
    }
    ApiError::Invalid(format!("The body cannot be read: {error}"))
}

fn refused(app: &App, label: &str, why: Refusal) -> ApiError {
    app.refusals.count(label, why);
    ApiError::Unauthorized
}

fn reject(label: &str, unread: Unread) -> ApiError {
    rejected(label, unread.as_str());
    unread.into()
}

fn rejected(source: &str, reason: &'static str) {
    metrics::counter!("watchkeeper_events_rejected_total", "source" => source.to_owned(), "reason" => reason).increment(1);
}
