//! Deliveries that were answered and are gone: their stream was deleted, or has fallen back behind what it had. Nobody can get them back, so it is told.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::Info;
use domain::canonical::ContentKey;
use domain::inbox::Inbox;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::super::about_ourselves;
use super::super::gaps::Mark;
use super::{Taker, find_stream};

/// How often the stream is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What was last known of the stream. Kept in the store, because the stream's own memory goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// When it was made.
    made: String,
    /// Its last number.
    last: u64,
    /// How many deliveries lay on it.
    waiting: u64,
}

impl Known {
    fn of(stream: &Info) -> Self {
        Self { made: Mark::made(stream), last: stream.state.last_sequence, waiting: stream.state.messages }
    }

    /// What it lost since, if anything.
    fn lost(&self, now: &Self) -> Option<String> {
        if self.made != now.made {
            Some("it was deleted and made again".to_owned())
        } else if self.last > now.last {
            Some(format!("it ends with {} and had {} already, so what NATS had acknowledged was not on its disks", now.last, self.last))
        } else {
            None
        }
    }
}

impl Taker {
    /// Looks at the stream again and again, for as long as we are the ones who take from it.
    pub(super) async fn watch(&self, ours: &CancellationToken) {
        while !ours.is_cancelled() {
            let looked = tokio::select! { looked = self.look() => looked, () = ours.cancelled() => return };
            if let Err(error) = looked {
                // The lanes say what is wrong.
                tracing::debug!(error = %format!("{error:#}"), "the stream of deliveries cannot be looked at");
            }
            tokio::select! { () = tokio::time::sleep(LOOK) => {}, () = ours.cancelled() => {} }
        }
    }

    async fn look(&self) -> anyhow::Result<()> {
        let name = &self.settings.stream;
        let context = jetstream::new(self.link.client().await?);
        let now = Known::of(find_stream(&context, &self.settings).await?.cached_info());
        let key = format!("nats.ingest.{name}");
        let kept = self.store.read().await?.flag(&key).await?;
        let before = kept.and_then(|value| serde_json::from_value::<Known>(value).ok());
        if let Some(before) = &before
            && let Some(how) = before.lost(&now)
        {
            self.tell(before, &how).await?;
        }
        if before.as_ref() != Some(&now) {
            let mut tx = self.store.begin().await?;
            tx.set_flag(&key, &json!(now)).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn tell(&self, before: &Known, how: &str) -> anyhow::Result<()> {
        let name = &self.settings.stream;
        let summary = format!(
            "Deliveries on the stream {name} that were answered and not taken yet are lost: {how}. {} waited when it was last looked at, and more may have \
             come. Look what happened in that time; alerts that still fire are sent again by Alertmanager.",
            before.waiting
        );
        // By what was known, which stays until this is noted: whoever tells it again, after a kill or beside us, tells the same.
        let fingerprint = format!("ingest/{name}/{}/{}", before.made, before.last);
        let mut told = about_ourselves("DeliveriesLost", fingerprint.clone(), name, summary, self.store.clock().now());
        for event in &mut told.events {
            event.key = ContentKey::of(&[b"lost", fingerprint.as_bytes()]);
        }
        self.store.accept(told).await?;
        metrics::counter!("watchkeeper_ingest_losses_total").increment(1);
        tracing::error!(stream = %name, waiting = before.waiting, how, "deliveries were lost that had been answered");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_a_stream_of_another_time_or_one_that_fell_back() {
        let known = |made: &str, last, waiting| Known { made: made.to_owned(), last, waiting };
        let before = known("1", 10, 3);
        for now in [known("1", 10, 0), known("1", 12, 5)] {
            assert_eq!(before.lost(&now), None);
        }
        assert!(before.lost(&known("2", 10, 0)).unwrap().contains("deleted"));
        assert!(before.lost(&known("1", 9, 2)).unwrap().contains("ends with 9 and had 10"));
    }
}
