//! Carries one lane's lifecycle events to the bus, in order. One that cannot go holds back those behind it: nothing is lost or overtaken.

use std::sync::Arc;

use async_trait::async_trait;
use domain::job::Job as Row;
use domain::lifecycle::{Bus, Lifecycle};
use domain::redact::Redactor;
use jiff::SignedDuration;

use super::{Done, Job, JobError, field};
use crate::Cx;

pub(crate) struct LifecyclePublish;

/// Events read at once.
const BATCH: i64 = 100;
/// How long a lane waits after a failure.
const WAIT: SignedDuration = SignedDuration::from_secs(2);

#[async_trait]
impl Job for LifecyclePublish {
    fn kind(&self) -> &'static str {
        store::LIFECYCLE_JOB
    }

    fn at_once(&self) -> usize {
        usize::from(domain::lifecycle::LANES)
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let lane: i64 = field(row, "lane")?;
        loop {
            let waiting = cx.store.read().await?.unpublished(lane, BATCH).await?;
            if waiting.is_empty() {
                return Ok(Done::Finished);
            }
            let Some(bus) = &cx.bus else {
                // Nobody is told any more: what waited is of no use.
                cx.store.published(&waiting.iter().map(|(seq, _)| *seq).collect::<Vec<_>>()).await?;
                continue;
            };
            let (sent, failed) = send(bus, &cx.redactor, waiting).await;
            cx.store.published(&sent).await?;
            metrics::counter!("watchkeeper_lifecycle_published_total").increment(sent.len() as u64);
            if let Some(why) = failed {
                metrics::gauge!("watchkeeper_lifecycle_waiting").set(cx.store.read().await?.count_unpublished().await? as f64);
                tracing::warn!(lane, why, "lifecycle events wait for the bus");
                return Ok(Done::Again(cx.clock.now() + WAIT));
            }
            metrics::gauge!("watchkeeper_lifecycle_waiting").set(cx.store.read().await?.count_unpublished().await? as f64);
            if cx.wake.stopping() {
                return Ok(Done::Again(cx.clock.now()));
            }
        }
    }
}

/// Publishes until one fails; the numbers of those that went out, and why the next did not.
async fn send(bus: &Arc<dyn Bus>, redactor: &Redactor, waiting: Vec<(i64, Lifecycle)>) -> (Vec<i64>, Option<String>) {
    let mut sent = Vec::with_capacity(waiting.len());
    for (seq, mut event) in waiting {
        redactor.redact_value(&mut event.data);
        if let Err(why) = bus.publish(&event).await {
            return (sent, Some(why));
        }
        sent.push(seq);
    }
    (sent, None)
}
