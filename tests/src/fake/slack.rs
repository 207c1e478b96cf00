//! A fake of Slack: Web API, `response_url`, modals, interactivity, slash commands, events and Socket Mode.
//!
//! It keeps messages per channel as Slack would, refuses what Slack refuses, and lets people act: see [`FakeSlack::click`].

mod act;
mod api;
mod args;
mod blocks;
mod chat;
mod content;
mod deliver;
mod directory;
mod elements;
mod message;
mod parts;
mod payload;
mod read;
mod render;
mod response_url;
mod richtext;
mod sign;
mod socket;
mod state;
mod text;
mod view;
mod watch;

#[cfg(test)]
mod tests;

pub use act::Choice;
pub use deliver::{Delivery, Signed, Target};
pub use directory::{Channel, User};
pub use message::{Message, Version};
pub use parts::{Button, Menu};
pub use state::Seen;
pub use text::{Link, Mention};
pub use view::View;
pub use watch::ChannelView;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::wire::{self, Server};
use super::{Fault, Time};
use state::State;

/// What the workspace and the app look like.
#[derive(Clone, Debug)]
pub struct Config {
    /// The workspace (`T…`).
    pub team_id: String,
    /// The workspace's subdomain.
    pub team_domain: String,
    /// The app (`A…`).
    pub app_id: String,
    /// The app's bot (`B…`).
    pub bot_id: String,
    /// The app's bot user (`U…`).
    pub bot_user_id: String,
    /// The bot token the API accepts.
    pub bot_token: String,
    /// The app-level token that `apps.connections.open` accepts.
    pub app_token: String,
    /// The secret that signs what Slack sends.
    pub signing_secret: String,
    /// The channels there are.
    pub channels: Vec<Channel>,
    /// The people there are.
    pub users: Vec<User>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            team_id: "T0WATCH01".to_owned(),
            team_domain: "watchkeeper-test".to_owned(),
            app_id: "A0WATCH01".to_owned(),
            bot_id: "B0WATCH01".to_owned(),
            bot_user_id: "U0BOT0001".to_owned(),
            bot_token: "xoxb-fake-bot-token".to_owned(),
            app_token: "xapp-fake-app-token".to_owned(),
            signing_secret: "0123456789abcdef0123456789abcdef".to_owned(),
            channels: vec![Channel::new("C0OPS0001", "ops"), Channel::new("C0DEV0001", "dev")],
            users: vec![
                User::member("U0ANN0001", "ann"),
                User::member("U0BEN0001", "ben"),
                User::member("U0CLEO001", "cleo"),
                User::guest("U0GUEST01", "gus"),
                User::bot("U0ROBOT01", "robo"),
                User::member("U0OTHER01", "olaf").of_team("T0OTHER01"),
            ],
        }
    }
}

/// A running fake of Slack. Clones are the same Slack; it ends when the last clone is dropped.
#[derive(Clone)]
pub struct FakeSlack {
    core: Arc<Core>,
    servers: Arc<(Server, socket::Listener)>,
    client: reqwest::Client,
}

/// What the servers and the actors share.
struct Core {
    config: Config,
    time: Time,
    state: Shared<State>,
}

impl FakeSlack {
    /// Starts Slack on free loopback ports.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let state = Shared::new(State::new(&config));
        let core = Arc::new(Core { config, time: Time::default(), state });
        let sockets = socket::listen(core.clone()).await?;
        let serving = core.clone();
        let server = wire::serve(move |call| api::serve(serving.clone(), call)).await?;
        core.state.change(|state| {
            state.http = Some(server.addr);
            state.sockets_at = Some(sockets.addr);
        });
        Ok(Self { core, servers: Arc::new((server, sockets)), client: crate::http()? })
    }

    /// The base URL of the Web API, for a client that appends `/chat.postMessage`.
    pub fn api_url(&self) -> String {
        format!("http://{}/api", self.addr())
    }

    /// Where the HTTP server listens.
    pub fn addr(&self) -> SocketAddr {
        self.servers.0.addr
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.core.config
    }

    /// Slack's clock: advance it to let limits refill and links expire.
    pub fn time(&self) -> &Time {
        &self.core.time
    }

    /// Makes the next `times` calls of `method` (`*`: of any method, `response_url` included) go wrong.
    pub fn fail(&self, method: &str, fault: Fault, times: usize) {
        self.core.state.change(|state| state.faults.plant(method, fault, times));
    }

    /// Forgets the faults not used yet.
    pub fn heal(&self) {
        self.core.state.change(|state| state.faults.clear());
    }

    /// Switches the rate limits on or off: `chat.postMessage` about one a second per channel with bursts of 3, `chat.update` 50 a minute, and so on.
    pub fn rate_limits(&self, on: bool) {
        self.core.state.change(|state| state.limits.on = on);
    }

    /// How many calls the limits answered with 429.
    pub fn throttled(&self) -> usize {
        self.core.state.look(|state| state.limits.throttled)
    }

    /// How many calls came before the `Retry-After` they had been given was over.
    pub fn impatient(&self) -> usize {
        self.core.state.look(|state| state.limits.impatient)
    }

    /// Every call so far, in order of arrival.
    pub fn calls(&self) -> Vec<Seen> {
        self.core.state.look(|state| state.calls.clone())
    }

    /// The calls of one method.
    pub fn calls_of(&self, method: &str) -> Vec<Seen> {
        self.core.state.look(|state| state.calls.iter().filter(|call| call.method == method).cloned().collect())
    }

    /// The calls that Slack refused by its own rules: a correct client has none (rate limits and planted faults aside).
    pub fn refused(&self) -> Vec<Seen> {
        self.core.state.look(|state| state.calls.iter().filter(|call| call.error.is_some()).cloned().collect())
    }

    /// Waits until a call of `method` arrived that `test` accepts.
    ///
    /// # Errors
    /// If none came within `within`.
    pub async fn wait_for_call(&self, method: &str, test: impl Fn(&Seen) -> bool, within: Duration) -> anyhow::Result<Seen> {
        let find = |state: &mut State| state.calls.iter().find(|call| call.method == method && test(call)).cloned();
        let found = self.core.state.wait(within, find).await;
        found.ok_or_else(|| anyhow::anyhow!("no such call of {method} within {within:?}; calls: {:#?}", self.calls_of(method)))
    }

    /// Adds a person or changes the one of that id.
    pub fn put_user(&self, user: User) {
        self.core.state.change(|state| {
            state.users.retain(|known| known.id != user.id);
            state.users.push(user);
        });
    }

    /// Adds a channel or changes the one of that id.
    pub fn put_channel(&self, channel: Channel) {
        self.core.state.change(|state| {
            state.channels.retain(|known| known.id != channel.id);
            state.channels.push(channel);
        });
    }
}
