//! The people and channels of the workspace, and the methods that list them.

use serde_json::{Value, json};

use super::Config;
use super::args::{Args, Refusal};
use super::state::State;

/// Somebody with a Slack account.
#[derive(Clone, Debug)]
pub struct User {
    /// The immutable id (`U…`).
    pub id: String,
    /// The handle.
    pub name: String,
    /// The workspace, where it is not the app's own.
    pub team_id: Option<String>,
    /// An app's user.
    pub is_bot: bool,
    /// A multi-channel guest.
    pub is_restricted: bool,
    /// A single-channel guest.
    pub is_ultra_restricted: bool,
    /// A deactivated account.
    pub deleted: bool,
}

impl User {
    /// A full member of the workspace.
    pub fn member(id: &str, name: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            team_id: None,
            is_bot: false,
            is_restricted: false,
            is_ultra_restricted: false,
            deleted: false,
        }
    }

    /// A multi-channel guest.
    pub fn guest(id: &str, name: &str) -> Self {
        Self { is_restricted: true, ..Self::member(id, name) }
    }

    /// Another app's bot user.
    pub fn bot(id: &str, name: &str) -> Self {
        Self { is_bot: true, ..Self::member(id, name) }
    }

    /// The same person as a member of another workspace (Slack Connect).
    pub fn of_team(self, team_id: &str) -> Self {
        Self { team_id: Some(team_id.to_owned()), ..self }
    }

    /// The workspace the account belongs to.
    pub(super) fn team(&self, config: &Config) -> String {
        self.team_id.clone().unwrap_or_else(|| config.team_id.clone())
    }

    fn json(&self, config: &Config) -> Value {
        json!({
            "id": self.id, "team_id": self.team(config), "name": self.name, "deleted": self.deleted, "color": "9f69e7", "real_name": self.name,
            "tz": "Etc/UTC", "tz_label": "Coordinated Universal Time", "tz_offset": 0,
            "profile": {
                "title": "", "phone": "", "skype": "", "real_name": self.name, "real_name_normalized": self.name, "display_name": self.name,
                "display_name_normalized": self.name, "team": self.team(config)
            },
            "is_admin": false, "is_owner": false, "is_primary_owner": false, "is_restricted": self.is_restricted,
            "is_ultra_restricted": self.is_ultra_restricted, "is_bot": self.is_bot, "is_app_user": self.is_bot, "updated": 1_502_138_686,
            "is_email_confirmed": true, "is_stranger": self.team_id.is_some(), "who_can_share_contact_card": "EVERYONE"
        })
    }
}

/// A channel of the workspace.
#[derive(Clone, Debug)]
pub struct Channel {
    /// The immutable id (`C…`).
    pub id: String,
    /// The name without `#`.
    pub name: String,
    /// Whether the app's bot is in it.
    pub is_member: bool,
    /// Whether it is read-only by now.
    pub is_archived: bool,
}

impl Channel {
    /// A channel that the bot is a member of.
    pub fn new(id: &str, name: &str) -> Self {
        Self { id: id.to_owned(), name: name.to_owned(), is_member: true, is_archived: false }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "name_normalized": self.name, "is_channel": true, "is_group": false, "is_im": false, "is_mpim": false,
            "is_private": false, "is_archived": self.is_archived, "is_general": false, "is_shared": false, "is_org_shared": false,
            "is_member": self.is_member, "created": 1_449_252_889, "creator": "U0ANN0001", "num_members": 4,
            "topic": {"value": "", "creator": "", "last_set": 0}, "purpose": {"value": "", "creator": "", "last_set": 0}, "previous_names": []
        })
    }
}

pub(super) fn users_info(config: &Config, state: &State, args: &Args) -> Result<Value, Refusal> {
    let id = args.required("user")?;
    let bot = User { is_bot: true, ..User::member(&config.bot_user_id, "watchkeeper") };
    let user = state.users.iter().chain([&bot]).find(|user| user.id == id).ok_or_else(|| Refusal::new("user_not_found"))?;
    Ok(json!({"user": user.json(config)}))
}

pub(super) fn conversations_info(state: &State, args: &Args) -> Result<Value, Refusal> {
    Ok(json!({"channel": state.channel(args.required("channel")?)?.json()}))
}

pub(super) fn conversations_list(state: &State) -> Value {
    let channels: Vec<Value> = state.channels.iter().map(Channel::json).collect();
    json!({"channels": channels, "response_metadata": {"next_cursor": ""}})
}

pub(super) fn auth_test(config: &Config) -> Value {
    json!({
        "url": format!("https://{}.slack.com/", config.team_domain), "team": config.team_domain, "user": "watchkeeper", "team_id": config.team_id,
        "user_id": config.bot_user_id, "bot_id": config.bot_id, "is_enterprise_install": false
    })
}
