//! Channel messages and threads.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::Body;
use super::errors::{Problems, Refusal};
use super::message::flags;
use super::state::State;
use super::{Channel, Core, Message, validate};

/// For how long an enforced nonce is remembered: "the past few minutes".
const NONCE_LIVES: Duration = Duration::from_secs(300);

pub(super) fn create(core: &Core, state: &mut State, channel: &str, body: &Body) -> Result<Value, Refusal> {
    let (now, form) = (core.time.now(), validate::object(body)?);
    state.channel(channel)?;
    validate::message(form)?;
    if form["flags"].as_u64().unwrap_or_default() & flags::EPHEMERAL != 0 {
        let mut problems = Problems::default();
        problems.fail("flags", "MESSAGE_FLAGS_EPHEMERAL", "Only the response to an interaction can be ephemeral.");
        problems.finish()?;
    }
    let nonce = Some(&form["nonce"]).filter(|nonce| !nonce.is_null());
    if form["enforce_nonce"] == true {
        let recent = |message: &&Message| Duration::try_from(now.duration_since(message.made)).unwrap_or_default() < NONCE_LIVES;
        let same = |message: &&Message| nonce.is_some() && message.nonce.as_ref() == nonce && message.channel == channel;
        if let Some(known) = state.messages.iter().filter(recent).find(same) {
            let json = known.json(&core.config, state);
            state.deduplicated += 1;
            return Ok(json);
        }
    }
    let mut message = Message::new(state.next_id(now), channel, &core.config.application_id, now);
    message.set(form, &body.files);
    validate::not_empty(&message.content, &message.embeds, message.files.len())?;
    message.nonce = nonce.cloned();
    message.flags = form["flags"].as_u64().unwrap_or_default();
    if let Some(id) = form["message_reference"]["message_id"].as_str() {
        message.reply_to = Some(state.message(channel, id).map_err(|_| unknown_reference())?.id.clone());
    }
    let json = message.json(&core.config, state);
    state.messages.push(message);
    Ok(json)
}

pub(super) fn get(core: &Core, state: &mut State, channel: &str, id: &str) -> Result<Value, Refusal> {
    state.channel(channel)?;
    let message = state.message(channel, id)?.clone();
    Ok(message.json(&core.config, state))
}

/// The newest messages first.
pub(super) fn list(core: &Core, state: &mut State, channel: &str, query: &[(String, String)]) -> Result<Value, Refusal> {
    state.channel(channel)?;
    let option = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let number = |name: &str| option(name).and_then(|id| id.parse::<u64>().ok());
    let limit = number("limit").unwrap_or(50).clamp(1, 100) as usize;
    let (before, after) = (number("before").unwrap_or(u64::MAX), number("after").unwrap_or(0));
    let wanted = |message: &&Message| {
        let id = message.id.parse::<u64>().unwrap_or_default();
        message.channel == channel && message.only_for.is_none() && !message.deleted && id < before && id > after
    };
    let found = state.messages.iter().rev().filter(wanted).take(limit).map(|message| message.json(&core.config, state));
    Ok(Value::Array(found.collect()))
}

pub(super) fn edit(core: &Core, state: &mut State, channel: &str, id: &str, body: &Body) -> Result<Value, Refusal> {
    state.channel(channel)?;
    let form = validate::object(body)?;
    if state.message(channel, id)?.author != core.config.application_id {
        return Err(Refusal::new(403, 50_005, "Cannot edit a message authored by another user"));
    }
    change(core, state, id, form, body)
}

/// Edits any message of the bot, by whichever route the right to do so came.
pub(super) fn change(core: &Core, state: &mut State, id: &str, form: &Value, body: &Body) -> Result<Value, Refusal> {
    validate::message(form)?;
    let now = core.time.now();
    let message = state.any_message(id).ok_or_else(|| Refusal::unknown(10_008, "Message"))?;
    let mut edited = message.clone();
    edited.edit(form, &body.files, now);
    validate::not_empty(&edited.content, &edited.embeds, edited.files.len())?;
    *message = edited.clone();
    Ok(edited.json(&core.config, state))
}

pub(super) fn delete(core: &Core, state: &mut State, channel: &str, id: &str) -> Result<(), Refusal> {
    state.channel(channel)?;
    let message = state.message(channel, id)?;
    if message.author != core.config.application_id {
        return Err(Refusal::new(403, 50_003, "Cannot execute action on this channel type"));
    }
    message.deleted = true;
    Ok(())
}

/// Starts a thread, from a message (whose id it takes) or by itself.
pub(super) fn thread(core: &Core, state: &mut State, channel: &str, message: Option<&str>, body: &Body) -> Result<Value, Refusal> {
    let form = validate::object(body)?;
    if state.channel(channel)?.parent.is_some() {
        return Err(Refusal::new(400, 50_024, "Cannot execute action on this channel type"));
    }
    let mut problems = Problems::default();
    let name = problems.string("", form, "name", (1, 100), true).then(|| form["name"].as_str().unwrap_or_default().to_owned());
    let archive = form["auto_archive_duration"].as_u64().unwrap_or(1440);
    if ![60, 1440, 4320, 10_080].contains(&archive) {
        problems.fail("auto_archive_duration", "BASE_TYPE_CHOICES", "Value must be one of (60, 1440, 4320, 10080).");
    }
    problems.finish()?;
    let id = match message {
        Some(id) => state.message(channel, id)?.id.clone(),
        None => state.next_id(core.time.now()),
    };
    if state.channels.iter().any(|known| known.id == id) {
        return Err(Refusal::new(400, 160_004, "A thread has already been created for this message"));
    }
    let thread = Channel { parent: Some(channel.to_owned()), auto_archive: archive, ..Channel::new(&id, &name.unwrap_or_default()) };
    let mut json = thread.json(&core.config);
    json["member"] = json!({"id": id, "user_id": core.config.application_id, "join_timestamp": core.time.now().to_string(), "flags": 1});
    state.channels.push(thread);
    Ok(json)
}

fn unknown_reference() -> Refusal {
    let mut problems = Problems::default();
    problems.fail("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message");
    problems.finish().err().unwrap_or_else(Refusal::not_found)
}
