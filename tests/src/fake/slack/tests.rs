//! The fake of Slack, driven by raw HTTP and by a stand-in for the product.

mod clicks;
mod dialogs;
mod kit;
mod post;
mod sockets;
mod strict;

use std::collections::HashMap;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::super::form;
use super::super::stand_in::{Product, Received};
use super::{Config, FakeSlack, Message};

const SOON: Duration = Duration::from_secs(2);
const OPS: &str = "C0OPS0001";
const ANN: &str = "U0ANN0001";

async fn slack() -> FakeSlack {
    FakeSlack::start(Config::default()).await.unwrap()
}

/// Calls a method with the right token and JSON.
async fn api(slack: &FakeSlack, method: &str, args: Value) -> Value {
    let request = slack.client.post(format!("{}/{method}", slack.api_url())).bearer_auth(&slack.config().bot_token);
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
