//! What the product answered to something a platform sent it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::ANSWER_WITHIN;

/// One answer of the product.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status; 200 for an acknowledgement over a socket.
    pub status: u16,
    /// The answer's headers, empty over a socket.
    pub headers: HeaderMap,
    /// The answer's body.
    pub body: String,
    /// How long the platform waited for it.
    pub took: Duration,
}

impl Reply {
    /// The body as JSON, or null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Whether the platform takes it as an acknowledgement.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Posts as a platform does: redirects are not followed, and after three seconds the person sees an error.
///
/// # Errors
/// If there is no answer within [`ANSWER_WITHIN`].
pub(crate) async fn post(client: &reqwest::Client, url: &str, headers: &[(&'static str, String)], body: Vec<u8>) -> anyhow::Result<Reply> {
    let mut request = client.post(url).timeout(ANSWER_WITHIN).body(body);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let sent = Instant::now();
    let answer = async {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok::<_, reqwest::Error>((status, headers, response.text().await?))
    };
    match answer.await {
        Ok((status, headers, body)) => Ok(Reply { status, headers, body, took: sent.elapsed() }),
        Err(error) if error.is_timeout() => {
            bail!("no answer from {url} within {ANSWER_WITHIN:?}: the person sees an error")
        }
        Err(error) => Err(error).with_context(|| format!("posting to {url}")),
    }
}
