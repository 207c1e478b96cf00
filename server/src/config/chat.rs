//! `slack` and `discord`: one workspace and one server, and how to know that it is they who call.

use std::net::IpAddr;

use domain::chat::Budget;
use domain::rules::tree::Node;
use reqwest::Url;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::one_or_many::OneOrMany;
use super::part::Sections;

/// One Slack workspace.
#[derive(Clone, Debug)]
pub(crate) struct SlackConfig {
    /// The Web API.
    pub(crate) api_url: String,
    /// `xoxb-…`
    pub(crate) bot_token: SecretString,
    /// One, or two while it is being changed.
    pub(crate) signing_secrets: Vec<SecretString>,
    /// `T…`
    pub(crate) team_id: String,
    /// How often it may be called.
    pub(crate) rate: Budget,
}

/// One Discord server.
#[derive(Clone, Debug)]
pub(crate) struct DiscordConfig {
    /// The host of the REST API.
    pub(crate) api_url: String,
    /// The application.
    pub(crate) application_id: String,
    /// Its public key, in hex.
    pub(crate) public_key: String,
    /// The bot's token.
    pub(crate) bot_token: SecretString,
    /// The server.
    pub(crate) guild_id: String,
    /// Whether to hear by the gateway; otherwise Discord calls us.
    pub(crate) gateway: bool,
}

impl From<SlackConfig> for bot::slack::SlackConfig {
    fn from(config: SlackConfig) -> Self {
        let SlackConfig { api_url, bot_token, signing_secrets, team_id, rate } = config;
        Self { api_url, bot_token, signing_secrets, team_id, rate }
    }
}

impl From<DiscordConfig> for bot::discord::DiscordConfig {
    fn from(config: DiscordConfig) -> Self {
        let DiscordConfig { api_url, application_id, public_key, bot_token, guild_id, gateway: _ } = config;
        Self { api_url, application_id, public_key, bot_token, guild_id }
    }
}

/// One Slack workspace. The app's request addresses are `/slack/interactions`, `/slack/commands` and `/slack/events`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenSlack {
    /// The workspace: the `T…` in its address. People of any other are strangers.
    team_id: String,
    /// The app's Bot User OAuth Token, `xoxb-…`.
    #[schemars(with = "String")]
    bot_token: SecretString,
    /// The app's Signing Secret; two while it is being changed.
    signing_secret: OneOrMany<SecretString>,
    /// Only for tests and proxies. Default https://slack.com/api.
    #[serde(default)]
    api_url: Option<String>,
    /// How often Slack may be called. The default keeps to what Slack allows everybody; raise it only where you were granted more.
    #[serde(default)]
    rate: Option<Rate>,
}

/// A burst after a quiet time, and a rate afterwards.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rate {
    /// Calls at once. Default 10.
    burst: u32,
    /// Calls a second. Default 0.8.
    per_second: f64,
}

/// One Discord server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenDiscord {
    /// The application's id.
    application_id: String,
    /// The application's public key: 64 hex digits.
    public_key: String,
    /// The bot's token.
    #[schemars(with = "String")]
    bot_token: SecretString,
    /// The server's id. People of any other are strangers.
    guild_id: String,
    /// Hear presses and commands by a connection of our own. Switch it off where Discord calls `/discord/interactions`. Default true.
    #[serde(default)]
    gateway: Option<bool>,
    /// Only for tests and proxies. Default https://discord.com.
    #[serde(default)]
    api_url: Option<String>,
}

impl SlackConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Option<Self> {
        section_of_channels(cx, "slack");
        let (node, written) = cx.value::<WrittenSlack>("slack")?;
        let good = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        if !written.team_id.starts_with(['T', 'E']) || !written.team_id.chars().all(good) {
            let help = "it is the T… in the address of the workspace, and in `auth.test`".to_owned();
            cx.report().add(node.find(&["team_id"]).at, format!("{:?} is no Slack workspace", written.team_id), help);
        } else {
            strangers(cx, "slack", &written.team_id);
        }
        if written.signing_secret.0.is_empty() || written.signing_secret.0.len() > 2 {
            let help = "give one, or two while it is being changed".to_owned();
            cx.report().add(node.find(&["signing_secret"]).at, "Slack signs with one secret", help);
        }
        Some(Self {
            api_url: api_url(cx, &node, written.api_url, "https://slack.com/api"),
            bot_token: written.bot_token,
            signing_secrets: written.signing_secret.0,
            team_id: written.team_id,
            rate: written
                .rate
                .map_or_else(Budget::default, |rate| Budget { burst: f64::from(rate.burst.max(2)), per_second: rate.per_second.max(0.01) }),
        })
    }
}

impl DiscordConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Option<Self> {
        section_of_channels(cx, "discord");
        let (node, written) = cx.value::<WrittenDiscord>("discord")?;
        for (key, id) in [("application_id", &written.application_id), ("guild_id", &written.guild_id)] {
            if id.is_empty() || id.len() > 20 || !id.chars().all(|c| c.is_ascii_digit()) {
                let help = "turn on Discord's developer mode, then right-click and copy the id: a long number".to_owned();
                cx.report().add(node.find(&[key]).at, format!("{id:?} is no Discord id"), help);
            }
        }
        if !hex::decode(&written.public_key).is_ok_and(|key| key.len() == 32) {
            let help = "copy it from the application's page: 64 hex digits".to_owned();
            cx.report().add(node.find(&["public_key"]).at, "this is no public key of a Discord application", help);
        }
        strangers(cx, "discord", &written.guild_id);
        Some(Self {
            api_url: api_url(cx, &node, written.api_url, "https://discord.com"),
            application_id: written.application_id,
            public_key: written.public_key,
            bot_token: written.bot_token,
            guild_id: written.guild_id,
            gateway: written.gateway.unwrap_or(true),
        })
    }
}

/// A channel on a platform that nobody says how to reach would stay empty.
fn section_of_channels(cx: &mut Sections<'_, '_, '_>, platform: &str) {
    if cx.written(platform).is_some() {
        return;
    }
    let channels = cx.written("channels").map(Node::entries).unwrap_or_default();
    for (name, node) in channels {
        if node.get("platform").and_then(Node::text) == Some(platform) {
            let help = format!("add the section `{platform}:`, see deploy/watchkeeper.example.yaml");
            let message = format!("the channel `{name}` is on {platform}, and nothing says how to reach it");
            cx.report().add(node.find(&["platform"]).at, message, help);
        }
    }
}

/// An identity in another workspace than the configured one would be refused as a stranger at every press.
fn strangers(cx: &mut Sections<'_, '_, '_>, platform: &str, workspace: &str) {
    let people = cx.written("principals").map(Node::entries).unwrap_or_default();
    for (name, node) in people {
        let Some(ids) = node.get(platform) else { continue };
        let all = ids.text().map(|_| ids).into_iter().chain(ids.items());
        for id in all {
            let text = id.text().unwrap_or_default();
            if text.split_once('/').is_some_and(|(of, _)| of != workspace) {
                let help = format!("only {workspace} is configured: people of other workspaces are strangers");
                cx.report().add(id.at, format!("`{name}` is linked to another {platform} workspace"), help);
            }
        }
    }
}

/// Tokens go there: HTTPS, or this machine.
fn api_url(cx: &mut Sections<'_, '_, '_>, node: &Node, written: Option<String>, default: &str) -> String {
    let Some(text) = written else { return default.to_owned() };
    let here = |url: &Url| {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    if !Url::parse(&text).is_ok_and(|url| url.scheme() == "https" || (url.scheme() == "http" && here(&url))) {
        let help = format!("leave it out: the default is {default}");
        cx.report().add(node.find(&["api_url"]).at, "the token may only go to an https:// address, or to this machine", help);
    }
    text.trim_end_matches('/').to_owned()
}
