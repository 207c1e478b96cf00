//! Slack, outbound: posts, edits, threads, private answers.

use async_trait::async_trait;
use domain::act::{ActOutcome, Place, ReplyTo};
use domain::card::{Card, Message};
use domain::chat::{Budget, Capabilities, Chat, ChatError, Posting};
use serde::{Deserialize, Serialize};
use slack_morphism::api::{SlackApiChatPostMessageRequest, SlackApiChatUpdateRequest};
use slack_morphism::{SlackMessageContent, SlackMessageMetadata};

use super::api::Again;
use super::{PLATFORM, Slack, render};

/// Marks our posts, so that one whose answer was lost can be found by its delivery.
const MARK: &str = "watchkeeper_card";
/// How far back a post is looked for: pages of the channel's newest messages.
const PAGES: usize = 5;
const PAGE: &str = "200";

#[async_trait]
impl Chat for Slack {
    fn platform(&self) -> &'static str {
        PLATFORM
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { edit: true, buttons: true, threads: true, ephemeral: true, keyed_posts: false }
    }

    fn budget(&self) -> Budget {
        self.rate
    }

    fn post_card<'a>(&'a self, channel: &str, card: &Card, delivery: &str) -> Posting<'a> {
        Box::pin(self.post(channel, None, render::card(card), delivery))
    }

    async fn update_card(&self, at: &Place, card: &Card) -> Result<(), ChatError> {
        let request = SlackApiChatUpdateRequest::new(at.channel.as_str().into(), render::card(card), at.message.as_str().into());
        let request = request.with_link_names(false).with_parse("none".to_owned());
        self.api.post::<Done>("chat.update", &request, Again::Same).await.map(drop)
    }

    async fn post_thread(&self, at: &Place, message: &Message, delivery: &str) -> Result<(), ChatError> {
        self.post(&at.channel, Some(&at.message), render::message(message), delivery).await.map(drop)
    }

    async fn post_message(&self, channel: &str, message: &Message, delivery: &str) -> Result<Place, ChatError> {
        self.post(channel, None, render::message(message), delivery).await
    }

    async fn reply(&self, to: &ReplyTo, outcome: &ActOutcome) -> Result<(), ChatError> {
        self.api.answer(&to.token, &Whisper::new(&outcome.text)).await
    }

    async fn find_post(&self, channel: &str, delivery: &str) -> Result<Option<Place>, ChatError> {
        let mut cursor = String::new();
        for _ in 0..PAGES {
            let args = [("channel", channel), ("limit", PAGE), ("include_all_metadata", "true"), ("cursor", cursor.as_str())];
            let args = if cursor.is_empty() { &args[..3] } else { &args[..] };
            let page: History = self.api.get("conversations.history", args).await?;
            if let Some(found) = page.messages.into_iter().find(|message| message.is(delivery)) {
                return Ok(Some(Place { channel: channel.to_owned(), message: found.ts }));
            }
            cursor = page.response_metadata.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    async fn probe(&self) -> Result<String, ChatError> {
        let who: Who = self.api.post("auth.test", &serde_json::json!({}), Again::Same).await?;
        if who.team_id != self.team_id {
            let (theirs, ours) = (&who.team_id, &self.team_id);
            return Err(ChatError::Refused(format!("the token belongs to workspace {theirs}, the configuration says {ours}: set `slack.team_id`")));
        }
        Ok(format!("Slack workspace {} as {}", who.team, who.user))
    }
}

impl Slack {
    /// Writes a post down, and makes it when it is awaited.
    fn post(
        &self,
        channel: &str,
        thread: Option<&str>,
        content: SlackMessageContent,
        delivery: &str,
    ) -> impl Future<Output = Result<Place, ChatError>> + Send + use<'_> {
        let payload = [("delivery".to_owned(), delivery.to_owned())].into();
        let metadata = SlackMessageMetadata::new(MARK.to_owned()).with_event_payload(payload);
        let request = SlackApiChatPostMessageRequest::new(channel.into(), content.with_metadata(metadata));
        let request = request.with_link_names(false).with_parse("none".to_owned()).with_unfurl_links(false).with_unfurl_media(false);
        let request = request.opt_thread_ts(thread.map(Into::into));
        let (method, again) = ("chat.postMessage", Again::Double);
        let request = self.api.written(method, &request);
        async move { self.api.call(method, request, again).await.map(|Posted { channel, ts }| Place { channel, message: ts }) }
    }
}

/// A word to one person, by `response_url` or in the answer to a command; the message that was acted on stays.
#[derive(Serialize)]
pub(super) struct Whisper {
    response_type: &'static str,
    replace_original: bool,
    #[serde(flatten)]
    content: SlackMessageContent,
}

impl Whisper {
    pub(super) fn new(text: &str) -> Self {
        Self { response_type: "ephemeral", replace_original: false, content: render::words(text) }
    }
}

#[derive(Deserialize)]
struct Done {}

#[derive(Deserialize)]
struct Posted {
    channel: String,
    ts: String,
}

#[derive(Deserialize)]
struct Who {
    team_id: String,
    #[serde(default)]
    team: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct History {
    messages: Vec<Found>,
    #[serde(default)]
    response_metadata: Cursor,
}

#[derive(Default, Deserialize)]
struct Cursor {
    #[serde(default)]
    next_cursor: String,
}

#[derive(Deserialize)]
struct Found {
    ts: String,
    #[serde(default)]
    metadata: serde_json::Value,
}

impl Found {
    fn is(&self, delivery: &str) -> bool {
        self.metadata["event_type"] == MARK && self.metadata["event_payload"]["delivery"] == delivery
    }
}
