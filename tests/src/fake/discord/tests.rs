//! The fake of Discord, driven by raw HTTP, websockets and a stand-in for the product.

mod gateway;
mod http;
mod interact;
mod strict;

use std::time::Duration;

use serde_json::{Value, json};

use super::super::stand_in::{Product, Received};
use super::{Config, FakeDiscord, Message};

const SOON: Duration = Duration::from_secs(2);
const OPS: &str = "1100000000000000201";
const ANN: &str = "1100000000000000401";
const BEN: &str = "1100000000000000402";

async fn discord() -> FakeDiscord {
    FakeDiscord::start(Config::default()).await.unwrap()
}

/// Calls a route as the bot.
async fn call(discord: &FakeDiscord, method: &str, path: &str, body: Value) -> (u16, Value) {
    let response = request(discord, method, path, body).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

fn request(discord: &FakeDiscord, method: &str, path: &str, body: Value) -> reqwest::RequestBuilder {
    let request = discord.client.request(method.parse().unwrap(), format!("{}/api/v10{path}", discord.url()));
    let request =
        request.header("authorization", format!("Bot {}", discord.config().bot_token)).header("user-agent", "DiscordBot (test, 1)");
    if body.is_null() { request } else { request.json(&body) }
}

/// A card with an Approve and a Deny button.
fn card(title: &str) -> Value {
    json!({
        "content": "", "allowed_mentions": {"parse": []},
        "embeds": [{"title": title, "description": "**api** is down", "color": 0x00a3_0200, "fields": [{"name": "env", "value": "prod"}], "footer": {"text": "#142"}}],
        "components": [{"type": 1, "components": [
            {"type": 2, "style": 3, "label": "Approve", "custom_id": "approve:run-1"}, {"type": 2, "style": 4, "label": "Deny", "custom_id": "deny:run-1"}]}]
    })
}

async fn posted(discord: &FakeDiscord, card: Value) -> Message {
    let (status, answer) = call(discord, "POST", &format!("/channels/{OPS}/messages"), card).await;
    assert_eq!(status, 200, "{answer}");
    discord.channel("ops").messages().pop().unwrap()
}
