//! What Discord sends to applications, in full (discord.com/developers/docs, "Interaction Object").

use serde_json::{Value, json};

use super::super::json::merge;
use super::interaction::{PING, Record};
use super::objects::User;
use super::state::State;
use super::{Core, Message};

/// Where an interaction happens and on which message.
pub(super) struct Scene<'a> {
    pub(super) user: &'a User,
    pub(super) channel: &'a str,
    pub(super) message: Option<&'a Message>,
}

/// Makes a new interaction of `kind` and what is sent about it.
pub(super) fn interaction(core: &Core, state: &mut State, kind: u64, scene: &Scene<'_>, data: Value) -> Value {
    let (record, payload) = begin(core, state, kind, scene);
    let config = &core.config;
    let channel = state.channels.iter().find(|channel| channel.id == scene.channel).map(|channel| channel.partial(config));
    let rest = json!({
        "data": data, "guild_id": config.guild_id, "guild": {"id": config.guild_id, "locale": "en-US", "features": []}, "guild_locale": "en-US",
        "channel_id": scene.channel, "channel": channel, "member": scene.user.member_json(), "locale": "en-US", "context": 0
    });
    let mut payload = merge(payload, &rest);
    if let Some(message) = scene.message {
        let mut json = message.json(config, state);
        json["guild_id"] = json!(config.guild_id);
        payload["message"] = json;
    }
    state.interactions.push(record);
    payload
}

/// The check of a new endpoint.
pub(super) fn ping(core: &Core, state: &mut State) -> Value {
    let user = User::member("1100000000000000499", "owner");
    let (record, mut payload) = begin(core, state, PING, &Scene { user: &user, channel: "", message: None });
    payload["user"] = user.json();
    state.interactions.push(record);
    payload
}

fn begin(core: &Core, state: &mut State, kind: u64, scene: &Scene<'_>) -> (Record, Value) {
    let config = &core.config;
    let id = state.next_id(core.time.now());
    let token = format!("aW50ZXJhY3Rpb246{id}-{}", state.next_id(core.time.now()));
    let record = Record {
        id: id.clone(),
        token: token.clone(),
        kind,
        user: scene.user.id.clone(),
        channel: scene.channel.to_owned(),
        source: scene.message.map(|message| message.id.clone()),
        made: core.time.now(),
        in_flight: false,
        response: None,
        original: None,
    };
    let payload = json!({
        "id": id, "application_id": config.application_id, "type": kind, "token": token, "version": 1, "app_permissions": "2147569664",
        "entitlements": [], "entitlement_sku_ids": [], "authorizing_integration_owners": {"0": config.guild_id}, "attachment_size_limit": 10_485_760
    });
    (record, payload)
}
