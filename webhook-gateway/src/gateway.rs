//! The gateway as a whole: what it needs from the rest of the process, and its routes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::Router;
use axum::middleware::from_fn_with_state;
use domain::announcement::Agents;
use domain::inbox::{HttpInbound, Inbox};
use domain::rules::RuleSet;
use domain::time::Clock;
use store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::body::Budget;
use crate::console::ConsoleSettings;
use crate::error::ApiError;
use crate::health::HealthProbe;
use crate::refusals::Refusals;
use crate::settings::Settings;
use crate::{api, chat, console, guard, ingest, meters, ops};

/// What the gateway needs. [`Gateway::router`] makes the routes of it.
pub struct Gateway {
    /// Sources, secrets and bounds.
    pub settings: Settings,
    /// For what is only read, and for tokens and samples.
    pub store: Store,
    /// For everything that happens.
    pub inbox: Arc<dyn Inbox>,
    /// For deliveries of the sources: the same, or one that keeps them elsewhere first.
    pub intake: Arc<dyn Inbox>,
    /// The rule set in force: heartbeats of the sources, people, runbooks.
    pub rules: Arc<ArcSwap<RuleSet>>,
    /// The chat platforms that bring HTTP routes.
    pub chat: Vec<Arc<dyn HttpInbound>>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Renders the metrics as Prometheus text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Asks the dependencies.
    pub health: Arc<dyn HealthProbe>,
    /// The pages for people.
    pub console: ConsoleSettings,
    /// Reads the configuration again: says what is in force now, or why nothing changed.
    pub reload: Reload,
    /// Cancelled when the soft stop begins: live streams end and `/readyz` says no.
    pub stopping: CancellationToken,
    /// Serve nothing but what whoever runs it asks for (health, metrics, reload): the rest is another process's part.
    pub ops_only: bool,
    /// Knows the agents on other hosts, where there are any.
    pub agents: Option<Arc<dyn Agents>>,
}

/// See [`Gateway::reload`].
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// What handlers share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) intake: Arc<dyn Inbox>,
    pub(crate) rules: Arc<ArcSwap<RuleSet>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub(crate) health: Arc<dyn HealthProbe>,
    pub(crate) console: ConsoleSettings,
    pub(crate) agents: Option<Arc<dyn Agents>>,
    pub(crate) reload: Reload,
    pub(crate) stopping: CancellationToken,
    pub(crate) started: Instant,
    /// Bodies of senders who have proved who they are.
    pub(crate) proven: Budget,
    /// Bodies of everybody else.
    pub(crate) unproven: Budget,
    /// Bodies of megabytes are parsed one at a time: parsed they are several times as large.
    pub(crate) heavy: Semaphore,
    /// Live streams.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) refusals: Arc<Refusals>,
}

/// The state of every route.
pub(crate) type App = Arc<Shared>;

impl Gateway {
    /// All routes, with the guards around them. Wants a Tokio runtime when it is called with requests, not before.
    pub fn router(self) -> Router {
        meters::describe();
        let chat = chat::routes(&self.chat);
        let routes = match self.ops_only {
            true => ops::routes(),
            false => Router::new().merge(ingest::routes()).merge(ops::routes()).merge(api::routes()).merge(console::routes()).merge(chat),
        };
        let app = self.share();
        routes
            .fallback(async || ApiError::NotFound("path"))
            .method_not_allowed_fallback(async || ApiError::Method)
            .layer(CatchPanicLayer::custom(guard::panicked))
            .layer(from_fn_with_state(Arc::clone(&app), guard::every))
            .with_state(app)
    }

    fn share(self) -> App {
        let limits = self.settings.limits.clone();
        Arc::new(Shared {
            refusals: Refusals::new(self.store.clone(), Arc::clone(&self.clock), limits.refusals_every, self.stopping.clone()),
            proven: Budget::new(limits.in_flight),
            unproven: Budget::new(limits.unproven_in_flight),
            heavy: Semaphore::new(1),
            streams: Arc::new(Semaphore::new(limits.streams)),
            started: Instant::now(),
            settings: self.settings,
            store: self.store,
            inbox: self.inbox,
            intake: self.intake,
            rules: self.rules,
            clock: self.clock,
            metrics: self.metrics,
            health: self.health,
            console: self.console,
            agents: self.agents,
            reload: self.reload,
            stopping: self.stopping,
        })
    }
}
