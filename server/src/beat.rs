//! Our own sign of life: a request to an address outside, which raises the alarm when it stops coming.

use std::time::Duration;

use async_trait::async_trait;
use handlers::{Beat, Pulse};
use jiff::SignedDuration;

/// Calls one address.
pub(crate) struct HttpBeat {
    client: reqwest::Client,
    url: String,
    every: SignedDuration,
}

impl HttpBeat {
    /// A beat to `url`, at most every `every`.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub(crate) fn new(url: &str, every: SignedDuration) -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "the home of the outbound heartbeat; its address comes from the configuration only")]
        let builder = reqwest::Client::builder();
        let client = builder.timeout(Duration::from_secs(5)).redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
        Ok(Self { client, url: url.to_owned(), every })
    }
}

#[async_trait]
impl Beat for HttpBeat {
    async fn beat(&self, pulse: Pulse) -> Result<(), String> {
        let body = serde_json::json!({ "service": "watchkeeper", "at": pulse.at });
        let answer = self.client.post(&self.url).json(&body).send().await.map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("the address answered {status}")) }
    }

    fn every(&self) -> SignedDuration {
        self.every
    }
}
