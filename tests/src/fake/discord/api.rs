//! The front door of the HTTP API: faults, authorisation, limits, dispatch, and the record of every call.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::ANSWER_WITHIN;
use super::super::fault::Fault;
use super::super::limit::Room;
use super::super::multipart;
use super::super::wire::{Answer, Call};
use super::errors::{Refusal, too_many};
use super::message::File;
use super::state::{Seen, State};
use super::{Core, commands, messages, objects, respond, webhooks};

/// A request's JSON and the files sent along.
#[derive(Clone, Default)]
pub(super) struct Body {
    pub(super) json: Value,
    pub(super) files: Vec<File>,
}

/// Answers one HTTP request to Discord.
pub(super) async fn serve(core: Arc<Core>, call: Call) -> Answer {
    let Some(path) = call.path.strip_prefix("/api/v10/") else { return Refusal::not_found().answer() };
    let parts: Vec<&str> = path.split('/').collect();
    let operation = operation(&call.method, &parts);
    settle(&core, &parts).await;
    let fault = core.state.change(|state| state.faults.take(&operation));
    if let Some(fault) = &fault {
        note_fault(&core, &operation, &parts, &call, fault);
    }
    let conn = call.conn.clone();
    Fault::apply(fault, &conn, |wait| too_many(wait, false), || method(&core, &operation, &parts, &call)).await
}

/// A follow-up may overtake the HTTP answer that makes it legal; Discord then says 404 now and then, which no test wants: it waits here instead.
async fn settle(core: &Core, parts: &[&str]) {
    if let ["webhooks", _, token, ..] = parts {
        let open = |state: &State| state.interactions.iter().any(|known| known.token == *token && known.in_flight);
        core.state.wait(ANSWER_WITHIN, |state| (!open(state)).then_some(())).await;
    }
}

fn method(core: &Core, operation: &str, parts: &[&str], call: &Call) -> Answer {
    let now = core.time.now();
    let body = body(call);
    core.state.change(|state| {
        let kept = body.as_ref().map(|body| body.json.clone()).unwrap_or_default();
        let (answer, error) = match authorize(core, parts, call).and(body) {
            Err(refusal) => (refusal.answer(), Some(refusal.line())),
            Ok(body) => match room(state, operation, parts, now) {
                Err((wait, global)) => (too_many(wait, global), None),
                Ok((room, max)) => {
                    let (answer, error) = match dispatch(core, state, parts, call, &body) {
                        Err(refusal) => (refusal.answer(), Some(refusal.line())),
                        Ok(None) => (Answer::empty(204), None),
                        Ok(Some(value)) => (Answer::json(200, value), None),
                    };
                    (with_room(answer, operation, &room, max, now), error)
                }
            },
        };
        state.calls.push(Seen {
            operation: operation.to_owned(),
            path: call.path.clone(),
            body: kept,
            status: answer.status,
            error,
            at: now,
        });
        answer
    })
}

fn dispatch(core: &Core, state: &mut State, parts: &[&str], call: &Call, body: &Body) -> Result<Option<Value>, Refusal> {
    let config = &core.config;
    let method = call.method.as_str();
    let value = match (method, parts) {
        ("GET", ["gateway"]) => json!({"url": gateway(state)}),
        ("GET", ["gateway", "bot"]) => {
            let limit = json!({"total": 1000, "remaining": 999, "reset_after": 14_400_000, "max_concurrency": 1});
            json!({"url": gateway(state), "shards": 1, "session_start_limit": limit})
        }
        ("GET", ["users", "@me"]) => objects::bot_user(config).json(),
        ("GET", ["applications", "@me"] | ["oauth2", "applications", "@me"]) => {
            objects::application(config, &hex::encode(core.key.verifying_key().as_bytes()))
        }
        ("GET", ["guilds", guild]) if *guild == config.guild_id => objects::guild(config),
        ("GET", ["guilds", guild, "roles"]) if *guild == config.guild_id => objects::guild(config)["roles"].clone(),
        ("GET", ["guilds", guild, "members", user]) if *guild == config.guild_id => {
            state.user(user).map_err(|_| Refusal::unknown(10_007, "Member"))?.member_json()
        }
        ("GET", ["channels", channel]) => state.channel(channel)?.json(config),
        ("GET", ["channels", channel, "messages"]) => messages::list(core, state, channel, &call.query)?,
        ("POST", ["channels", channel, "messages"]) => messages::create(core, state, channel, body)?,
        ("GET", ["channels", channel, "messages", id]) => messages::get(core, state, channel, id)?,
        ("PATCH", ["channels", channel, "messages", id]) => messages::edit(core, state, channel, id, body)?,
        ("DELETE", ["channels", channel, "messages", id]) => return messages::delete(core, state, channel, id).map(|()| None),
        ("POST", ["channels", channel, "messages", id, "threads"]) => messages::thread(core, state, channel, Some(id), body)?,
        ("POST", ["channels", channel, "threads"]) => messages::thread(core, state, channel, None, body)?,
        ("PUT" | "GET", ["applications", application, "guilds", guild, "commands"]) => {
            if *application != config.application_id || *guild != config.guild_id {
                return Err(Refusal::new(403, 50_001, "Missing Access"));
            }
            commands::route(core, state, method == "PUT", body)?
        }
        ("POST", ["interactions", id, token, "callback"]) => return respond::callback(core, state, id, token, call, body),
        (_, ["webhooks", application, token, rest @ ..]) if *application == config.application_id => {
            return webhooks::route(core, state, method, token, rest, body);
        }
        _ => return Err(Refusal::not_found()),
    };
    Ok(Some(value))
}

fn gateway(state: &State) -> String {
    state.gateway_at.map(|addr| format!("ws://{addr}")).unwrap_or_default()
}

/// Bot routes need the bot's token; callbacks and interaction webhooks carry theirs in the path. All need a User-Agent.
fn authorize(core: &Core, parts: &[&str], call: &Call) -> Result<(), Refusal> {
    if call.header("user-agent").is_empty() {
        return Err(Refusal::new(403, 40_333, "internal network error: a valid User-Agent is required"));
    }
    let open = matches!(parts, ["interactions", ..] | ["webhooks", ..] | ["gateway"]);
    if open || call.header("authorization") == format!("Bot {}", core.config.bot_token) { Ok(()) } else { Err(Refusal::unauthorized()) }
}

fn body(call: &Call) -> Result<Body, Refusal> {
    let bad = || Refusal::new(400, 50_109, "The request body contains invalid JSON.");
    if call.body.is_empty() {
        return Ok(Body::default());
    }
    match call.content_type().as_str() {
        "application/json" => Ok(Body { json: serde_json::from_slice(&call.body).map_err(|_| bad())?, files: Vec::new() }),
        "multipart/form-data" => {
            let mut body = Body::default();
            for part in multipart::parse(call.header("content-type"), &call.body).ok_or_else(bad)? {
                match part.file_name {
                    Some(name) => body.files.push(File { name, bytes: part.bytes }),
                    None if part.name == "payload_json" => body.json = serde_json::from_slice(&part.bytes).map_err(|_| bad())?,
                    None => {}
                }
            }
            Ok(body)
        }
        _ => Err(Refusal::new(
            400,
            50_035,
            "Invalid Form Body: Expected \"Content-Type\" header to be one of {'application/json', 'multipart/form-data'}.",
        )),
    }
}

/// Room under the route's limit and the limit, or the time to wait and whether it is the global limit that says so.
fn room(state: &mut State, operation: &str, parts: &[&str], now: Timestamp) -> Result<(Room, usize), (Duration, bool)> {
    let own = !matches!(parts, ["interactions", ..] | ["webhooks", ..]);
    if own && let Err(wait) = state.limits.take("global", 50, Duration::from_secs(1), now) {
        return Err((wait, true));
    }
    let (max, per) = allowance(operation);
    state.limits.take(&key(operation, parts), max, per, now).map(|room| (room, max)).map_err(|wait| (wait, false))
}

/// Limits are kept per route and its major parameter.
fn key(operation: &str, parts: &[&str]) -> String {
    format!("{operation} {}", parts.get(1).unwrap_or(&""))
}

/// The buckets that bots meet: they are not documented as numbers, and clients must read them off the headers.
fn allowance(operation: &str) -> (usize, Duration) {
    let seconds = Duration::from_secs;
    match operation {
        "POST /channels/:/messages" | "PATCH /channels/:/messages/:" => (5, seconds(5)),
        operation if operation.contains("/webhooks/") => (5, seconds(2)),
        operation if operation.ends_with("/threads") => (50, seconds(300)),
        operation if operation.contains("/interactions/") => (50, seconds(1)),
        _ => (30, seconds(10)),
    }
}

fn with_room(answer: Answer, operation: &str, room: &Room, max: usize, now: Timestamp) -> Answer {
    let after = room.reset_after.as_secs_f64();
    let bucket = operation.bytes().fold(0_u64, |sum, byte| sum.rotate_left(7) ^ u64::from(byte));
    let answer = answer.with("x-ratelimit-limit", max).with("x-ratelimit-remaining", room.left);
    let answer = answer.with("x-ratelimit-reset", format!("{:.3}", now.as_millisecond() as f64 / 1000.0 + after));
    answer.with("x-ratelimit-reset-after", format!("{after:.3}")).with("x-ratelimit-bucket", format!("{bucket:016x}"))
}

/// The route with `:` for ids and tokens.
fn operation(method: &Method, parts: &[&str]) -> String {
    let names = "applications channels messages threads webhooks interactions callback guilds commands users @me @original gateway bot oauth2 roles members";
    let route: Vec<&str> = parts.iter().map(|part| if names.split(' ').any(|name| name == *part) { *part } else { ":" }).collect();
    format!("{method} /{}", route.join("/"))
}

/// Records a call that a fault keeps from being carried out, so that tests can count attempts.
fn note_fault(core: &Core, operation: &str, parts: &[&str], call: &Call, fault: &Fault) {
    let status = match fault {
        Fault::Ambiguous | Fault::Slow(_) => return,
        Fault::Status(status) | Fault::Answer(status, _) => *status,
        Fault::RateLimited(_) => 429,
        Fault::Drop | Fault::Hang(_) => 0,
    };
    let json = body(call).unwrap_or_default().json;
    let at = core.time.now();
    let seen = Seen { operation: operation.to_owned(), path: call.path.clone(), body: json, status, error: None, at };
    core.state.change(|state| {
        if let Fault::RateLimited(wait) = fault {
            state.limits.close(&key(operation, parts), *wait, at);
        }
        state.calls.push(seen);
    });
}
