//! Calls of Slack's Web API, and what its errors mean to an outbox.

use std::time::Duration;

use domain::chat::ChatError;
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::PLATFORM;
use crate::http::{self, Answer, Broken, count};

/// Waited after a limit that names no time.
const WAIT: Duration = Duration::from_secs(30);

/// What another call of the same kind would do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The same again: edits and questions.
    Same,
    /// A second message: after a call of unknown outcome it must be looked for first.
    Double,
}

/// One workspace's Web API.
pub(super) struct Api {
    http: Client,
    url: String,
    token: SecretString,
}

impl Api {
    pub(super) fn new(http: Client, url: String, token: SecretString) -> Self {
        Self { http, url, token }
    }

    /// Calls a method that writes.
    pub(super) async fn post<R: DeserializeOwned>(&self, method: &'static str, args: &impl Serialize, again: Again) -> Result<R, ChatError> {
        self.call(method, self.written(method, args), again).await
    }

    /// The request of such a call, for [`Api::call`].
    pub(super) fn written(&self, method: &'static str, args: &impl Serialize) -> RequestBuilder {
        self.http.post(format!("{}/{method}", self.url)).json(args)
    }

    /// Calls a method that reads.
    pub(super) async fn get<R: DeserializeOwned>(&self, method: &'static str, args: &[(&str, &str)]) -> Result<R, ChatError> {
        self.call(method, self.http.get(format!("{}/{method}", self.url)).query(args), Again::Same).await
    }

    /// Posts to a `response_url`, which needs no token. The address comes from a request that Slack signed, yet only Slack's own hosts are
    /// ever called: a stored event is no reason to call anything else. The same word twice is better than none.
    pub(super) async fn answer(&self, address: &str, body: &impl Serialize) -> Result<(), ChatError> {
        let method = "response_url";
        let url = reqwest::Url::parse(address).ok().filter(|url| self.is_slacks(url));
        let url = url.ok_or_else(|| ChatError::Refused("the answer's address is not one of Slack's: nothing was sent to it".to_owned()))?;
        let answer = http::send(self.http.post(url).json(body)).await.map_err(|broken| lost(method, broken, Again::Same));
        let outcome = answer.and_then(|answer| match answer.status {
            200..300 => Ok(()),
            404 | 410 => Err(ChatError::Gone("Slack takes no more answers here: thirty minutes or five answers are over".to_owned())),
            _ => Err(unusual(&self.url, method, &answer, Again::Same)),
        });
        count(PLATFORM, method, &outcome);
        outcome
    }

    /// Makes a call.
    pub(super) async fn call<R: DeserializeOwned>(&self, method: &'static str, request: RequestBuilder, again: Again) -> Result<R, ChatError> {
        let answer = http::send(request.bearer_auth(self.token.expose_secret())).await.map_err(|broken| lost(method, broken, again));
        let outcome = answer.and_then(|answer| match answer.status {
            200 => read(method, &answer, again),
            _ => Err(unusual(&self.url, method, &answer, again)),
        });
        count(PLATFORM, method, &outcome);
        outcome
    }

    fn is_slacks(&self, url: &reqwest::Url) -> bool {
        let hooks = url.scheme() == "https" && url.host_str() == Some("hooks.slack.com") && url.port().is_none();
        let own = reqwest::Url::parse(&self.url).is_ok_and(|own| own.origin() == url.origin());
        (hooks || own) && url.username().is_empty()
    }
}

/// Slack's envelope, read before the rest: `ok: false` comes with status 200.
#[derive(serde::Deserialize)]
struct Envelope {
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    response_metadata: Metadata,
}

#[derive(Default, serde::Deserialize)]
struct Metadata {
    #[serde(default)]
    messages: Vec<String>,
}

fn read<R: DeserializeOwned>(method: &str, answer: &Answer, again: Again) -> Result<R, ChatError> {
    let unreadable = |error: serde_json::Error| unknown(format!("Slack's answer to {method} cannot be read: {error}"), again);
    let envelope: Envelope = serde_json::from_slice(&answer.body).map_err(unreadable)?;
    if !envelope.ok {
        return Err(refusal(method, &envelope, answer.retry_after, again));
    }
    serde_json::from_slice(&answer.body).map_err(unreadable)
}

/// What an error word of Slack's means (docs.slack.dev, each method's "Errors").
fn refusal(method: &str, envelope: &Envelope, retry_after: Option<Duration>, again: Again) -> ChatError {
    let word = envelope.error.as_str();
    let says = |what: &str| ChatError::Refused(format!("Slack answers {word} to {method}: {what}"));
    match word {
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => ChatError::Wait { platform: PLATFORM, after: retry_after.unwrap_or(WAIT) },
        "service_unavailable" | "request_timeout" | "team_added_to_org" => ChatError::Retry(format!("Slack answers {word} to {method}")),
        // Slack says of these that "some aspect of the operation" may have succeeded.
        "internal_error" | "fatal_error" => unknown(format!("Slack answers {word} to {method}"), again),
        "message_not_found" | "thread_not_found" | "cant_update_message" | "edit_window_closed" | "cannot_reply_to_message" => {
            ChatError::Gone(format!("Slack answers {word} to {method}"))
        }
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            says("the bot token is not valid (any more): reinstall the app and set `slack.bot_token`")
        }
        "missing_scope" | "no_permission" | "not_allowed_token_type" => {
            says("the app lacks a scope: compare it with deploy/slack/manifest.yaml and reinstall it")
        }
        "channel_not_found" => says("check the channel's id; a private channel needs `/invite @Watchkeeper`"),
        "not_in_channel" => says("invite the bot into the channel: `/invite @Watchkeeper`"),
        "is_archived" => says("the channel is archived: configure another one"),
        "restricted_action" | "restricted_action_read_only_channel" | "restricted_action_thread_only_channel" => {
            says("the workspace forbids the bot to post there: ask its owner, or configure another channel")
        }
        "expired_trigger_id" | "invalid_trigger_id" | "exchanged_trigger_id" => says("the dialog came too late: press the button again"),
        _ => {
            // Ours to repair: the payload was refused.
            tracing::error!(method, error = word, details = ?envelope.response_metadata.messages, "Slack refused a call");
            says("this is a defect of Watchkeeper, its log has the details")
        }
    }
}

/// A status other than 200.
fn unusual(url: &str, method: &str, answer: &Answer, again: Again) -> ChatError {
    match answer.status {
        429 => ChatError::Wait { platform: PLATFORM, after: answer.retry_after.unwrap_or(WAIT) },
        503 => ChatError::Retry(format!("Slack answers 503 to {method}")),
        // A gateway in front of Slack gave up: behind it the message may have been posted.
        status @ 500.. => unknown(format!("Slack answers {status} to {method}"), again),
        status => ChatError::Refused(format!("{url} answers {status} to {method}: check `slack.api_url`, this is not Slack's Web API")),
    }
}

fn lost(method: &str, broken: Broken, again: Again) -> ChatError {
    match broken {
        Broken::NotSent(why) => ChatError::Retry(format!("Slack cannot be reached for {method}: {why}")),
        Broken::Lost(why) => unknown(format!("no answer from Slack to {method}: {why}"), again),
    }
}

/// Nobody knows whether it happened. Where it may happen twice, that is no matter.
fn unknown(what: String, again: Again) -> ChatError {
    match again {
        Again::Same => ChatError::Retry(what),
        Again::Double => ChatError::Ambiguous(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_slacks_hosts_only() {
        let api = |url: &str| Api::new(http::client().unwrap(), url.to_owned(), SecretString::from("xoxb"));
        let slack = api("https://slack.com/api");
        let parse = |url: &str| reqwest::Url::parse(url).unwrap();
        assert!(slack.is_slacks(&parse("https://hooks.slack.com/actions/T1/2/3")));
        for other in [
            "http://hooks.slack.com/actions/T1", "https://hooks.slack.com:8443/x", "https://hooks.slack.com.evil.example/x", "https://evil.example/hooks.slack.com",
            "https://hooks.slack.com@evil.example/", "https://x@hooks.slack.com/", "http://169.254.169.254/latest", "file:///etc/passwd", "http://slack.com/api",
        ] {
            assert!(!slack.is_slacks(&parse(other)), "{other}");
        }
        let local = api("http://127.0.0.1:4100/api");
        assert!(local.is_slacks(&parse("http://127.0.0.1:4100/actions/T1")));
        assert!(!local.is_slacks(&parse("http://127.0.0.1:4101/actions/T1")));
    }
}
