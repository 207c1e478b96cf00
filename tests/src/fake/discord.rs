//! A fake of Discord: HTTP API v10, the gateway, and interactions over either.
//!
//! It keeps messages per channel and thread as Discord would, refuses what Discord refuses, and lets people act: see
//! [`FakeDiscord::click`].

mod act;
mod api;
mod commands;
mod components;
mod deliver;
mod errors;
mod gateway;
mod interaction;
mod markdown;
mod message;
mod messages;
mod objects;
mod payload;
mod respond;
mod session;
mod state;
mod validate;
mod watch;
mod webhooks;

#[cfg(test)]
mod tests;

pub use deliver::{Delivery, Outcome, Signed, Target};
pub use interaction::{Interaction, Modal};
pub use markdown::{Link, Mention};
pub use message::{Button, File, Menu, Message, Version};
pub use objects::{Channel, Role, User};
pub use state::Seen;
pub use watch::ChannelView;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::shared::Shared;
use super::wire::{self, Server};
use super::{Fault, Time};
use state::State;

/// What the guild and the application look like. Ids are snowflakes in decimal.
#[derive(Clone, Debug)]
pub struct Config {
    /// The application, and its bot user.
    pub application_id: String,
    /// The bot token the API accepts, without `Bot `.
    pub bot_token: String,
    /// The seed of the application's Ed25519 key pair; see [`FakeDiscord::public_key`].
    pub key_seed: [u8; 32],
    /// The guild.
    pub guild_id: String,
    /// The channels there are.
    pub channels: Vec<Channel>,
    /// The roles there are.
    pub roles: Vec<Role>,
    /// The people there are.
    pub users: Vec<User>,
    /// How often the gateway wants a heartbeat.
    pub heartbeat: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            application_id: "1100000000000000001".to_owned(),
            bot_token: "fake.bot.token".to_owned(),
            key_seed: [7; 32],
            guild_id: "1100000000000000100".to_owned(),
            channels: vec![Channel::new("1100000000000000201", "ops"), Channel::new("1100000000000000202", "dev")],
            roles: vec![Role::new("1100000000000000301", "sre"), Role::new("1100000000000000302", "viewer")],
            users: vec![
                User::member("1100000000000000401", "ann").with_role("1100000000000000301"),
                User::member("1100000000000000402", "ben").with_role("1100000000000000302"),
                User::member("1100000000000000403", "cleo").with_role("1100000000000000301"),
                User::bot("1100000000000000404", "robo"),
            ],
            heartbeat: Duration::from_millis(41_250),
        }
    }
}

/// A running fake of Discord. Clones are the same Discord; it ends when the last clone is dropped.
#[derive(Clone)]
pub struct FakeDiscord {
    core: Arc<Core>,
    servers: Arc<(Server, gateway::Listener)>,
    client: reqwest::Client,
}

/// What the servers and the actors share.
struct Core {
    config: Config,
    key: SigningKey,
    time: Time,
    state: Shared<State>,
}

impl FakeDiscord {
    /// Starts Discord on free loopback ports.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let state = Shared::new(State::new(&config));
        let key = SigningKey::from_bytes(&config.key_seed);
        let core = Arc::new(Core { config, key, time: Time::default(), state });
        let gateway = gateway::listen(core.clone()).await?;
        core.state.change(|state| state.gateway_at = Some(gateway.addr));
        let serving = core.clone();
        let server = wire::serve(move |call| api::serve(serving.clone(), call)).await?;
        Ok(Self { core, servers: Arc::new((server, gateway)), client: crate::http()? })
    }

    /// What stands for `https://discord.com`: a client appends `/api/v10/…` (serenity's `proxy`).
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Where the HTTP server listens.
    pub fn addr(&self) -> SocketAddr {
        self.servers.0.addr
    }

    /// The application's public key in hex, as the developer portal shows it.
    pub fn public_key(&self) -> String {
        hex::encode(self.core.key.verifying_key().as_bytes())
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.core.config
    }

    /// Discord's clock: advance it to let limits refill and tokens expire.
    pub fn time(&self) -> &Time {
        &self.core.time
    }

    /// Makes the next `times` calls of an operation go wrong. Operations are `METHOD` and route with `:` for every variable part, such as
    /// `POST /channels/:/messages`; `*` stands for all.
    pub fn fail(&self, operation: &str, fault: Fault, times: usize) {
        self.core.state.change(|state| state.faults.plant(operation, fault, times));
    }

    /// Forgets the faults not used yet.
    pub fn heal(&self) {
        self.core.state.change(|state| state.faults.clear());
    }

    /// Switches the rate limits on or off: 5 messages or edits in 5 s per channel, 50 requests a second in all. The `X-RateLimit` headers are
    /// always there.
    pub fn rate_limits(&self, on: bool) {
        self.core.state.change(|state| state.limits.on = on);
    }

    /// How many calls the limits answered with 429.
    pub fn throttled(&self) -> usize {
        self.core.state.look(|state| state.limits.throttled)
    }

    /// How many calls came before the wait they had been told of was over.
    pub fn impatient(&self) -> usize {
        self.core.state.look(|state| state.limits.impatient)
    }

    /// How many answers were 401, 403 or 429: 10,000 of them in ten minutes ban an address.
    pub fn invalid_requests(&self) -> usize {
        self.calls().iter().filter(|call| matches!(call.status, 401 | 403 | 429)).count()
    }

    /// Every call so far, in order of arrival.
    pub fn calls(&self) -> Vec<Seen> {
        self.core.state.look(|state| state.calls.clone())
    }

    /// The calls of one operation, named as in [`FakeDiscord::fail`].
    pub fn calls_of(&self, operation: &str) -> Vec<Seen> {
        self.calls().into_iter().filter(|call| call.operation == operation).collect()
    }

    /// The calls that Discord refused by its own rules: a correct client has none (rate limits and planted faults aside).
    pub fn refused(&self) -> Vec<Seen> {
        self.calls().into_iter().filter(|call| call.error.is_some()).collect()
    }

    /// Waits until a call of `operation` arrived that `test` accepts.
    ///
    /// # Errors
    /// If none came within `within`.
    pub async fn wait_for_call(&self, operation: &str, test: impl Fn(&Seen) -> bool, within: Duration) -> anyhow::Result<Seen> {
        let find = |state: &mut State| state.calls.iter().find(|call| call.operation == operation && test(call)).cloned();
        let found = self.core.state.wait(within, find).await;
        found.ok_or_else(|| anyhow::anyhow!("no such call of {operation} within {within:?}; calls: {:#?}", self.calls_of(operation)))
    }

    /// Adds a person or changes the one of that id.
    pub fn put_user(&self, user: User) {
        self.core.state.change(|state| {
            state.users.retain(|known| known.id != user.id);
            state.users.push(user);
        });
    }
}
