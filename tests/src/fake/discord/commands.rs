//! Guild commands: registering all at once, and what a person may type.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::super::json::{items, merge};
use super::Core;
use super::api::Body;
use super::errors::{Problems, Refusal};
use super::state::State;

const SUB_COMMAND: u64 = 1;
const SUB_COMMAND_GROUP: u64 = 2;

/// `PUT` replaces the commands, `GET` lists them.
pub(super) fn route(core: &Core, state: &mut State, put: bool, body: &Body) -> Result<Value, Refusal> {
    if put {
        let Some(list) = body.json.as_array() else { return Err(Refusal::new(400, 50_109, "The request body contains invalid JSON.")) };
        let mut problems = Problems::default();
        let mut names = HashSet::new();
        if list.len() > 100 {
            problems.fail("commands", "BASE_TYPE_MAX_LENGTH", "Must be 100 or fewer in length.");
        }
        for (index, command) in list.iter().enumerate() {
            let at = index.to_string();
            if !names.insert(command["name"].as_str().unwrap_or_default()) {
                problems.fail(&format!("{at}.name"), "APPLICATION_COMMANDS_DUPLICATE_NAME", "Command name should be unique");
            }
            named(&mut problems, &at, command);
            options(&mut problems, &at, command);
        }
        problems.finish()?;
        state.commands = list.iter().map(|command| complete(core, state_id(core, state), command)).collect();
    }
    Ok(Value::Array(state.commands.clone()))
}

fn state_id(core: &Core, state: &mut State) -> String {
    state.next_id(core.time.now())
}

fn complete(core: &Core, id: String, command: &Value) -> Value {
    let defaults = json!({
        "version": id, "id": id, "application_id": core.config.application_id, "guild_id": core.config.guild_id, "type": 1, "description": "",
        "default_member_permissions": null, "dm_permission": true, "nsfw": false, "options": [], "contexts": null
    });
    merge(defaults, command)
}

fn named(problems: &mut Problems, at: &str, command: &Value) {
    problems.string(at, command, "name", (1, 32), true);
    problems.string(at, command, "description", (1, 100), true);
    let name = command["name"].as_str().unwrap_or_default();
    if name.chars().any(|c| c.is_uppercase() || !(c.is_alphanumeric() || c == '-' || c == '_' || c == '\'')) {
        problems.fail(&format!("{at}.name"), "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid");
    }
}

fn options(problems: &mut Problems, at: &str, holder: &Value) {
    let list = items(&holder["options"]);
    if list.len() > 25 {
        problems.fail(&format!("{at}.options"), "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.");
    }
    let mut optional_seen = false;
    for (index, option) in list.iter().enumerate() {
        let at = format!("{at}.options.{index}");
        named(problems, &at, option);
        match option["type"].as_u64() {
            Some(SUB_COMMAND | SUB_COMMAND_GROUP) => options(problems, &at, option),
            Some(3..=11) => {}
            _ => problems.fail(&format!("{at}.type"), "BASE_TYPE_CHOICES", "Value must be one of (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)."),
        }
        if option["required"] == true && optional_seen {
            let message = "Required options must be placed before non-required options";
            problems.fail(&at, "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", message);
        }
        optional_seen |= option["required"] != true;
        if items(&option["choices"]).len() > 25 {
            problems.fail(&format!("{at}.choices"), "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.");
        }
    }
}

/// The interaction data for a typed command such as `incident list`; the client lets nobody type what is not registered.
/// `focused` names the option being completed.
pub(super) fn typed(state: &State, line: &str, given: &[(&str, Value)], focused: Option<&str>) -> anyhow::Result<Value> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default().trim_start_matches('/');
    let command = state.commands.iter().find(|command| command["name"] == name);
    let command = command.ok_or_else(|| anyhow::anyhow!("no command {name:?} is registered; there are {:?}", names(&state.commands)))?;
    let mut path = Vec::new();
    let mut at = command;
    for word in words {
        let inside = items(&at["options"]);
        at = inside
            .iter()
            .find(|option| option["name"] == word)
            .ok_or_else(|| anyhow::anyhow!("{name} has no {word:?}; there are {:?}", names(inside)))?;
        path.push(at);
    }
    let mut values = Vec::new();
    for option in items(&at["options"]) {
        anyhow::ensure!(
            option["type"].as_u64().is_none_or(|kind| kind > SUB_COMMAND_GROUP),
            "{line:?} needs one of {:?}",
            names(items(&at["options"]))
        );
        let value = given.iter().find(|(name, _)| option["name"] == *name).map(|(_, value)| value);
        let complete = focused.is_none();
        match value {
            Some(value) => {
                let mut one = json!({"name": option["name"], "type": option["type"], "value": value});
                if focused.is_some_and(|focused| option["name"] == focused) {
                    one["focused"] = json!(true);
                }
                values.push(one);
            }
            None => anyhow::ensure!(option["required"] != true || !complete, "{line:?} needs the option {}", option["name"]),
        }
    }
    let unknown = given.iter().find(|(name, _)| !values.iter().any(|value| value["name"] == *name));
    anyhow::ensure!(unknown.is_none(), "{line:?} has no option {unknown:?}");
    let nested =
        path.iter().rev().fold(values, |inside, option| vec![json!({"name": option["name"], "type": option["type"], "options": inside})]);
    Ok(json!({"id": command["id"], "name": command["name"], "type": 1, "guild_id": command["guild_id"], "options": nested}))
}

fn names(list: &[Value]) -> Vec<&str> {
    list.iter().filter_map(|one| one["name"].as_str()).collect()
}
