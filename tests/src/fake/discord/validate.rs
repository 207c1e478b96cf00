//! Discord's rules for a message's form (discord.com/developers/docs, "Message Resource": limits of content, embeds, mentions).

use std::collections::HashSet;

use serde_json::Value;

use super::super::json::items;
use super::api::Body;
use super::components;
use super::errors::{Problems, Refusal};
use super::message::flags;

/// Flags that a bot may set: suppress embeds, ephemeral (in interactions), suppress notifications.
const SETTABLE: u64 = flags::SUPPRESS_EMBEDS | flags::EPHEMERAL | flags::SUPPRESS_NOTIFICATIONS;

/// Checks the fields of a message to create or edit.
pub(super) fn message(form: &Value) -> Result<(), Refusal> {
    let mut problems = Problems::default();
    check(&mut problems, "", form);
    problems.finish()
}

/// Checks the message in an interaction response, found under `data`.
pub(super) fn response(data: &Value) -> Result<(), Refusal> {
    let mut problems = Problems::default();
    check(&mut problems, "data.", data);
    problems.finish()
}

/// Refuses a message that shows nothing.
pub(super) fn not_empty(content: &str, embeds: &[Value], files: usize) -> Result<(), Refusal> {
    let nothing = content.trim().is_empty() && embeds.is_empty() && files == 0;
    if nothing { Err(Refusal::new(400, 50_006, "Cannot send an empty message")) } else { Ok(()) }
}

/// The body must be a JSON object.
pub(super) fn object(body: &Body) -> Result<&Value, Refusal> {
    if body.json.is_object() { Ok(&body.json) } else { Err(Refusal::new(400, 50_109, "The request body contains invalid JSON.")) }
}

fn check(problems: &mut Problems, at: &str, form: &Value) {
    match &form["content"] {
        Value::Null => {}
        Value::String(content) => problems.length(&format!("{at}content"), content, 0, 2000),
        _ => problems.fail(&format!("{at}content"), "STRING_TYPE_CONVERT", "Could not interpret as a string."),
    }
    nonce(problems, at, form);
    if let Some(set) = form.get("flags").filter(|set| !set.is_null()) {
        match set.as_u64() {
            Some(bits) if bits & !SETTABLE == 0 => {}
            _ => problems.fail(&format!("{at}flags"), "INVALID_BITWISE_FLAG", "This fake takes the flags 4, 64 and 4096 only."),
        }
    }
    let list = items(&form["embeds"]);
    if list.len() > 10 {
        problems.fail(&format!("{at}embeds"), "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.");
    }
    let total: usize = list.iter().enumerate().map(|(index, one)| embed(problems, &format!("{at}embeds.{index}"), one)).sum();
    if total > 6000 {
        problems.fail(&format!("{at}embeds"), "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000");
    }
    components::message(problems, &format!("{at}components"), &form["components"]);
    mentions(problems, &format!("{at}allowed_mentions"), &form["allowed_mentions"]);
}

fn nonce(problems: &mut Problems, at: &str, form: &Value) {
    match &form["nonce"] {
        Value::Null | Value::Number(_) => {}
        Value::String(nonce) => problems.length(&format!("{at}nonce"), nonce, 0, 25),
        _ => problems.fail(&format!("{at}nonce"), "NONCE_TYPE_CONVERT", "Could not interpret as a nonce."),
    }
    if !matches!(form["enforce_nonce"], Value::Null | Value::Bool(_)) {
        problems.fail(&format!("{at}enforce_nonce"), "BOOLEAN_TYPE_CONVERT", "Must be either true or false.");
    }
}

/// Checks an embed and counts the characters that go into the total of 6000.
fn embed(problems: &mut Problems, at: &str, embed: &Value) -> usize {
    let mut counted = Vec::new();
    for (name, max) in [("title", 256), ("description", 4096)] {
        problems.string(at, embed, name, (0, max), false);
        counted.push(&embed[name]);
    }
    for (holder, name, max) in [("footer", "text", 2048), ("author", "name", 256)] {
        if embed[holder].is_object() {
            problems.string(&format!("{at}.{holder}"), &embed[holder], name, (1, max), true);
            counted.push(&embed[holder][name]);
        }
    }
    let fields = items(&embed["fields"]);
    if fields.len() > 25 {
        problems.fail(&format!("{at}.fields"), "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.");
    }
    for (index, field) in fields.iter().enumerate() {
        for (name, max) in [("name", 256), ("value", 1024)] {
            problems.string(&format!("{at}.fields.{index}"), field, name, (1, max), true);
            counted.push(&field[name]);
        }
    }
    if embed["color"].as_u64().is_some_and(|color| color > 0xff_ffff) {
        problems.fail(&format!("{at}.color"), "NUMBER_TYPE_MAX", "int value should be less than or equal to 16777215.");
    }
    if embed["timestamp"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_err()) {
        problems.fail(&format!("{at}.timestamp"), "DATE_TIME_TYPE_PARSE", "Could not parse the timestamp. Should be ISO8601.");
    }
    for url in [&embed["url"], &embed["author"]["url"], &embed["image"]["url"], &embed["thumbnail"]["url"]] {
        if let Some(url) = url.as_str()
            && !["http://", "https://", "attachment://"].iter().any(|scheme| url.starts_with(scheme))
        {
            problems.fail(&format!("{at}.url"), "URL_TYPE_INVALID_URL", "Not a well formed URL.");
        }
    }
    counted.into_iter().filter_map(Value::as_str).map(|text| text.chars().count()).sum()
}

fn mentions(problems: &mut Problems, at: &str, allowed: &Value) {
    let parse: HashSet<&str> = items(&allowed["parse"]).iter().filter_map(Value::as_str).collect();
    for (index, kind) in items(&allowed["parse"]).iter().enumerate() {
        if !matches!(kind.as_str(), Some("users" | "roles" | "everyone")) {
            problems.fail(&format!("{at}.parse.{index}"), "BASE_TYPE_CHOICES", "Value must be one of ('everyone', 'roles', 'users').");
        }
    }
    for kind in ["users", "roles"] {
        let listed = items(&allowed[kind]);
        if parse.contains(kind) && !listed.is_empty() {
            let message = format!("parse:[\"{kind}\"] and {kind}: [ids...] are mutually exclusive.");
            problems.fail(at, "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", &message);
        }
        if listed.len() > 100 {
            problems.fail(&format!("{at}.{kind}"), "BASE_TYPE_MAX_LENGTH", "Must be 100 or fewer in length.");
        }
    }
}
