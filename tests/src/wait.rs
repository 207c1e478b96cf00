//! Waiting for something to become true, without sleeping longer than needed.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use tokio::time::{interval, timeout};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Polls `attempt` until it gives `Ok` and returns that; after `within` returns its last error.
///
/// An attempt that hangs is cut off at the deadline. There is always at least one attempt.
pub async fn eventually<T, F, Fut>(within: Duration, mut attempt: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + within;
    let mut tick = interval(EVERY);
    let mut last = anyhow!("no attempt ended");
    loop {
        tick.tick().await;
        let left = deadline.saturating_duration_since(Instant::now()).max(EVERY);
        match timeout(left, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return Err(last).with_context(|| format!("still not so after {within:?}"));
        }
    }
}
