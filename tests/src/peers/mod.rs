//! Real programs that Watchkeeper talks to, each started in a temporary folder on free loopback ports and killed on drop.

mod alertmanager;
mod chromium;
mod nats;
mod nginx;
mod postgres;
mod prometheus;
mod redis;

pub use alertmanager::Alertmanager;
pub use chromium::{BrowserLog, Chromium};
pub use nats::Nats;
pub use nginx::Nginx;
pub use postgres::{Postgres, Stop};
pub use prometheus::Prometheus;
pub use redis::Redis;

use std::time::Duration;

use anyhow::{Context, ensure};

/// Generous: on a busy machine with two cores a cold Chromium or Prometheus takes seconds.
const START: Duration = Duration::from_secs(60);

/// Fails unless a GET of the address answers 2xx.
async fn answers(client: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    client.get(url).send().await?.error_for_status().map(|_| ()).with_context(|| format!("GET {url}"))
}

/// POSTs nothing to a reload address; an error carries the peer's own words.
async fn post_reload(url: &str) -> anyhow::Result<()> {
    let answer = crate::http()?.post(url).send().await?;
    let status = answer.status();
    let words = answer.text().await?;
    ensure!(status.is_success(), "{url} answered {status}: {words}");
    Ok(())
}
