//! Slack against a strict fake of it: what is posted, what is heard, and what happens when the wire fails.

use std::sync::Arc;
use std::time::Duration;

use domain::act::{ActOutcome, Barred, Place, ReplyTo, Verb};
use domain::card::Message;
use domain::chat::{Chat, ChatError};
use domain::inbox::InboxError;
use domain::incident::IncidentState;
use domain::time::SystemClock;
use harness::fake::Fault;
use harness::fake::slack::{Config, FakeSlack, Message as Seen};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;

use super::*;
use crate::testing::{Known, Memory, STATES, approval, card, filled_with, hostile, incident, serve};

mod inbound;
mod outbound;
mod reading;
mod sent;

const OPS: &str = "C0OPS0001";
const ANN: &str = "U0ANN0001";
const SOON: Duration = Duration::from_secs(5);

struct World {
    fake: FakeSlack,
    slack: Arc<Slack>,
    inbox: Arc<Memory>,
    interactions: String,
    commands: String,
    events: String,
}

async fn world() -> World {
    let fake = FakeSlack::start(Config::default()).await.unwrap();
    let inbox = Arc::new(Memory::default());
    let slack = Slack::new(settings(&fake), inbox.clone(), Arc::new(Known), Arc::new(SystemClock)).unwrap();
    let url = serve(slack.clone()).await;
    let [interactions, commands, events] = ["interactions", "commands", "events"].map(|name| format!("{url}/slack/{name}"));
    World { fake, slack, inbox, interactions, commands, events }
}

fn settings(fake: &FakeSlack) -> SlackConfig {
    SlackConfig {
        rate: Budget::default(),
        api_url: fake.api_url(),
        bot_token: SecretString::from(fake.config().bot_token.as_str()),
        signing_secrets: vec![SecretString::from("an older secret"), SecretString::from(fake.config().signing_secret.as_str())],
        team_id: fake.config().team_id.clone(),
    }
}

impl World {
    /// Posts a card and returns it as people see it.
    async fn posted(&self, card: &domain::card::Card) -> Seen {
        let place = self.slack.post_card(OPS, card, "d1").await.unwrap();
        self.fake.channel("ops").wait_for(|message| message.ts == place.message, SOON).await.unwrap()
    }

    /// The card with an approval pending.
    async fn asked(&self) -> Seen {
        self.posted(&card(IncidentState::Acknowledged)).await
    }

    async fn whispered(&self, user: &str, what: &str) {
        self.fake.wait_for_ephemeral(user, |message| message.visible_text().contains(what), SOON).await.unwrap();
    }

    /// A correct client is never refused by Slack's own rules.
    fn nothing_refused(&self) {
        assert!(self.fake.refused().is_empty(), "{:#?}", self.fake.refused());
    }
}

fn message(text: &str, block: Option<&str>) -> Message {
    Message { text: text.to_owned(), block: block.map(str::to_owned), at: Timestamp::UNIX_EPOCH }
}

fn place(message: &Seen) -> Place {
    Place { channel: message.channel.clone(), message: message.ts.clone() }
}
