//! Asks every dependency how it is, for `/readyz` and `/health`.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use domain::chat::Chat;
use store::Store;
use webhook_gateway::{Check, HealthProbe};

use crate::bus::BusState;

/// A platform is asked at most this often: probes are answered from the last answer in between.
const CHAT_EVERY: Duration = Duration::from_secs(60);
/// A platform that takes longer counts as out of reach for now.
const CHAT_PATIENCE: Duration = Duration::from_millis(1500);
/// Events waiting longer than this mean that nobody decides them.
const OLDEST_EVENT_SECONDS: f64 = 60.0;

/// All dependencies of this process.
pub(crate) struct Probe {
    store: Store,
    chats: Vec<Arc<dyn Chat>>,
    bus: Option<BusState>,
    asked: Mutex<Vec<(Instant, Check)>>,
}

impl Probe {
    pub(crate) fn new(store: Store, chats: Vec<Arc<dyn Chat>>, bus: Option<BusState>) -> Self {
        Self { store, chats, bus, asked: Mutex::default() }
    }

    async fn store(&self) -> Check {
        let (ok, detail) = match self.store.ping().await {
            Ok(()) => (true, self.store.durability()),
            Err(error) => (false, error.to_string()),
        };
        Check { name: "store".to_owned(), critical: true, ok, detail }
    }

    /// What waits in the store, and whether cards reach their channels.
    async fn depths(&self) -> [Check; 2] {
        let depths = match self.store.read().await {
            Ok(mut tx) => tx.depths().await,
            Err(error) => Err(error),
        };
        let cards = match &depths {
            Ok(depths) => {
                metrics::gauge!("watchkeeper_cards_late").set(depths.cards_late as f64);
                let late = format!("{} cards did not reach their channel: the log says why, and each is tried again", depths.cards_late);
                (depths.cards_late == 0, if depths.cards_late == 0 { "all cards reach their channels".to_owned() } else { late })
            }
            Err(error) => (false, error.to_string()),
        };
        let cards = Check { name: "cards".to_owned(), critical: false, ok: cards.0, detail: cards.1 };
        let (ok, detail) = match depths {
            Ok(depths) => {
                metrics::gauge!("watchkeeper_queue_depth").set(depths.queue as f64);
                metrics::gauge!("watchkeeper_jobs_waiting").set(depths.jobs_waiting as f64);
                let slow = depths.oldest_event_age.is_some_and(|age| age.as_secs_f64() > OLDEST_EVENT_SECONDS);
                let detail = format!(
                    "{} events and {} jobs wait, {} dead letters, {} dead jobs",
                    depths.queue, depths.jobs_waiting, depths.dead_letters, depths.jobs_dead
                );
                (!slow, if slow { format!("{detail}: events wait too long, no worker decides them") } else { detail })
            }
            Err(error) => (false, error.to_string()),
        };
        [Check { name: "queue".to_owned(), critical: false, ok, detail }, cards]
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
        let mut checks = vec![self.store().await];
        checks.extend(self.depths().await);
        for chat in &self.chats {
            checks.push(self.chat(chat).await);
        }
        if let Some(bus) = &self.bus {
            let state = bus.get();
            checks.push(Check {
                name: "nats".to_owned(),
                critical: false,
                ok: state.is_none(),
                detail: state.unwrap_or_else(|| "connected".to_owned()),
            });
        }
        checks
    }
}
