//! What happens on an event: decisions that commit state, timeline, audit and jobs in one transaction; and the jobs that act on them.
//!
//! Handlers touch no network. Jobs do, and they are idempotent or say that they are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use domain::action::ActionCatalogue;
use domain::button::ButtonKeys;
use domain::chat::Chat;
use domain::lifecycle::Bus;
use domain::redact::Redactor;
use domain::rules::RuleSet;
use domain::time::Clock;
use store::Store;
use tokio::sync::Notify;

mod acts;
mod batch;
mod cards;
mod carry;
mod claim;
mod deciding;
mod guards;
mod hands;
mod jobs;
mod journal;
mod on_act;
mod on_alert;
mod on_heartbeat;
mod pace;
mod resume;
mod runs;
mod set_back;
mod starting;
mod steps;
#[cfg(test)]
mod tests;
mod worker;

pub use claim::Claim;
pub use jobs::prune::Retention;
pub use jobs::upkeep::{Beat, Pulse};
pub use worker::{Settled, Worker};

/// What handlers and jobs work with. `server` makes it.
#[derive(Clone)]
pub struct Cx {
    /// All state.
    pub store: Store,
    /// The rule set in force; a reload swaps it.
    pub rules: Arc<ArcSwap<RuleSet>>,
    /// The action library.
    pub actions: Arc<dyn ActionCatalogue>,
    /// The chat platforms that are configured.
    pub chats: Vec<Arc<dyn Chat>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Signs buttons and checks them.
    pub buttons: ButtonKeys,
    /// Takes configured secrets out of what is stored or told.
    pub redactor: Arc<Redactor>,
    /// Calls the address that must hear from us; `None` if none is configured.
    pub beat: Option<Arc<dyn Beat>>,
    /// Carries lifecycle events to other programs; `None` if that is not configured.
    pub bus: Option<Arc<dyn Bus>>,
    /// How long what is kept.
    pub retention: Retention,
    /// Wakes the worker.
    pub wake: Arc<Wake>,
    /// In a job, the claim under which it is carried out: ask it before every effect.
    pub claim: Claim,
}

impl Cx {
    /// The platform of this name, if it is configured.
    pub fn chat(&self, platform: &str) -> Option<&Arc<dyn Chat>> {
        self.chats.iter().find(|chat| chat.platform() == platform)
    }
}

/// What the parts of a process share with its worker: the call to work, the call to stop, the hands that are free, and the budget of calls to
/// chat platforms.
#[derive(Debug, Default)]
pub struct Wake {
    pub(crate) pace: pace::Pace,
    pub(crate) under_way: carry::UnderWay,
    pub(crate) hands: hands::Hands,
    pub(crate) known: cards::Known,
    events: Notify,
    jobs: Notify,
    stopping: AtomicBool,
    stopped: Notify,
}

impl Wake {
    /// There may be events to decide.
    pub(crate) fn wake_events(&self) {
        self.events.notify_one();
    }

    /// There may be jobs to carry out.
    pub(crate) fn wake_jobs(&self) {
        self.jobs.notify_one();
    }

    /// Finish what is at hand and take nothing new.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stopped.notify_waiters();
        self.wake_events();
        self.wake_jobs();
    }

    /// Whether `stop` was called.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Until `stop`, or at once after it.
    pub(crate) async fn stopped(&self) {
        let stopped = self.stopped.notified();
        if !self.stopping() {
            stopped.await;
        }
    }

    /// Until there may be events to decide.
    pub(crate) async fn events(&self) {
        self.events.notified().await;
    }

    /// Until there may be jobs to carry out.
    pub(crate) async fn jobs(&self) {
        self.jobs.notified().await;
    }
}
