//! The fake of Slack, driven by raw HTTP and by a stand-in for the product.

mod clicks;
mod dialogs;
mod kit;
mod post;
mod sockets;
mod strict;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::super::form;
use super::super::wire::{self, Answer, Server};
use super::{Config, FakeSlack, Message};

const SOON: Duration = Duration::from_secs(2);
const OPS: &str = "C0OPS0001";
const ANN: &str = "U0ANN0001";

async fn slack() -> FakeSlack {
    FakeSlack::start(Config::default()).await.unwrap()
}

/// Calls a method with the right token and JSON.
async fn api(slack: &FakeSlack, method: &str, args: Value) -> Value {
    let request = slack
        .client
        .post(format!("{}/{method}", slack.api_url()))
        .bearer_auth(&slack.config().bot_token);
    request.json(&args).send().await.unwrap().json().await.unwrap()
}

/// A card with an Approve and a Deny button.
fn card(title: &str) -> Value {
    json!({"channel": OPS, "text": format!("P1 {title}"), "blocks": [
        {"type": "header", "text": {"type": "plain_text", "text": title}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "*api* is down", "verbatim": true}, "fields": [{"type": "mrkdwn", "text": "env: prod"}]},
        {"type": "actions", "block_id": "decide", "elements": [
            {"type": "button", "action_id": "approve", "value": "run-1", "style": "primary", "text": {"type": "plain_text", "text": "Approve"}},
            {"type": "button", "action_id": "deny", "value": "run-1", "style": "danger", "text": {"type": "plain_text", "text": "Deny"}}]},
    ]})
}

/// What the product received.
#[derive(Clone, Debug)]
struct Received {
    headers: HashMap<String, String>,
    body: String,
}

impl Received {
    fn payload(&self) -> Value {
        let payload = form::decode(&self.body)
            .into_iter()
            .find(|(name, _)| name == "payload")
            .unwrap()
            .1;
        serde_json::from_str(&payload).unwrap()
    }
}

/// A stand-in for the product: answers everything alike and keeps what came.
struct Product {
    server: Server,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Product {
    async fn answering(status: u16, body: Value, delay: Duration) -> Self {
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let keep = received.clone();
        let server = wire::serve(move |call| {
            let text = |name: &str| call.header(name).to_owned();
            let names = [
                "x-slack-signature",
                "x-slack-request-timestamp",
                "content-type",
                "x-slack-retry-num",
            ];
            let headers = names.iter().map(|name| ((*name).to_owned(), text(name))).collect();
            keep.lock().unwrap().push(Received {
                headers,
                body: String::from_utf8(call.body.to_vec()).unwrap(),
            });
            let body = body.clone();
            async move {
                tokio::time::sleep(delay).await;
                if body.is_null() {
                    Answer::empty(status)
                } else {
                    Answer::json(status, body)
                }
            }
        });
        Self {
            server: server.await.unwrap(),
            received,
        }
    }

    async fn ok() -> Self {
        Self::answering(200, Value::Null, Duration::ZERO).await
    }

    fn url(&self) -> String {
        format!("http://{}/slack/interactions", self.server.addr)
    }

    fn last(&self) -> Received {
        self.received.lock().unwrap().last().unwrap().clone()
    }
}

/// Computes the signature apart from the code under test.
fn verifies(slack: &FakeSlack, received: &Received) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(slack.config().signing_secret.as_bytes()).unwrap();
    mac.update(format!("v0:{}:{}", received.headers["x-slack-request-timestamp"], received.body).as_bytes());
    received.headers["x-slack-signature"] == format!("v0={}", hex::encode(mac.finalize().into_bytes()))
}

async fn posted(slack: &FakeSlack, card: Value) -> Message {
    let answer = api(slack, "chat.postMessage", card).await;
    assert_eq!(answer["ok"], true, "{answer}");
    slack.channel(OPS).messages().pop().unwrap()
}
