//! Discord, outbound: posts, edits, threads, private answers.

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use domain::act::{ActOutcome, Place, ReplyTo};
use domain::card::{Card, Message};
use domain::chat::{Capabilities, Chat, ChatError, Posting};
use domain::text::clean_line;
use reqwest::Method;
use serde::Deserialize;
use serenity::builder::{CreateMessage, CreateThread};
use serenity::model::channel::{AutoArchiveDuration, Nonce};
use sha2::{Digest, Sha256};

use super::api::{Call, Failed, body, code};
use super::{Discord, PLATFORM, is_id, is_token, render};

#[async_trait]
impl Chat for Discord {
    fn platform(&self) -> &'static str {
        PLATFORM
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { edit: true, buttons: true, threads: true, ephemeral: true, keyed_posts: true }
    }

    fn post_card<'a>(&'a self, channel: &str, card: &Card, delivery: &str) -> Posting<'a> {
        let drawn = checked(channel).and_then(|channel| Ok((channel.to_owned(), written(render::card(card), delivery)?)));
        Box::pin(async move {
            let (channel, body) = drawn?;
            self.send(&channel, &body).await.map_err(|failed| failed.error)
        })
    }

    async fn update_card(&self, at: &Place, card: &Card) -> Result<(), ChatError> {
        let path = format!("/channels/{}/messages/{}", checked(&at.channel)?, checked(&at.message)?);
        let body = body(&render::edit(card))?;
        let call = Call { name: "edit_message", method: Method::PATCH, path, as_bot: true, repeatable: true, body: Some(&body) };
        self.api.call(call).await.map(drop).map_err(|failed| failed.error)
    }

    /// The thread that begins at a message has the message's id. It is made when it is first needed.
    async fn post_thread(&self, at: &Place, message: &Message, delivery: &str) -> Result<(), ChatError> {
        let thread = checked(&at.message)?;
        match self.post(thread, render::message(message), delivery).await {
            Err(failed) if failed.code == code::UNKNOWN_CHANNEL => {
                self.open_thread(at).await?;
                self.post(thread, render::message(message), delivery).await
            }
            done => done,
        }
        .map(drop)
        .map_err(|failed| failed.error)
    }

    async fn post_message(&self, channel: &str, message: &Message, delivery: &str) -> Result<Place, ChatError> {
        let posted = self.post(checked(channel)?, render::message(message), delivery).await;
        posted.map_err(|failed| failed.error)
    }

    async fn reply(&self, to: &ReplyTo, outcome: &ActOutcome) -> Result<(), ChatError> {
        let (application, token) = to.token.split_once('/').unwrap_or_default();
        if application != self.application_id || !is_token(token) {
            return Err(ChatError::Refused("the answer's address is not one of this application's: nothing was sent to it".to_owned()));
        }
        let body = body(&render::whisper(&outcome.text))?;
        // After a deferred command Discord fills the waiting answer with it; after a press it is an answer of its own.
        let path = format!("/webhooks/{application}/{token}");
        let call = Call { name: "follow_up", method: Method::POST, path, as_bot: false, repeatable: true, body: Some(&body) };
        self.api.call(call).await.map(drop).map_err(|failed| failed.error)
    }

    async fn probe(&self) -> Result<String, ChatError> {
        let answer = self.read("application", "/applications/@me".to_owned()).await?;
        let me: Me = serde_json::from_slice(&answer).map_err(|error| ChatError::Retry(format!("Discord's application cannot be read: {error}")))?;
        if me.id != self.application_id {
            let (theirs, ours) = (&me.id, &self.application_id);
            return Err(ChatError::Refused(format!("the token belongs to application {theirs}, the configuration says {ours}: set `discord.application_id`")));
        }
        if me.verify_key.is_some_and(|theirs| !self.key.is(&theirs)) {
            return Err(ChatError::Refused("the application has another public key: set `discord.public_key` from its General Information".to_owned()));
        }
        self.read("guild", format!("/guilds/{}", self.guild_id)).await?;
        Ok(format!("Discord application {} on server {}", clean_line(&me.name, 100), self.guild_id))
    }
}

impl Discord {
    async fn post(&self, channel: &str, message: CreateMessage, delivery: &str) -> Result<Place, Failed> {
        self.send(channel, &written(message, delivery).map_err(wrong)?).await
    }

    async fn send(&self, channel: &str, body: &[u8]) -> Result<Place, Failed> {
        let path = format!("/channels/{channel}/messages");
        let call = Call { name: "create_message", method: Method::POST, path, as_bot: true, repeatable: false, body: Some(body) };
        let answer = self.api.call(call).await?;
        let posted: Posted = serde_json::from_slice(&answer)
            .map_err(|error| wrong(ChatError::Ambiguous(format!("Discord's answer to create_message cannot be read: {error}"))))?;
        Ok(Place { channel: channel.to_owned(), message: posted.id })
    }

    async fn read(&self, name: &'static str, path: String) -> Result<bytes::Bytes, ChatError> {
        let call = Call { name, method: Method::GET, path, as_bot: true, repeatable: true, body: None };
        self.api.call(call).await.map_err(|failed| failed.error)
    }

    async fn open_thread(&self, at: &Place) -> Result<(), ChatError> {
        let path = format!("/channels/{}/messages/{}/threads", checked(&at.channel)?, checked(&at.message)?);
        let body = body(&CreateThread::new("Timeline").auto_archive_duration(AutoArchiveDuration::OneWeek))?;
        let call = Call { name: "create_thread", method: Method::POST, path, as_bot: true, repeatable: true, body: Some(&body) };
        match self.api.call(call).await {
            Err(failed) if failed.code != code::THREAD_EXISTS => Err(failed.error),
            _ => Ok(()),
        }
    }
}

/// A message as Discord takes it.
fn written(message: CreateMessage, delivery: &str) -> Result<Vec<u8>, ChatError> {
    body(&message.nonce(Nonce::String(nonce(delivery))).enforce_nonce(true))
}

fn wrong(error: ChatError) -> Failed {
    Failed { code: 0, error }
}

/// What Discord drops a repeat by, for a few minutes: at most 25 characters.
fn nonce(delivery: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(delivery.as_bytes())[..18])
}

fn checked(id: &str) -> Result<&str, ChatError> {
    match is_id(id) {
        true => Ok(id),
        false => Err(ChatError::Refused(format!("{id:?} is no id of Discord's: copy the channel's number with Developer Mode on"))),
    }
}

#[derive(Deserialize)]
struct Posted {
    id: String,
}

#[derive(Deserialize)]
struct Me {
    id: String,
    #[serde(default)]
    name: String,
    verify_key: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_makes_one_short_nonce() {
        let nonce_of = nonce("0198c0de-0000-7000-8000-000000000001/card");
        assert_eq!(nonce_of.len(), 24);
        assert_eq!(nonce_of, nonce("0198c0de-0000-7000-8000-000000000001/card"));
        assert_ne!(nonce_of, nonce("0198c0de-0000-7000-8000-000000000002/card"));
    }

    #[test]
    fn tokens_lead_nowhere_else() {
        assert!(is_token("aW50ZXJhY3Rpb246MTIz-_x="));
        for token in ["", "a/b", "..", "../x", "a?b", "a#b", "a%2fb", "a b"] {
            assert!(!is_token(token), "{token}");
        }
    }
}
