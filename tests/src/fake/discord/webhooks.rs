//! Follow-ups by an interaction's token: good for 15 minutes, and only after the first answer.

use std::time::Duration;

use serde_json::Value;

use super::api::Body;
use super::errors::Refusal;
use super::message::flags;
use super::state::State;
use super::{Core, Message, messages, validate};

const TOKEN_LIVES: Duration = Duration::from_secs(15 * 60);

/// Everything under `/webhooks/{application}/{token}`.
pub(super) fn route(
    core: &Core,
    state: &mut State,
    method: &str,
    token: &str,
    rest: &[&str],
    body: &Body,
) -> Result<Option<Value>, Refusal> {
    let index = state
        .interactions
        .iter()
        .position(|record| record.token == token)
        .ok_or_else(|| Refusal::new(401, 50_027, "Invalid Webhook Token"))?;
    let record = &state.interactions[index];
    if Duration::try_from(core.time.now().duration_since(record.made)).unwrap_or_default() > TOKEN_LIVES {
        return Err(Refusal::new(401, 50_027, "Invalid Webhook Token"));
    }
    if record.response.is_none() {
        return Err(Refusal::unknown(10_015, "Webhook"));
    }
    let target = |name: &str| {
        let id = if name == "@original" { record.original.clone() } else { Some(name.to_owned()) };
        id.ok_or_else(|| Refusal::unknown(10_008, "Message"))
    };
    match (method, rest) {
        ("POST", []) => create(core, state, index, body).map(Some),
        // A deferred answer is filled in by editing it.
        ("PATCH", ["messages", "@original"]) if is_thinking(state, index) => create(core, state, index, body).map(Some),
        ("PATCH", ["messages", name]) => {
            let id = mine(state, index, &target(name)?)?;
            messages::change(core, state, &id, validate::object(body)?, body).map(Some)
        }
        ("GET", ["messages", name]) => {
            let id = mine(state, index, &target(name)?)?;
            let message = state.any_message(&id).cloned().ok_or_else(|| Refusal::unknown(10_008, "Message"))?;
            Ok(Some(message.json(&core.config, state)))
        }
        ("DELETE", ["messages", name]) => {
            let id = mine(state, index, &target(name)?)?;
            state.any_message(&id).ok_or_else(|| Refusal::unknown(10_008, "Message"))?.deleted = true;
            Ok(None)
        }
        _ => Err(Refusal::not_found()),
    }
}

/// Whether people still see "is thinking…".
fn is_thinking(state: &State, index: usize) -> bool {
    let record = &state.interactions[index];
    record.original.is_none() && record.response.as_ref().is_some_and(|response| response["type"] == 5)
}

/// A follow-up. The first one after a deferred answer fills that in, and keeps the ephemerality that was chosen when deferring.
fn create(core: &Core, state: &mut State, index: usize, body: &Body) -> Result<Value, Refusal> {
    let form = validate::object(body)?;
    validate::message(form)?;
    let now = core.time.now();
    let record = state.interactions[index].clone();
    let fills = is_thinking(state, index);
    let deferred = record.response.as_ref().map(|response| response["data"]["flags"].as_u64().unwrap_or_default());
    let mut message = Message::new(state.next_id(now), &record.channel, &core.config.application_id, now);
    message.set(form, &body.files);
    validate::not_empty(&message.content, &message.embeds, message.files.len())?;
    message.flags = if fills { deferred.unwrap_or_default() } else { form["flags"].as_u64().unwrap_or_default() };
    message.only_for = (message.flags & flags::EPHEMERAL != 0).then(|| record.user.clone());
    message.interaction = Some(record.id.clone());
    if fills {
        state.interactions[index].original = Some(message.id.clone());
    }
    let json = message.json(&core.config, state);
    state.messages.push(message);
    Ok(json)
}

/// A token reaches the messages of its own interaction, and the message of the component that was pressed.
fn mine(state: &State, index: usize, id: &str) -> Result<String, Refusal> {
    let record = &state.interactions[index];
    let own = |message: &&Message| {
        message.id == id && (message.interaction.as_ref() == Some(&record.id) || record.original.as_deref() == Some(id))
    };
    state.messages.iter().find(own).map(|message| message.id.clone()).ok_or_else(|| Refusal::unknown(10_008, "Message"))
}
