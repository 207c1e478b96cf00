//! Slack: cards as Block Kit by the Web API, and presses, commands and modals by signed HTTP requests.

mod api;
mod inbound;
mod members;
mod modal;
mod outbound;
mod payload;
mod render;
mod sign;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use domain::chat::Budget;
use domain::inbox::{Inbox, Lookup};
use domain::time::Clock;
use secrecy::{ExposeSecret, SecretString};

use crate::edge::Edge;
use crate::{Misconfigured, http};

/// The name in the configuration and in identities.
pub const PLATFORM: &str = "slack";
/// Where Slack's Web API is.
pub const API_URL: &str = "https://slack.com/api";

/// How to reach one workspace, and how to know that it is Slack who calls.
#[derive(Clone, Debug)]
pub struct SlackConfig {
    /// The Web API, [`API_URL`] but for tests and proxies. Answers are also posted to its host.
    pub api_url: String,
    /// The bot's token (`xoxb-…`).
    pub bot_token: SecretString,
    /// The app's signing secret; two while it is being rotated.
    pub signing_secrets: Vec<SecretString>,
    /// The workspace (`T…`): people of any other are strangers.
    pub team_id: String,
    /// How often it may be called.
    pub rate: Budget,
}

/// One workspace. Posts and edits through `domain::chat::Chat`, hears through `domain::inbox::HttpInbound`.
pub struct Slack {
    api: Arc<api::Api>,
    secrets: Vec<SecretString>,
    team_id: String,
    rate: Budget,
    members: members::Members,
    edge: Edge,
}

impl Slack {
    /// Checks the settings; opens no connection.
    ///
    /// # Errors
    /// [`Misconfigured`]: without a token, a secret or a team nothing could be trusted.
    pub fn new(config: SlackConfig, inbox: Arc<dyn Inbox>, lookup: Arc<dyn Lookup>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Misconfigured> {
        let api_url = http::base("slack.api_url", &config.api_url)?;
        if config.bot_token.expose_secret().trim().is_empty() {
            return Err(Misconfigured::new("`slack.bot_token` is empty: copy the Bot User OAuth Token (xoxb-…) of the app"));
        }
        let secrets = config.signing_secrets;
        if secrets.is_empty() || secrets.len() > 2 || secrets.iter().any(|secret| secret.expose_secret().trim().is_empty()) {
            return Err(Misconfigured::new("`slack.signing_secret` must be one secret, or two while rotating: copy the app's Signing Secret"));
        }
        if config.team_id.trim().is_empty() {
            return Err(Misconfigured::new("`slack.team_id` is empty: it is the T… in the address of the workspace, and in `auth.test`"));
        }
        let api = Arc::new(api::Api::new(http::client()?, api_url, config.bot_token));
        let members = members::Members::default();
        Ok(Arc::new(Self { api, secrets, team_id: config.team_id, rate: config.rate, members, edge: Edge { inbox, lookup, clock } }))
    }
}
