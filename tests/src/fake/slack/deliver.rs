//! Sending something to the product as Slack does, signed; and the ways in which others would try to.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::super::{form, reply, reply::Reply};
use super::args::Args;
use super::content::Content;
use super::{FakeSlack, View, response_url, sign, socket};

/// Where Slack sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The product's request URL.
    Http(String),
    /// One of the product's Socket Mode connections.
    Socket,
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

/// The form in which something travels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Interaction,
    Command,
    Event,
}

/// What happens on people's screens once the answer is there.
#[derive(Clone, Debug)]
pub(super) enum After {
    Nothing,
    View { id: String },
    Command { user: String, channel: String },
}

/// Something that Slack is about to send; await it to send it, and get the product's [`Reply`].
#[must_use = "nothing is sent before it is awaited"]
pub struct Delivery {
    slack: FakeSlack,
    target: Target,
    kind: Kind,
    payload: anyhow::Result<Value>,
    after: After,
    secret: Option<String>,
    age: Duration,
    headers: Vec<(&'static str, String)>,
}

impl Delivery {
    pub(super) fn new(slack: &FakeSlack, target: Target, kind: Kind, payload: anyhow::Result<Value>, after: After) -> Self {
        let secret = Some(slack.config().signing_secret.clone());
        Self { slack: slack.clone(), target, kind, payload, after, secret, age: Duration::ZERO, headers: Vec::new() }
    }

    /// Signs with a secret that is not the app's.
    pub fn forged(mut self) -> Self {
        self.secret = Some("ffffffffffffffffffffffffffffffff".to_owned());
        self
    }

    /// Leaves the signature headers out.
    pub fn unsigned(mut self) -> Self {
        self.secret = None;
        self
    }

    /// Signs correctly, but that long ago: 6 minutes is a replay.
    pub fn aged(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Comes from another workspace that has installed the app, team and user alike.
    pub fn of_team(self, team_id: &str) -> Self {
        let team = team_id.to_owned();
        self.with(move |payload| match payload.get("team") {
            Some(_) => {
                payload["team"]["id"] = team.clone().into();
                payload["user"]["team_id"] = team.into();
            }
            None => payload["team_id"] = team.into(),
        })
    }

    /// Changes the payload before it is signed.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        if let Ok(payload) = &mut self.payload {
            change(payload);
        }
        self
    }

    /// Marks it as Slack's `number`-th retry for `reason` (such as `http_timeout`).
    pub fn retry(mut self, number: u8, reason: &str) -> Self {
        self.headers.push(("x-slack-retry-num", number.to_string()));
        self.headers.push(("x-slack-retry-reason", reason.to_owned()));
        self
    }

    /// The exact bytes and headers, to be sent as often as wanted.
    ///
    /// # Errors
    /// If the act was impossible: no such button, person or field.
    pub fn sign(self) -> anyhow::Result<Signed> {
        let payload = self.payload?;
        let (content_type, body) = match self.kind {
            Kind::Interaction => ("application/x-www-form-urlencoded", form::encode(&[("payload", payload.to_string())])),
            Kind::Event => ("application/json", payload.to_string()),
            Kind::Command => {
                let fields = payload.as_object().into_iter().flatten();
                let pairs: Vec<(&String, &str)> = fields.map(|(name, value)| (name, value.as_str().unwrap_or_default())).collect();
                ("application/x-www-form-urlencoded", form::encode(&pairs))
            }
        };
        let mut headers = self.headers;
        headers.push(("content-type", content_type.to_owned()));
        headers.push(("user-agent", "Slackbot 1.0 (+https://api.slack.com/robots)".to_owned()));
        if let Some(secret) = self.secret {
            let timestamp = self.slack.time().now().as_second() - self.age.as_secs() as i64;
            headers.push(("x-slack-request-timestamp", timestamp.to_string()));
            headers.push(("x-slack-signature", sign::signature(&secret, timestamp, body.as_bytes())));
        }
        Ok(Signed { slack: self.slack, target: self.target, kind: self.kind, payload, after: self.after, headers, body })
    }
}

impl IntoFuture for Delivery {
    type Output = anyhow::Result<Reply>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.sign()?.send().await })
    }
}

/// A signed request, as an eavesdropper could have recorded it.
#[derive(Clone)]
pub struct Signed {
    slack: FakeSlack,
    target: Target,
    kind: Kind,
    after: After,
    /// The headers, signature included.
    pub headers: Vec<(&'static str, String)>,
    /// The body that the signature covers.
    pub body: String,
    /// The payload in it.
    pub payload: Value,
}

impl Signed {
    /// Sends it once more or for the first time, and shows the person what the answer says.
    ///
    /// # Errors
    /// If the product does not answer in three seconds, or answers what Slack cannot show.
    pub async fn send(&self) -> anyhow::Result<Reply> {
        let reply = match &self.target {
            Target::Http(url) => reply::post(&self.slack.client, url, &self.headers, self.body.clone().into_bytes()).await?,
            Target::Socket => {
                let kind = match self.kind {
                    Kind::Interaction => "interactive",
                    Kind::Command => "slash_commands",
                    Kind::Event => "events_api",
                };
                socket::deliver(&self.slack.core, kind, &self.payload).await?
            }
        };
        if reply.is_ok() && !reply.body.trim().is_empty() {
            self.show(&reply)?;
        } else if reply.is_ok() {
            self.show_empty()?;
        }
        Ok(reply)
    }

    fn show_empty(&self) -> anyhow::Result<()> {
        self.slack.core.state.change(|state| match &self.after {
            After::View { id } => View::answered(state, id, &Value::Null, String::new()),
            _ => Ok(()),
        })
    }

    fn show(&self, reply: &Reply) -> anyhow::Result<()> {
        let core = &self.slack.core;
        core.state.change(|state| match &self.after {
            After::Nothing => Ok(()),
            After::View { id } => {
                let answer = serde_json::from_str(&reply.body).with_context(|| format!("Slack cannot read the answer {:?}", reply.body))?;
                let hash = state.next_ts(core.time.now());
                View::answered(state, id, &answer, hash)
            }
            After::Command { user, channel } => {
                let json: Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| serde_json::json!({"text": reply.body}));
                let args = Args(json.as_object().cloned().unwrap_or_default());
                let content = Content::read(state, &args).and_then(Content::with_text);
                let content = content
                    .map_err(|refusal| anyhow::anyhow!("Slack cannot show the answer: {} {}", refusal.error, refusal.details.join("; ")))?;
                response_url::show(core, state, &args, user, channel, content);
                Ok(())
            }
        })
    }
}
