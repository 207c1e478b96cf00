//! What Slack sends to apps, in full (docs.slack.dev, "Interaction payloads", "Slash commands", "Events API").

use serde_json::{Value, json};

use super::super::json::string;
use super::state::State;
use super::{Core, Message, User, View, response_url};

/// Who acts and in which workspace; the first lines of every interaction.
fn head(core: &Core, kind: &str, user: &User, trigger: &str) -> Value {
    json!({
        "type": kind,
        "user": {"id": user.id, "username": user.name, "name": user.name, "team_id": user.team(&core.config)},
        "api_app_id": core.config.app_id, "token": "deprecated-verification-token",
        "team": {"id": core.config.team_id, "domain": core.config.team_domain},
        "enterprise": null, "is_enterprise_install": false, "trigger_id": trigger
    })
}

/// A pressed button or a choice from a menu; `action` is the element's own part of `actions[0]`.
pub(super) fn block_actions(core: &Core, state: &mut State, user: &User, message: &Message, at: (Option<usize>, &Value, Value)) -> Value {
    let now = core.time.now();
    let (attachment, block, mut action) = at;
    let trigger = state.trigger(&user.id, now);
    let mut payload = head(core, "block_actions", user, &trigger);
    action["block_id"] = block["block_id"].clone();
    action["action_ts"] = json!(state.next_ts(now));
    payload["container"] =
        json!({"type": "message", "message_ts": message.ts, "channel_id": message.channel, "is_ephemeral": message.only_for.is_some()});
    if let Some(index) = attachment {
        payload["container"]["type"] = json!("message_attachment");
        payload["container"]["attachment_id"] = json!(index + 1);
        payload["container"]["is_app_unfurl"] = json!(false);
    }
    if let Some(parent) = &message.thread_ts {
        payload["container"]["thread_ts"] = json!(parent);
    }
    let name = state.channel(&message.channel).map(|channel| channel.name.clone()).unwrap_or_default();
    payload["channel"] = json!({"id": message.channel, "name": name});
    if message.only_for.is_none() {
        payload["message"] = message.json(&core.config);
    }
    payload["state"] = json!({"values": {}});
    payload["response_url"] = json!(response_url::make(core, state, "actions", &user.id, &message.channel, Some(&message.ts)));
    payload["actions"] = json!([action]);
    payload
}

/// The `actions[0]` of a pressed button.
pub(super) fn button(element: &Value) -> Value {
    let mut action = json!({"type": "button", "action_id": element["action_id"], "text": element["text"]});
    action["text"]["emoji"] = json!(true);
    for name in ["value", "style"] {
        if let Some(value) = element.get(name) {
            action[name] = value.clone();
        }
    }
    action
}

/// The `actions[0]` of a choice.
pub(super) fn choice(element: &Value, option: Value) -> Value {
    json!({"type": element["type"], "action_id": element["action_id"], "selected_option": option, "placeholder": element["placeholder"]})
}

/// A submitted or closed modal.
pub(super) fn view(core: &Core, state: &mut State, kind: &str, user: &User, view: &View, values: Value) -> Value {
    let trigger = state.trigger(&user.id, core.time.now());
    let mut payload = head(core, kind, user, &trigger);
    payload["view"] = view.stateful(&core.config, values);
    if kind == "view_submission" {
        payload["response_urls"] = json!([]);
    } else {
        payload["is_cleared"] = json!(false);
        payload.as_object_mut().map(|fields| fields.remove("trigger_id"));
    }
    payload
}

/// The fields of a slash command's form.
pub(super) fn command(core: &Core, state: &mut State, user: &User, channel: &str, command: &str, text: &str) -> Value {
    let name = state.channel(channel).map(|channel| channel.name.clone()).unwrap_or_default();
    json!({
        "token": "deprecated-verification-token", "team_id": core.config.team_id, "team_domain": core.config.team_domain, "channel_id": channel,
        "channel_name": name, "user_id": user.id, "user_name": user.name, "command": command, "text": text, "api_app_id": core.config.app_id,
        "is_enterprise_install": "false", "response_url": response_url::make(core, state, "commands", &user.id, channel, None),
        "trigger_id": state.trigger(&user.id, core.time.now())
    })
}

/// The envelope of an Events API event.
pub(super) fn event(core: &Core, state: &mut State, event: &Value) -> Value {
    let config = &core.config;
    json!({
        "token": "deprecated-verification-token", "team_id": config.team_id, "context_team_id": config.team_id, "context_enterprise_id": null,
        "api_app_id": config.app_id, "event": event, "type": "event_callback", "event_id": format!("Ev{:08}", state.next_id()),
        "event_time": core.time.now().as_second(),
        "authorizations": [
            {"enterprise_id": null, "team_id": config.team_id, "user_id": config.bot_user_id, "is_bot": true, "is_enterprise_install": false}
        ],
        "is_ext_shared_channel": false, "event_context": format!("4-{}", string(&event["type"]))
    })
}
