//! The `chat.*` and `reactions.*` methods.

use serde_json::{Value, json};

use super::args::{Args, Refusal};
use super::content::Content;
use super::state::State;
use super::{Core, Message};

pub(super) fn post_message(core: &Core, state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let channel = writable(state, args.required("channel")?)?;
    let thread_ts = thread(state, &channel, args)?;
    let content = Content::read(state, args)?.with_text()?;
    let mut message = Message::by_bot(core, &channel, state.next_ts(core.time.now()), content);
    message.broadcast = thread_ts.is_some() && args.flag("reply_broadcast");
    message.thread_ts = thread_ts;
    let json = message.json(&core.config);
    let ts = message.ts.clone();
    state.messages.push(message);
    Ok(json!({"channel": channel, "ts": ts, "message": json}))
}

pub(super) fn post_ephemeral(core: &Core, state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let channel = writable(state, args.required("channel")?)?;
    let user = args.required("user")?.to_owned();
    if !state.users.iter().any(|known| known.id == user) {
        return Err(Refusal::new("user_not_in_channel"));
    }
    let thread_ts = thread(state, &channel, args)?;
    let content = Content::read(state, args)?.with_text()?;
    let ts = state.next_ts(core.time.now());
    let mut message = Message::by_bot(core, &channel, ts.clone(), content);
    message.only_for = Some(user);
    message.thread_ts = thread_ts;
    state.messages.push(message);
    Ok(json!({"message_ts": ts}))
}

pub(super) fn update(core: &Core, state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let channel = writable(state, args.required("channel")?)?;
    let ts = args.required("ts")?.to_owned();
    let content = Content::read(state, args)?.with_text()?;
    let message = own(core, state, &channel, &ts, "cant_update_message")?;
    message.edit(content, core.time.now());
    let json = message.json(&core.config);
    Ok(json!({"channel": channel, "ts": ts, "text": json["text"], "message": json}))
}

pub(super) fn delete(core: &Core, state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let (channel, ts) = (writable(state, args.required("channel")?)?, args.required("ts")?.to_owned());
    own(core, state, &channel, &ts, "cant_delete_message")?.deleted = true;
    Ok(json!({"channel": channel, "ts": ts}))
}

pub(super) fn permalink(core: &Core, state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let (channel, ts) = (args.required("channel")?.to_owned(), args.required("message_ts")?.to_owned());
    state.channel(&channel)?;
    let message = state.message(&channel, &ts).ok_or_else(|| Refusal::new("message_not_found"))?;
    let thread = message.thread_ts.as_ref().map(|parent| format!("?thread_ts={parent}&cid={channel}")).unwrap_or_default();
    let link = format!("https://{}.slack.com/archives/{channel}/p{}{thread}", core.config.team_domain, ts.replace('.', ""));
    Ok(json!({"channel": channel, "permalink": link}))
}

pub(super) fn react(state: &mut State, method: &str, args: &Args) -> Result<Value, Refusal> {
    let (channel, ts, name) =
        (args.required("channel")?.to_owned(), args.required("timestamp")?.to_owned(), args.required("name")?.to_owned());
    state.channel(&channel)?;
    let message = state.message(&channel, &ts).ok_or_else(|| Refusal::new("message_not_found"))?;
    let there = message.reactions.iter().position(|reaction| *reaction == name);
    match (method, there) {
        ("reactions.add", Some(_)) => return Err(Refusal::new("already_reacted")),
        ("reactions.add", None) => message.reactions.push(name),
        (_, Some(at)) => drop(message.reactions.remove(at)),
        (_, None) => return Err(Refusal::new("no_reaction")),
    }
    Ok(json!({}))
}

/// The channel's id, if the bot may write there.
fn writable(state: &State, id: &str) -> Result<String, Refusal> {
    let channel = state.channel(id)?;
    match channel {
        channel if channel.is_archived => Err(Refusal::new("is_archived")),
        channel if !channel.is_member => Err(Refusal::new("not_in_channel")),
        channel => Ok(channel.id.clone()),
    }
}

/// The thread to post into. Slack wants the parent's timestamp, never a reply's.
fn thread(state: &mut State, channel: &str, args: &Args) -> Result<Option<String>, Refusal> {
    let Some(ts) = args.text("thread_ts") else {
        return Ok(None);
    };
    match state.message(channel, ts) {
        Some(parent) if parent.thread_ts.is_none() => Ok(Some(ts.to_owned())),
        Some(_) => Err(Refusal::new("cannot_reply_to_message")),
        None => Err(Refusal::new("message_not_found")),
    }
}

/// A message that the bot itself posted; `not_mine` is the error for any other.
fn own<'a>(core: &Core, state: &'a mut State, channel: &str, ts: &str, not_mine: &str) -> Result<&'a mut Message, Refusal> {
    match state.message(channel, ts) {
        None => Err(Refusal::new("message_not_found")),
        Some(message) if message.author != core.config.bot_user_id => Err(Refusal::new(not_mine)),
        Some(message) => Ok(message),
    }
}
