//! Asks every dependency how it is, for `/readyz` and `/health`, and counts what waits, for `/metrics`.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use domain::chat::Chat;
use futures::future::join_all;
use metrics::{Unit, describe_gauge, gauge};
use store::{Depths, Store};
use webhook_gateway::{Check, HealthProbe};

use crate::bus::{Intake, Link};

/// A platform is asked at most this often: probes are answered from the last answer in between.
const CHAT_EVERY: Duration = Duration::from_secs(60);
/// A platform that takes longer counts as out of reach for now.
const CHAT_PATIENCE: Duration = Duration::from_millis(1500);
/// A store or a bus that takes longer does not keep what is asked for: the gateway waits for two seconds for all checks together.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Events waiting longer than this mean that nobody decides them.
const OLDEST_EVENT_SECONDS: f64 = 60.0;
/// Rows of the audit log that are older and not sealed mean that nobody can seal them: it takes a second.
const OLDEST_UNSEALED_SECONDS: f64 = 60.0;

/// All dependencies of this process.
pub(crate) struct Probe {
    store: Store,
    chats: Vec<Arc<dyn Chat>>,
    bus: Option<Link>,
    /// Where deliveries are kept before they are answered, if that is not the store: then no delivery needs the store.
    kept: Option<Arc<Intake>>,
    asked: Mutex<Vec<(Instant, Check)>>,
}

impl Probe {
    pub(crate) fn new(store: Store, chats: Vec<Arc<dyn Chat>>, bus: Option<Link>, kept: Option<Arc<Intake>>) -> Self {
        describe();
        Self { store, chats, bus, kept, asked: Mutex::default() }
    }

    /// The store, and what waits in it.
    async fn stored(&self) -> Vec<Check> {
        let (store, waiting) = tokio::join!(self.store(), tokio::time::timeout(PATIENCE, self.depths()));
        let mut checks = vec![store];
        match waiting {
            Ok(waiting) => checks.extend(waiting),
            Err(_) => {
                let detail = format!("no answer within {PATIENCE:?}");
                checks.push(Check { name: "queue".to_owned(), critical: false, ok: false, detail });
            }
        }
        checks
    }

    fn of_store(&self, ok: bool, detail: String) -> Check {
        Check { name: "store".to_owned(), critical: self.kept.is_none(), ok, detail }
    }

    async fn store(&self) -> Check {
        let (ok, detail) = match self.store.ping().await {
            Ok(()) => (true, self.store.durability()),
            Err(error) => (false, error.to_string()),
        };
        self.of_store(ok, detail)
    }

    /// Whether the stream that keeps deliveries is there, and its servers take what is put on it.
    async fn ingest(kept: &Intake) -> Check {
        let (ok, detail) = match tokio::time::timeout(PATIENCE, kept.can_keep()).await {
            Ok(Ok(())) => (true, format!("deliveries are kept on the stream {} before they are answered", kept.stream())),
            Ok(Err(error)) => (false, format!("{error:#}")),
            Err(_) => (false, format!("NATS gives no answer within {PATIENCE:?}")),
        };
        Check { name: "ingest".to_owned(), critical: true, ok, detail }
    }

    /// What waits in the store, which its gauges show from now on.
    async fn count(&self) -> Result<Depths, store::Error> {
        let depths = self.store.read().await?.depths().await?;
        show(&depths);
        Ok(depths)
    }

    /// What waits in the store, whether cards reach their channels, and whether the audit log is sealed.
    async fn depths(&self) -> [Check; 3] {
        let depths = self.count().await;
        let cards = match &depths {
            Ok(depths) => {
                let late = format!("{} cards did not reach their channel: the log says why, and each is tried again", depths.cards_late);
                (depths.cards_late == 0, if depths.cards_late == 0 { "all cards reach their channels".to_owned() } else { late })
            }
            Err(error) => (false, error.to_string()),
        };
        let cards = Check { name: "cards".to_owned(), critical: false, ok: cards.0, detail: cards.1 };
        let audit = match &depths {
            Ok(depths) => sealed(depths.oldest_unsealed_age.unwrap_or_default().as_secs_f64()),
            Err(error) => (false, error.to_string()),
        };
        let audit = Check { name: "audit".to_owned(), critical: false, ok: audit.0, detail: audit.1 };
        let (ok, detail) = match depths {
            Ok(depths) => {
                let slow = depths.oldest_event_age.is_some_and(|age| age.as_secs_f64() > OLDEST_EVENT_SECONDS);
                let detail = format!(
                    "{} events and {} jobs wait, {} dead letters, {} dead jobs",
                    depths.queue, depths.jobs_waiting, depths.dead_letters, depths.jobs_dead
                );
                (!slow, if slow { format!("{detail}: events wait too long, no worker decides them") } else { detail })
            }
            Err(error) => (false, error.to_string()),
        };
        [Check { name: "queue".to_owned(), critical: false, ok, detail }, cards, audit]
    }

    async fn chat(&self, chat: &Arc<dyn Chat>) -> Check {
        let name = chat.platform();
        let kept = self.lock().iter().find(|(at, check)| check.name == name && at.elapsed() < CHAT_EVERY).map(|(_, check)| check.clone());
        if let Some(check) = kept {
            return check;
        }
        let (ok, detail) = match tokio::time::timeout(CHAT_PATIENCE, chat.probe()).await {
            Ok(Ok(detail)) => (true, detail),
            Ok(Err(error)) => (false, error.to_string()),
            Err(_) => (false, format!("no answer within {CHAT_PATIENCE:?}")),
        };
        let check = Check { name: name.to_owned(), critical: false, ok, detail };
        let mut asked = self.lock();
        asked.retain(|(_, check)| check.name != name);
        asked.push((Instant::now(), check.clone()));
        check
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Check)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl HealthProbe for Probe {
    async fn checks(&self) -> Vec<Check> {
        let chats = join_all(self.chats.iter().map(|chat| self.chat(chat)));
        let ingest = async {
            match &self.kept {
                Some(kept) => Some(Self::ingest(kept).await),
                None => None,
            }
        };
        // One that is slow must not hide the others.
        let (mut checks, chats, ingest) = tokio::join!(self.stored(), chats, ingest);
        checks.extend(chats.into_iter().chain(ingest));
        if let Some(bus) = &self.bus {
            let state = bus.state().get();
            checks.push(Check {
                name: "nats".to_owned(),
                critical: false,
                ok: state.is_none(),
                detail: state.unwrap_or_else(|| "connected".to_owned()),
            });
        }
        checks
    }

    async fn measure(&self) {
        if let Err(error) = self.count().await {
            tracing::debug!(%error, "what waits cannot be counted: its gauges stay as they were");
        }
    }
}

/// What it means that a row of the audit log has waited for so long.
fn sealed(seconds: f64) -> (bool, String) {
    if seconds <= OLDEST_UNSEALED_SECONDS {
        return (true, "its rows are sealed within a second".to_owned());
    }
    let why = "the server's log says why, and `watchkeeper audit verify` where; what is not sealed can be changed without a trace";
    (false, format!("a row has waited for {seconds:.0} s to be sealed: {why}"))
}

/// Sets the gauges of what waits.
fn show(depths: &Depths) {
    gauge!("watchkeeper_queue_depth").set(depths.queue as f64);
    gauge!("watchkeeper_jobs_waiting").set(depths.jobs_waiting as f64);
    gauge!("watchkeeper_cards_late").set(depths.cards_late as f64);
    gauge!("watchkeeper_audit_unsealed_oldest_seconds").set(depths.oldest_unsealed_age.unwrap_or_default().as_secs_f64());
    gauge!("watchkeeper_runs_unknown").set(depths.runs_unknown as f64);
    gauge!("watchkeeper_runs_unknown_oldest_seconds").set(depths.oldest_unknown_age.unwrap_or_default().as_secs_f64());
}

fn describe() {
    describe_gauge!("watchkeeper_queue_depth", "Events that wait to be decided.");
    describe_gauge!("watchkeeper_jobs_waiting", "Jobs that wait or are being carried out.");
    describe_gauge!("watchkeeper_cards_late", "Cards that did not reach their channel for more than a minute.");
    describe_gauge!(
        "watchkeeper_audit_unsealed_oldest_seconds",
        Unit::Seconds,
        "How long the oldest row of the audit log that is not sealed has waited: about a second at most, or nobody can seal it."
    );
    describe_gauge!("watchkeeper_runs_unknown", "Runs whose outcome nobody knows: their targets stay locked until a person settles them.");
    describe_gauge!(
        "watchkeeper_runs_unknown_oldest_seconds",
        Unit::Seconds,
        "How long the one of them that waits longest has waited; 0 if there is none."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_log_that_is_not_sealed_any_more_is_told() {
        assert!(sealed(0.0).0 && sealed(60.0).0);
        let (ok, detail) = sealed(61.0);
        assert!(!ok && detail.contains("61 s"), "{detail}");
    }
}
