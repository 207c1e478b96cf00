//! Discord: cards as embeds by the REST API; presses, commands and dialogs by signed HTTP requests or by the gateway.

mod api;
mod commands;
mod escape;
#[cfg(feature = "discord-gateway")]
mod gateway;
mod inbound;
mod outbound;
mod payload;
mod render;
mod sign;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use domain::inbox::{Inbox, Lookup};
use domain::time::Clock;
use secrecy::{ExposeSecret, SecretString};

use crate::edge::Edge;
use crate::{Misconfigured, http};

/// The name in the configuration and in identities.
pub const PLATFORM: &str = "discord";
/// Where Discord's REST API is.
pub const API_URL: &str = "https://discord.com";

/// How to reach one server ("guild"), and how to know that it is Discord who calls.
#[derive(Clone, Debug)]
pub struct DiscordConfig {
    /// The host of the REST API, [`API_URL`] but for tests and proxies.
    pub api_url: String,
    /// The application's id.
    pub application_id: String,
    /// The application's public key, in hex: it signs what Discord sends by HTTP.
    pub public_key: String,
    /// The bot's token.
    pub bot_token: SecretString,
    /// The server: people of any other are strangers.
    pub guild_id: String,
}

/// One server. Posts and edits through `domain::chat::Chat`, hears through `domain::inbox::HttpInbound` and the gateway.
pub struct Discord {
    api: api::Api,
    application_id: String,
    guild_id: String,
    key: sign::Key,
    edge: Edge,
    /// For the gateway, which logs in by itself.
    #[cfg(feature = "discord-gateway")]
    login: (String, SecretString),
}

impl Discord {
    /// Checks the settings; opens no connection.
    ///
    /// # Errors
    /// [`Misconfigured`]: without a token, a key or a server nothing could be trusted.
    pub fn new(config: DiscordConfig, inbox: Arc<dyn Inbox>, lookup: Arc<dyn Lookup>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Misconfigured> {
        let api_url = http::base("discord.api_url", &config.api_url)?;
        if config.bot_token.expose_secret().trim().is_empty() {
            return Err(Misconfigured::new("`discord.bot_token` is empty: reset and copy it on the application's page Bot"));
        }
        for (name, id) in [("application_id", &config.application_id), ("guild_id", &config.guild_id)] {
            if !is_id(id) {
                return Err(Misconfigured::new(format!("`discord.{name}` is {id:?}: it is a number, copy it with Developer Mode on")));
            }
        }
        let key = sign::Key::from_hex(&config.public_key)
            .ok_or_else(|| Misconfigured::new("`discord.public_key` is not 64 hex digits: copy it from the application's General Information"))?;
        Ok(Arc::new(Self {
            #[cfg(feature = "discord-gateway")]
            login: (api_url.clone(), config.bot_token.clone()),
            api: api::Api::new(http::client()?, api_url, config.bot_token),
            application_id: config.application_id,
            guild_id: config.guild_id,
            key,
            edge: Edge { inbox, lookup, clock },
        }))
    }
}

/// Whether a text is one of Discord's ids, and so harmless in a path.
fn is_id(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text can be an interaction's token: base64 with a few marks; anything else could lead elsewhere.
fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=.:".contains(&byte)) && !token.contains("..")
}
