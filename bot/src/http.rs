//! The one HTTP client of this crate, and how a call over it can fail: what matters is whether the platform may have acted.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::chat::ChatError;
use reqwest::{Client, RequestBuilder};

use crate::Misconfigured;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a whole call may take, the answer included.
const CALL: Duration = Duration::from_secs(15);
/// The longest answer that is read. A page of a channel's history with its blocks stays below.
const ANSWER: usize = 8 << 20;

/// What a platform answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Retry-After`, in whole seconds by both platforms.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

/// No answer came.
pub(crate) enum Broken {
    /// Nothing was sent: it did not happen.
    NotSent(String),
    /// It was sent, at least in part: nobody knows.
    Lost(String),
}

/// Makes the client: bounded in time, never redirected, deaf to proxy variables.
pub(crate) fn client() -> Result<Client, Misconfigured> {
    #[expect(clippy::disallowed_methods, reason = "the bot's one home for HTTP clients")]
    let builder = Client::builder();
    let builder = builder.no_proxy().redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never());
    let client = builder.connect_timeout(CONNECT).timeout(CALL).build();
    client.map_err(|error| Misconfigured::new(format!("no HTTP client: {error}")))
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// [`Broken`]. Its text holds no address, because addresses of answers are secrets.
pub(crate) async fn send(request: RequestBuilder) -> Result<Answer, Broken> {
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() || error.is_builder() => return Err(Broken::NotSent(said(error))),
        Err(error) => return Err(Broken::Lost(said(error))),
    };
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()).and_then(seconds);
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Broken::Lost(said(error)))? {
        if body.len() + chunk.len() > ANSWER {
            return Err(Broken::Lost(format!("the answer is longer than {ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status().as_u16(), retry_after, body: body.freeze() })
}

/// Checks a base address from the configuration and takes off its last slash.
pub(crate) fn base(name: &str, address: &str) -> Result<String, Misconfigured> {
    let bad = |why: &str| Misconfigured::new(format!("`{name}` {why}: give an address like https://host/path"));
    let url = reqwest::Url::parse(address).map_err(|_| bad("is no address"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err(bad("is not http or https"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(bad("has more than host and path"));
    }
    Ok(address.trim_end_matches('/').to_owned())
}

/// Both platforms send whole seconds; Discord's own JSON is finer.
fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// An error with its causes, without the address.
fn said(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Counts a call by how it ended. The limits that an outbox met are counted by the outbox.
pub(crate) fn count<T>(platform: &'static str, method: &'static str, outcome: &Result<T, ChatError>) {
    let word = match outcome {
        Ok(_) => "ok",
        Err(ChatError::Wait { .. }) => "rate_limited",
        Err(ChatError::Retry(_)) => "retry",
        Err(ChatError::Ambiguous(_)) => "ambiguous",
        Err(ChatError::Gone(_)) => "gone",
        Err(ChatError::Refused(_)) => "refused",
    };
    metrics::counter!("watchkeeper_chat_requests_total", "platform" => platform, "method" => method, "outcome" => word).increment(1);
}
