//! Discord against a strict fake of it: what is posted, what is heard over HTTP and over the gateway, and what happens when the wire fails.

use std::sync::Arc;
use std::time::Duration;

use domain::act::{ActOutcome, Barred, Place, ReplyTo, Verb};
use domain::card::Message;
use domain::chat::{Chat, ChatError};
use domain::inbox::InboxError;
use domain::incident::IncidentState;
use domain::time::SystemClock;
use harness::fake::Fault;
use harness::fake::discord::{Config, FakeDiscord, Message as Seen};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;

use super::*;
use crate::testing::{Known, Memory, STATES, approval, card, filled_with, hostile, incident, serve};

#[cfg(feature = "discord-gateway")]
mod gateway;
mod inbound;
mod outbound;
mod reading;
mod sent;

const OPS: &str = "1100000000000000201";
const ANN: &str = "1100000000000000401";
const ROBO: &str = "1100000000000000404";
const SOON: Duration = Duration::from_secs(5);

struct World {
    fake: FakeDiscord,
    discord: Arc<Discord>,
    inbox: Arc<Memory>,
    url: String,
}

async fn world() -> World {
    let fake = FakeDiscord::start(Config::default()).await.unwrap();
    let inbox = Arc::new(Memory::default());
    let discord = Discord::new(settings(&fake), inbox.clone(), Arc::new(Known), Arc::new(SystemClock)).unwrap();
    let url = format!("{}/discord/interactions", serve(discord.clone()).await);
    World { fake, discord, inbox, url }
}

fn settings(fake: &FakeDiscord) -> DiscordConfig {
    DiscordConfig {
        api_url: fake.url(),
        application_id: fake.config().application_id.clone(),
        public_key: fake.public_key(),
        bot_token: SecretString::from(fake.config().bot_token.as_str()),
        guild_id: fake.config().guild_id.clone(),
    }
}

impl World {
    /// Posts a card and returns it as people see it.
    async fn posted(&self, card: &domain::card::Card, delivery: &str) -> Seen {
        let place = self.discord.post_card(OPS, card, delivery).await.unwrap();
        self.fake.channel("ops").wait_for(|message| message.id == place.message, SOON).await.unwrap()
    }

    /// The card with an approval pending.
    async fn asked(&self) -> Seen {
        self.posted(&card(IncidentState::Acknowledged), "d1").await
    }

    /// A correct client is never refused by Discord's own rules.
    fn nothing_refused(&self) {
        assert!(self.fake.refused().is_empty(), "{:#?}", self.fake.refused());
    }
}

fn message(text: &str, block: Option<&str>) -> Message {
    Message { text: text.to_owned(), block: block.map(str::to_owned), at: Timestamp::UNIX_EPOCH }
}

fn place(message: &Seen) -> Place {
    Place { channel: message.channel.clone(), message: message.id.clone() }
}
