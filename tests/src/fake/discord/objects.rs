//! Discord's objects: users, members, roles, channels, the guild, the application (discord.com/developers/docs, "Resources").

use serde_json::{Value, json};

use super::super::json::merge;
use super::Config;

/// Administrators aside, what members of the fake guild may do: view, send, read history, use commands.
const PERMISSIONS: &str = "2147569664";

/// Somebody with a Discord account.
#[derive(Clone, Debug)]
pub struct User {
    /// The immutable id.
    pub id: String,
    /// The name.
    pub name: String,
    /// Another application's bot.
    pub is_bot: bool,
    /// Ids of the roles in the guild.
    pub roles: Vec<String>,
}

impl User {
    /// A member of the guild.
    pub fn member(id: &str, name: &str) -> Self {
        Self { id: id.to_owned(), name: name.to_owned(), is_bot: false, roles: Vec::new() }
    }

    /// Another application's bot.
    pub fn bot(id: &str, name: &str) -> Self {
        Self { is_bot: true, ..Self::member(id, name) }
    }

    /// The same person with one more role.
    pub fn with_role(mut self, role: &str) -> Self {
        self.roles.push(role.to_owned());
        self
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "username": self.name, "global_name": self.name, "avatar": null, "discriminator": "0", "public_flags": 0, "flags": 0,
            "bot": self.is_bot, "banner": null, "accent_color": null, "avatar_decoration_data": null, "collectibles": null, "primary_guild": null
        })
    }

    /// The member object; interactions carry the computed permissions in it.
    pub(super) fn member_json(&self) -> Value {
        json!({
            "user": self.json(), "nick": null, "avatar": null, "banner": null, "roles": self.roles, "joined_at": "2024-01-01T00:00:00.000000+00:00",
            "premium_since": null, "deaf": false, "mute": false, "flags": 0, "pending": false, "permissions": PERMISSIONS,
            "communication_disabled_until": null, "unusual_dm_activity_until": null, "avatar_decoration_data": null
        })
    }
}

/// The bot's own user.
pub(super) fn bot_user(config: &Config) -> User {
    User::bot(&config.application_id, "watchkeeper")
}

/// A role of the guild.
#[derive(Clone, Debug)]
pub struct Role {
    /// The immutable id.
    pub id: String,
    /// The name.
    pub name: String,
}

impl Role {
    /// A role without special permissions.
    pub fn new(id: &str, name: &str) -> Self {
        Self { id: id.to_owned(), name: name.to_owned() }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "color": 0, "colors": {"primary_color": 0, "secondary_color": null, "tertiary_color": null},
            "hoist": false, "icon": null, "unicode_emoji": null, "position": 1, "permissions": PERMISSIONS, "managed": false, "mentionable": true,
            "flags": 0
        })
    }
}

/// A channel of the guild, or a thread in one.
#[derive(Clone, Debug)]
pub struct Channel {
    /// The immutable id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The channel a thread belongs to.
    pub parent: Option<String>,
    /// Whether the bot may see it and write there.
    pub accessible: bool,
    pub(super) auto_archive: u64,
}

impl Channel {
    /// A text channel that the bot may write in.
    pub fn new(id: &str, name: &str) -> Self {
        Self { id: id.to_owned(), name: name.to_owned(), parent: None, accessible: true, auto_archive: 1440 }
    }

    pub(super) fn json(&self, config: &Config) -> Value {
        let mut json = json!({
            "id": self.id, "type": 0, "guild_id": config.guild_id, "name": self.name, "parent_id": self.parent, "last_message_id": null,
            "position": 0, "permission_overwrites": [], "topic": null, "nsfw": false, "rate_limit_per_user": 0, "flags": 0
        });
        if self.parent.is_some() {
            json["type"] = json!(11);
            json["owner_id"] = json!(config.application_id);
            json["message_count"] = json!(0);
            json["member_count"] = json!(1);
            json["thread_metadata"] = json!({
                "archived": false, "auto_archive_duration": self.auto_archive, "archive_timestamp": "2024-01-01T00:00:00.000000+00:00",
                "locked": false, "create_timestamp": "2024-01-01T00:00:00.000000+00:00"
            });
        }
        json
    }

    /// The partial channel of an interaction.
    pub(super) fn partial(&self, config: &Config) -> Value {
        let mut json = self.json(config);
        json["permissions"] = json!(PERMISSIONS);
        json
    }
}

/// The application as it sees itself.
pub(super) fn application(config: &Config, public_key: &str) -> Value {
    json!({
        "id": config.application_id, "name": "watchkeeper", "icon": null, "description": "", "rpc_origins": [], "bot_public": false,
        "bot_require_code_grant": false, "verify_key": public_key, "team": null, "owner": User::member("1100000000000000499", "owner").json(),
        "flags": 0, "redirect_uris": [], "interactions_endpoint_url": null, "role_connections_verification_url": null, "summary": "",
        "approximate_guild_count": 1, "approximate_user_install_count": 0, "hook": true
    })
}

/// The guild as `GUILD_CREATE` brings it.
pub(super) fn guild(config: &Config) -> Value {
    let mut roles: Vec<Value> = config.roles.iter().map(Role::json).collect();
    roles.push(Role::new(&config.guild_id, "@everyone").json());
    let channels: Vec<Value> = config.channels.iter().map(|channel| channel.json(config)).collect();
    let own = json!({
        "id": config.guild_id, "name": "watchkeeper test", "icon": null, "splash": null, "discovery_splash": null, "owner_id": "1100000000000000499",
        "afk_channel_id": null, "afk_timeout": 300, "verification_level": 0, "default_message_notifications": 0, "explicit_content_filter": 0,
        "roles": roles, "emojis": [], "features": [], "mfa_level": 0, "application_id": null, "system_channel_id": null, "system_channel_flags": 0,
        "rules_channel_id": null, "max_members": 500_000, "vanity_url_code": null, "description": null, "banner": null, "premium_tier": 0
    });
    let rest = json!({
        "premium_subscription_count": 0, "preferred_locale": "en-US", "public_updates_channel_id": null, "nsfw_level": 0, "stickers": [],
        "premium_progress_bar_enabled": false, "safety_alerts_channel_id": null, "incidents_data": null, "joined_at": "2024-01-01T00:00:00.000000+00:00",
        "large": false, "unavailable": false, "member_count": 5, "voice_states": [], "members": [bot_user(config).member_json()],
        "channels": channels, "threads": [], "presences": [], "stage_instances": [], "guild_scheduled_events": [], "soundboard_sounds": []
    });
    merge(own, &rest)
}
