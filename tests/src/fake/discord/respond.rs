//! The first answer to an interaction, over HTTP or by the callback route (discord.com/developers/docs, "Receiving and Responding").

use std::time::Duration;

use serde_json::{Value, json};

use super::super::ANSWER_WITHIN;
use super::super::wire::Call;
use super::api::Body;
use super::components;
use super::errors::{Problems, Refusal};
use super::interaction::{AUTOCOMPLETE, COMMAND, COMPONENT, MODAL_SUBMIT, PING};
use super::message::{File, flags};
use super::state::State;
use super::{Core, Message, messages, validate};

/// `POST /interactions/{id}/{token}/callback`.
pub(super) fn callback(core: &Core, state: &mut State, id: &str, token: &str, call: &Call, body: &Body) -> Result<Option<Value>, Refusal> {
    let known = state.interactions.iter().find(|record| record.id == id && record.token == token);
    let record = known.ok_or_else(|| Refusal::unknown(10_062, "interaction"))?;
    if record.response.is_some() {
        return Err(Refusal::new(400, 40_060, "Interaction has already been acknowledged."));
    }
    if Duration::try_from(core.time.now().duration_since(record.made)).unwrap_or_default() > ANSWER_WITHIN {
        return Err(Refusal::unknown(10_062, "interaction"));
    }
    apply(core, state, id, validate::object(body)?, &body.files)?;
    if !call.query.iter().any(|(name, value)| name == "with_response" && value == "true") {
        return Ok(None);
    }
    Ok(Some(json!({"interaction": {"id": id, "type": 2, "response_message_loading": false, "response_message_ephemeral": false}})))
}

/// Carries out a first answer, however it came.
pub(super) fn apply(core: &Core, state: &mut State, id: &str, response: &Value, files: &[File]) -> Result<(), Refusal> {
    let index = state.interactions.iter().position(|record| record.id == id).ok_or_else(|| Refusal::unknown(10_062, "interaction"))?;
    let record = state.interactions[index].clone();
    let data = &response["data"];
    let kind = response["type"].as_u64().unwrap_or_default();
    let fits = match kind {
        1 => record.kind == PING,
        4 | 5 => matches!(record.kind, COMMAND | COMPONENT | MODAL_SUBMIT),
        6 | 7 => record.source.is_some() && matches!(record.kind, COMPONENT | MODAL_SUBMIT),
        8 => record.kind == AUTOCOMPLETE,
        9 => matches!(record.kind, COMMAND | COMPONENT),
        _ => false,
    };
    if !fits {
        return bad("type", "BASE_TYPE_CHOICES", "This type does not answer this kind of interaction.");
    }
    let mut original = record.source.clone().filter(|_| matches!(kind, 6 | 7));
    match kind {
        4 => {
            validate::response(data)?;
            let mut message = Message::new(state.next_id(core.time.now()), &record.channel, &core.config.application_id, core.time.now());
            message.set(data, files);
            validate::not_empty(&message.content, &message.embeds, message.files.len())?;
            message.flags = data["flags"].as_u64().unwrap_or_default();
            message.only_for = (message.flags & flags::EPHEMERAL != 0).then(|| record.user.clone());
            message.interaction = Some(record.id.clone());
            original = Some(message.id.clone());
            state.messages.push(message);
        }
        5 => validate::response(data)?,
        7 => {
            validate::response(data)?;
            let body = Body { json: data.clone(), files: files.to_vec() };
            messages::change(core, state, record.source.as_deref().unwrap_or_default(), data, &body)?;
        }
        8 => choices(data)?,
        9 => components::modal(data)?,
        _ => {}
    }
    let record = &mut state.interactions[index];
    record.response = Some(response.clone());
    record.original = original;
    record.in_flight = false;
    Ok(())
}

fn choices(data: &Value) -> Result<(), Refusal> {
    let mut problems = Problems::default();
    let Some(list) = data["choices"].as_array() else { return bad("data.choices", "BASE_TYPE_REQUIRED", "This field is required") };
    if list.len() > 25 {
        problems.fail("data.choices", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.");
    }
    for (index, choice) in list.iter().enumerate() {
        problems.string(&format!("data.choices.{index}"), choice, "name", (1, 100), true);
        if choice["value"].is_string() {
            problems.string(&format!("data.choices.{index}"), choice, "value", (0, 100), true);
        }
    }
    problems.finish()
}

fn bad(path: &str, code: &str, message: &str) -> Result<(), Refusal> {
    let mut problems = Problems::default();
    problems.fail(path, code, message);
    problems.finish()
}
