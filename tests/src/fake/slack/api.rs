//! The front door of the Web API: faults, authorisation, limits, dispatch, and the record of every call.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::fault::Fault;
use super::super::wire::{Answer, Call};
use super::args::{Args, Refusal};
use super::state::{Seen, State};
use super::{Core, chat, directory, read, response_url, socket, view};

const MINUTE: Duration = Duration::from_secs(60);

/// Answers one HTTP request to Slack.
pub(super) async fn serve(core: Arc<Core>, call: Call) -> Answer {
    let operation = match call.path.strip_prefix("/api/") {
        Some(method) => method.to_owned(),
        None if response_url::is(&call.path) => "response_url".to_owned(),
        None => return Answer::text(404, "no such page"),
    };
    let fault = core.state.change(|state| state.faults.take(&operation));
    if let Some(fault) = &fault {
        note_fault(&core, &operation, &call, fault);
    }
    let conn = call.conn.clone();
    let run = || {
        if operation == "response_url" { response_url::post(&core, &call) } else { method(&core, &operation, &call) }
    };
    Fault::apply(fault, &conn, too_many, run).await
}

fn method(core: &Core, name: &str, call: &Call) -> Answer {
    let now = core.time.now();
    core.state.change(|state| {
        let args = Args::of(call);
        let kept = args.clone().unwrap_or_default();
        let outcome = authorize(core, name, call, &kept).and(args);
        let outcome = outcome.and_then(|args| {
            let (key, max, per) = allowance(name, &args);
            match state.limits.take(&key, max, per, now) {
                Ok(_) => dispatch(core, state, name, &args).map(Ok),
                Err(wait) => Ok(Err(wait)),
            }
        });
        let (answer, error) = match outcome {
            Ok(Ok(value)) => (Answer::json(200, ok(value)), None),
            Ok(Err(wait)) => (too_many(wait), None),
            Err(refusal) => (
                Answer::json(200, refused(&refusal)),
                Some(format!("{} {}", refusal.error, refusal.details.join("; ")).trim_end().to_owned()),
            ),
        };
        state.calls.push(Seen { method: name.to_owned(), args: without_token(&kept), status: answer.status, error, at: now });
        answer
    })
}

fn dispatch(core: &Core, state: &mut State, name: &str, args: &Args) -> Result<Value, Refusal> {
    match name {
        "auth.test" => Ok(directory::auth_test(&core.config)),
        "apps.connections.open" => socket::open(state),
        "chat.delete" => chat::delete(core, state, args),
        "chat.getPermalink" => chat::permalink(core, state, args),
        "chat.postEphemeral" => chat::post_ephemeral(core, state, args),
        "chat.postMessage" => chat::post_message(core, state, args),
        "chat.update" => chat::update(core, state, args),
        "conversations.history" => read::history(core, state, args),
        "conversations.info" => directory::conversations_info(state, args),
        "conversations.list" => Ok(directory::conversations_list(state)),
        "conversations.replies" => read::replies(core, state, args),
        "reactions.add" | "reactions.remove" => chat::react(state, name, args),
        "users.info" => directory::users_info(&core.config, state, args),
        "views.open" => view::open(core, state, args),
        "views.update" => view::update(core, state, args),
        _ => Err(Refusal::new("unknown_method")),
    }
}

/// Checks the token of the call: the bot's, or the app's for opening sockets.
fn authorize(core: &Core, name: &str, call: &Call, args: &Args) -> Result<(), Refusal> {
    let header = call.header("authorization");
    let token = if header.is_empty() { args.text("token") } else { header.strip_prefix("Bearer ") };
    let wanted = if name == "apps.connections.open" { &core.config.app_token } else { &core.config.bot_token };
    match token {
        None if header.is_empty() => Err(Refusal::new("not_authed")),
        Some(token) if token == wanted => Ok(()),
        Some(token) if token == core.config.app_token || token == core.config.bot_token => Err(Refusal::new("not_allowed_token_type")),
        _ => Err(Refusal::new("invalid_auth")),
    }
}

/// How many calls fit into which time, and under which key (docs.slack.dev, "Rate limits": tiers 2, 3 and 4; a message a second per channel,
/// bursts allowed).
fn allowance(name: &str, args: &Args) -> (String, usize, Duration) {
    let (max, per) = match name {
        "chat.postMessage" => {
            return (format!("{name} {}", args.text("channel").unwrap_or_default()), 3, Duration::from_secs(3));
        }
        "auth.test" | "chat.getPermalink" => (600, MINUTE),
        "conversations.list" => (20, MINUTE),
        "chat.delete" | "chat.update" | "conversations.history" | "conversations.info" | "conversations.replies" | "reactions.add" => {
            (50, MINUTE)
        }
        _ => (100, MINUTE),
    };
    (name.to_owned(), max, per)
}

fn ok(value: Value) -> Value {
    let mut body = Map::from_iter([("ok".to_owned(), Value::Bool(true))]);
    if let Value::Object(fields) = value {
        body.extend(fields);
    }
    Value::Object(body)
}

fn refused(refusal: &Refusal) -> Value {
    let mut body = json!({"ok": false, "error": refusal.error});
    if !refusal.details.is_empty() {
        let plain: Vec<&str> = refusal.details.iter().map(|detail| detail.trim_start_matches("[ERROR] ")).collect();
        body["errors"] = json!(plain);
        body["response_metadata"] = json!({"messages": refusal.details});
    }
    body
}

/// Slack's 429: whole seconds in `Retry-After`.
fn too_many(wait: Duration) -> Answer {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    Answer::json(429, json!({"ok": false, "error": "ratelimited"})).with("retry-after", seconds)
}

/// Records a call that a fault keeps from being carried out, so that tests can count attempts.
fn note_fault(core: &Core, operation: &str, call: &Call, fault: &Fault) {
    let now = core.time.now();
    let args = Args::of(call).unwrap_or_default();
    let status = match fault {
        Fault::Ambiguous | Fault::Slow(_) => return,
        Fault::Status(status) | Fault::Answer(status, _) => *status,
        Fault::RateLimited(_) => 429,
        Fault::Drop | Fault::Hang(_) => 0,
    };
    core.state.change(|state| {
        if let Fault::RateLimited(wait) = fault {
            state.limits.close(&allowance(operation, &args).0, *wait, now);
        }
        state.calls.push(Seen { method: operation.to_owned(), args: without_token(&args), status, error: None, at: now });
    });
}

fn without_token(args: &Args) -> Value {
    let mut kept = args.0.clone();
    kept.remove("token");
    Value::Object(kept)
}
