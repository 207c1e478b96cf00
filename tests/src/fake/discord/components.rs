//! Discord's rules for components and modals (discord.com/developers/docs, "Component Reference").

use std::collections::HashSet;

use serde_json::Value;

use super::super::json::items;
use super::errors::{Problems, Refusal};

const ROW: u64 = 1;
const BUTTON: u64 = 2;
const STRING_SELECT: u64 = 3;
const TEXT_INPUT: u64 = 4;

/// A message's rows: at most five, each with up to five buttons or one select.
pub(super) fn message(problems: &mut Problems, at: &str, rows: &Value) {
    if items(rows).len() > 5 {
        problems.fail(at, "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.");
    }
    let mut ids = HashSet::new();
    for (index, row) in items(rows).iter().enumerate() {
        let at = format!("{at}.{index}");
        if row["type"] != ROW {
            problems.fail(&format!("{at}.type"), "BASE_TYPE_CHOICES", "Value must be one of (1,).");
            continue;
        }
        let inside = items(&row["components"]);
        let selects = inside.iter().filter(|part| part["type"] != BUTTON).count();
        if inside.is_empty() || inside.len() > 5 {
            problems.fail(&format!("{at}.components"), "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.");
        } else if selects > 0 && inside.len() > 1 {
            let last = inside.len() - 1;
            let message = "The specified component exceeds the maximum width";
            problems.fail(&format!("{at}.components.{last}"), "COMPONENT_LAYOUT_WIDTH_EXCEEDED", message);
        }
        for (index, part) in inside.iter().enumerate() {
            let at = format!("{at}.components.{index}");
            match part["type"].as_u64() {
                Some(BUTTON) => button(problems, &at, part, &mut ids),
                Some(STRING_SELECT) => select(problems, &at, part, &mut ids),
                Some(5..=8) => custom_id(problems, &at, part, &mut ids),
                _ => problems.fail(&format!("{at}.type"), "BASE_TYPE_CHOICES", "Value must be one of (2, 3, 5, 6, 7, 8)."),
            }
        }
    }
}

fn button(problems: &mut Problems, at: &str, button: &Value, ids: &mut HashSet<String>) {
    let has_label = problems.string(at, button, "label", (1, 80), false);
    if !has_label && button["emoji"].is_null() {
        problems.fail(&format!("{at}.label"), "BUTTON_COMPONENT_LABEL_OR_EMOJI_REQUIRED", "A label or an emoji is required.");
    }
    match button["style"].as_u64() {
        Some(1..=4) => {
            custom_id(problems, at, button, ids);
            if !button["url"].is_null() {
                problems.fail(at, "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE", "A custom id and url cannot both be specified");
            }
        }
        Some(5) => {
            problems.string(at, button, "url", (1, 512), true);
            if !button["custom_id"].is_null() {
                problems.fail(at, "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE", "A custom id and url cannot both be specified");
            }
            if button["url"].as_str().is_some_and(|url| !["http://", "https://", "discord://"].iter().any(|scheme| url.starts_with(scheme)))
            {
                problems.fail(&format!("{at}.url"), "URL_TYPE_INVALID_SCHEME", "Scheme must be one of ('http', 'https', 'discord').");
            }
        }
        _ => problems.fail(&format!("{at}.style"), "BASE_TYPE_CHOICES", "Value must be one of (1, 2, 3, 4, 5)."),
    }
}

fn select(problems: &mut Problems, at: &str, select: &Value, ids: &mut HashSet<String>) {
    custom_id(problems, at, select, ids);
    problems.string(at, select, "placeholder", (0, 150), false);
    let options = items(&select["options"]);
    if options.is_empty() || options.len() > 25 {
        problems.fail(&format!("{at}.options"), "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 25 in length.");
    }
    for (index, option) in options.iter().enumerate() {
        let at = format!("{at}.options.{index}");
        problems.string(&at, option, "label", (1, 100), true);
        problems.string(&at, option, "value", (1, 100), true);
        problems.string(&at, option, "description", (0, 100), false);
    }
}

fn custom_id(problems: &mut Problems, at: &str, component: &Value, ids: &mut HashSet<String>) {
    problems.string(at, component, "custom_id", (1, 100), true);
    if let Some(id) = component["custom_id"].as_str()
        && !ids.insert(id.to_owned())
    {
        problems.fail(&format!("{at}.custom_id"), "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated");
    }
}

/// A modal: a title of 45 characters and one to five text inputs, each in a row of its own.
pub(super) fn modal(data: &Value) -> Result<(), Refusal> {
    let mut problems = Problems::default();
    problems.string("data", data, "custom_id", (1, 100), true);
    problems.string("data", data, "title", (1, 45), true);
    let rows = items(&data["components"]);
    if rows.is_empty() || rows.len() > 5 {
        problems.fail("data.components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.");
    }
    let mut ids = HashSet::new();
    for (index, row) in rows.iter().enumerate() {
        let at = format!("data.components.{index}");
        match (row["type"].as_u64(), items(&row["components"])) {
            (Some(ROW), [input]) if input["type"] == TEXT_INPUT => {
                text_input(&mut problems, &format!("{at}.components.0"), input, &mut ids)
            }
            _ => problems.fail(&format!("{at}.components"), "BASE_TYPE_BAD_LENGTH", "Must be 1 in length, a text input."),
        }
    }
    problems.finish()
}

fn text_input(problems: &mut Problems, at: &str, input: &Value, ids: &mut HashSet<String>) {
    custom_id(problems, at, input, ids);
    problems.string(at, input, "label", (1, 45), true);
    problems.string(at, input, "placeholder", (0, 100), false);
    problems.string(at, input, "value", (0, 4000), false);
    if !matches!(input["style"].as_u64(), Some(1 | 2)) {
        problems.fail(&format!("{at}.style"), "BASE_TYPE_CHOICES", "Value must be one of (1, 2).");
    }
    for name in ["min_length", "max_length"] {
        if input[name].as_u64().is_some_and(|length| length > 4000) {
            problems.fail(&format!("{at}.{name}"), "NUMBER_TYPE_MAX", "int value should be less than or equal to 4000.");
        }
    }
}
