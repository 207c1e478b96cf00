//! Sending an interaction to the product as Discord does, signed or over the gateway; and the ways in which others would try to.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;

use super::super::json::string;
use super::super::{ANSWER_WITHIN, reply, reply::Reply};
use super::{FakeDiscord, Interaction, respond};

/// Where Discord sends interactions to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The product's interactions endpoint URL.
    Http(String),
    /// The product's gateway session.
    Gateway,
}

impl From<&str> for Target {
    fn from(url: &str) -> Self {
        Self::Http(url.to_owned())
    }
}

impl From<&String> for Target {
    fn from(url: &String) -> Self {
        Self::Http(url.clone())
    }
}

impl From<String> for Target {
    fn from(url: String) -> Self {
        Self::Http(url)
    }
}

/// How an interaction went.
#[derive(Clone)]
pub struct Outcome {
    /// The answer; over the gateway the callback's body with status 200.
    pub reply: Reply,
    /// The interaction, for what follows.
    pub interaction: Interaction,
}

/// An interaction that is about to be sent; await it to send it.
#[must_use = "nothing is sent before it is awaited"]
pub struct Delivery {
    discord: FakeDiscord,
    target: Target,
    payload: anyhow::Result<Value>,
    key: Option<SigningKey>,
    age: Duration,
}

impl Delivery {
    pub(super) fn new(discord: &FakeDiscord, target: Target, payload: anyhow::Result<Value>) -> Self {
        Self { discord: discord.clone(), target, payload, key: Some(discord.core.key.clone()), age: Duration::ZERO }
    }

    /// Signs with a key that is not the application's, as Discord itself does now and then to see whether endpoints check.
    pub fn forged(mut self) -> Self {
        self.key = Some(SigningKey::from_bytes(&[99; 32]));
        self
    }

    /// Leaves the signature headers out.
    pub fn unsigned(mut self) -> Self {
        self.key = None;
        self
    }

    /// Signs correctly, but that long ago.
    pub fn aged(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Comes from another guild that has installed the application.
    pub fn of_guild(self, guild: &str) -> Self {
        let guild = guild.to_owned();
        self.with(move |payload| {
            payload["guild_id"] = guild.clone().into();
            payload["guild"]["id"] = guild.clone().into();
            payload["authorizing_integration_owners"]["0"] = guild.into();
        })
    }

    /// Changes the payload before it is signed.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        if let Ok(payload) = &mut self.payload {
            change(payload);
        }
        self
    }

    /// The exact bytes and headers for the endpoint, to be sent as often as wanted.
    ///
    /// # Errors
    /// If the act was impossible, or goes over the gateway.
    pub fn sign(self) -> anyhow::Result<Signed> {
        let Target::Http(url) = self.target else { anyhow::bail!("over the gateway nothing is signed") };
        let payload = self.payload?;
        let body = payload.to_string();
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("user-agent", "Discord-Interactions/1.0 (+https://discord.com)".to_owned()),
        ];
        if let Some(key) = self.key {
            let timestamp = (self.discord.time().now().as_second() - self.age.as_secs() as i64).to_string();
            let signature = key.sign(format!("{timestamp}{body}").as_bytes());
            headers.push(("x-signature-ed25519", hex::encode(signature.to_bytes())));
            headers.push(("x-signature-timestamp", timestamp));
        }
        Ok(Signed { discord: self.discord, url, headers, body, payload })
    }
}

impl IntoFuture for Delivery {
    type Output = anyhow::Result<Outcome>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.target {
                Target::Http(_) => self.sign()?.send().await,
                Target::Gateway => dispatch(&self.discord, &self.payload?).await,
            }
        })
    }
}

/// A signed request, as an eavesdropper could have recorded it.
#[derive(Clone)]
pub struct Signed {
    discord: FakeDiscord,
    url: String,
    /// The headers, signature included.
    pub headers: Vec<(&'static str, String)>,
    /// The body that the signature covers.
    pub body: String,
    /// The interaction in it.
    pub payload: Value,
}

impl Signed {
    /// Sends it once more or for the first time, and carries out the answer.
    ///
    /// # Errors
    /// If the product does not answer in three seconds or answers what Discord refuses: the person sees "This interaction failed".
    pub async fn send(&self) -> anyhow::Result<Outcome> {
        let interaction = handle(&self.discord, &self.payload);
        self.in_flight(true);
        let reply = reply::post(&self.discord.client, &self.url, &self.headers, self.body.clone().into_bytes()).await;
        let reply = reply.inspect_err(|_| self.in_flight(false))?;
        let outcome = Outcome { reply, interaction };
        if outcome.reply.status == 202 {
            self.in_flight(false);
            answered(&outcome.interaction, ANSWER_WITHIN.saturating_sub(outcome.reply.took)).await?;
        } else if outcome.reply.is_ok() && outcome.interaction.response().is_none() {
            let core = &self.discord.core;
            let response = outcome.reply.json();
            let applied = core.state.change(|state| respond::apply(core, state, &outcome.interaction.id, &response, &[]));
            self.in_flight(false);
            applied.map_err(|refusal| anyhow::anyhow!("This interaction failed: {} (answer: {})", refusal.line(), outcome.reply.body))?;
        }
        self.in_flight(false);
        Ok(outcome)
    }

    /// Marks that the answer is on its way, so that follow-ups wait for it.
    fn in_flight(&self, now: bool) {
        let id = string(&self.payload["id"]);
        self.discord.core.state.change(|state| {
            let record = state.interactions.iter_mut().find(|record| record.id == id);
            record.into_iter().for_each(|record| record.in_flight = now && record.response.is_none());
        });
    }
}

async fn dispatch(discord: &FakeDiscord, payload: &Value) -> anyhow::Result<Outcome> {
    let sent = Instant::now();
    let interaction = handle(discord, payload);
    let reached = discord.core.state.change(|state| state.dispatch("INTERACTION_CREATE", payload));
    anyhow::ensure!(reached, "This interaction failed: the application has no gateway session");
    let response = answered(&interaction, ANSWER_WITHIN).await?;
    let reply = Reply { status: 200, headers: Default::default(), body: response.to_string(), took: sent.elapsed() };
    Ok(Outcome { reply, interaction })
}

async fn answered(interaction: &Interaction, within: Duration) -> anyhow::Result<Value> {
    let find = |state: &mut super::state::State| state.interactions.iter().find(|record| record.id == interaction.id)?.response.clone();
    let response = interaction.discord.core.state.wait(within, find).await;
    response.ok_or_else(|| anyhow::anyhow!("This interaction failed: no answer within three seconds"))
}

fn handle(discord: &FakeDiscord, payload: &Value) -> Interaction {
    Interaction { discord: discord.clone(), id: string(&payload["id"]), token: string(&payload["token"]) }
}
