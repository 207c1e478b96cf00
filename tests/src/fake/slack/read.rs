//! `conversations.history` and `conversations.replies`.

use serde_json::{Value, json};

use super::args::{Args, Refusal};
use super::state::State;
use super::{Core, Message};

/// The channel's own messages, newest first; replies only where they were broadcast.
pub(super) fn history(core: &Core, state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let channel = state.channel(args.required("channel")?)?.id.clone();
    let top = |message: &Message| message.thread_ts.is_none() || message.broadcast;
    let wanted = |message: &&Message| visible(message, &channel) && top(message) && between(args, &message.ts);
    let shown = |message| with_replies(core, state, message, args);
    let found: Vec<Value> = state.messages.iter().rev().filter(wanted).map(shown).collect();
    page(found, args)
}

/// A thread: the parent, then its replies, oldest first.
pub(super) fn replies(core: &Core, state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let channel = state.channel(args.required("channel")?)?.id.clone();
    let ts = args.required("ts")?.to_owned();
    state.message(&channel, &ts).ok_or_else(|| Refusal::new("thread_not_found"))?;
    let reply = |message: &Message| message.thread_ts.as_deref() == Some(&ts) && between(args, &message.ts);
    let wanted = |message: &&Message| visible(message, &channel) && (message.ts == ts || reply(message));
    let shown = |message| with_replies(core, state, message, args);
    let found: Vec<Value> = state.messages.iter().filter(wanted).map(shown).collect();
    page(found, args)
}

/// Whether a timestamp lies within `oldest` and `latest`, which count only if `inclusive`.
fn between(args: &Args, ts: &str) -> bool {
    let inclusive = args.flag("inclusive");
    let after = args.text("oldest").is_none_or(|oldest| ts > oldest || (inclusive && ts == oldest));
    after && args.text("latest").is_none_or(|latest| ts < latest || (inclusive && ts == latest))
}

fn visible(message: &Message, channel: &str) -> bool {
    message.channel == channel && message.only_for.is_none() && !message.deleted
}

fn with_replies(core: &Core, state: &State, message: &Message, args: &Args) -> Value {
    let mut json = message.json(&core.config);
    if let Some(metadata) = message.metadata.as_ref().filter(|_| args.flag("include_all_metadata")) {
        json["metadata"] = metadata.clone();
    }
    let replies: Vec<&Message> =
        state.messages.iter().filter(|reply| visible(reply, &message.channel) && reply.thread_ts.as_ref() == Some(&message.ts)).collect();
    if let Some(latest) = replies.last() {
        let users: std::collections::BTreeSet<&str> = replies.iter().map(|reply| reply.author.as_str()).collect();
        json["thread_ts"] = json!(message.ts);
        json["reply_count"] = json!(replies.len());
        json["reply_users_count"] = json!(users.len());
        json["reply_users"] = json!(users);
        json["latest_reply"] = json!(latest.ts);
    }
    json
}

fn page(mut found: Vec<Value>, args: &Args) -> Result<Value, Refusal> {
    let number = |name: &str, otherwise: usize| match args.0.get(name) {
        None | Some(Value::Null) => Ok(otherwise),
        Some(Value::Number(number)) => Ok(number.as_u64().unwrap_or_default() as usize),
        Some(text) => text.as_str().unwrap_or_default().parse().map_err(|_| Refusal::new("invalid_arguments")),
    };
    let limit = number("limit", 100)?;
    if !(1..=1000).contains(&limit) {
        return Err(Refusal::new("invalid_limit"));
    }
    let start = if args.text("cursor").is_some() { number("cursor", 0).map_err(|_| Refusal::new("invalid_cursor"))? } else { 0 };
    let mut rest = found.split_off(start.min(found.len()));
    let has_more = rest.len() > limit;
    rest.truncate(limit);
    let next = if has_more { (start + limit).to_string() } else { String::new() };
    Ok(json!({"messages": rest, "has_more": has_more, "pin_count": 0, "response_metadata": {"next_cursor": next}}))
}
