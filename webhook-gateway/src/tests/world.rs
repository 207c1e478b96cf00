//! A gateway with a store of its own, people, sources, and a stand-in for the handlers that answers acts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use domain::act::{ActOutcome, Verb};
use domain::event::{Event, Payload};
use domain::id::StartId;
use domain::inbox::{HttpInbound, HttpRequest, HttpResponse, Inbox};
use domain::permission::{People, Principal, Right};
use domain::rules::{RuleSet, SourceRule};
use domain::time::{Clock, ManualClock};
use jiff::Timestamp;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use store::{Options, Store, TokenRow};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::console::ConsoleSettings;
use crate::sources::generic::GenericMap;
use crate::sources::kind;
use crate::tokens::Token;
use crate::{Check, Credential, Gateway, HealthProbe, Limits, Settings, SourceAuth, SourceSettings};

pub(super) const BEARER: &str = "bearer-secret-0123456789";
pub(super) const HUB: &str = "hub-secret-0123456789abcdef";
/// `whsec_` and 32 bytes.
pub(super) const STANDARD: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Two active secrets of each further form of signature; the last are seeds of Ed25519 keys.
pub(super) const SLACK: [&str; 2] = ["slack-secret-0123456789", "slack-secret-next-0123456789"];
pub(super) const STRIPE: [&str; 2] = ["whsec_stripe-0123456789", "whsec_stripe-next-0123456789"];
pub(super) const SEEDS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

pub(super) struct World {
    pub(super) store: Store,
    pub(super) clock: ManualClock,
    pub(super) rules: Arc<ArcSwap<RuleSet>>,
    pub(super) router: Router,
    pub(super) stopping: CancellationToken,
    _dir: tempfile::TempDir,
}

/// What a test changes before the gateway is made.
pub(super) struct Setup {
    pub(super) limits: Limits,
    pub(super) inbox: Option<Arc<dyn Inbox>>,
    pub(super) checks: Vec<Check>,
    pub(super) metrics_token: Option<crate::HashedSecret>,
}

impl Default for Setup {
    fn default() -> Self {
        // Refusals are written down soon, so that tests need not wait.
        let limits = Limits { refusals_every: std::time::Duration::from_millis(20), ..Limits::default() };
        let checks = vec![Check { name: "store".to_owned(), critical: true, ok: true, detail: "sqlite, full".to_owned() }];
        Self { limits, inbox: None, checks, metrics_token: None }
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(super) async fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at("2026-11-20T12:00:00Z".parse().unwrap());
        let store = Store::open(Options {
            url: format!("sqlite:{}", dir.path().join("store.db").display()),
            clock: Arc::new(clock.clone()),
            instance: "test".to_owned(),
            start: StartId::new(clock.now()),
            audit_keys: vec![vec![7; 32].into()],
            max_waiting: 1000,
        })
        .await
        .unwrap();
        let rules = Arc::new(ArcSwap::from_pointee(rules()));
        let stopping = CancellationToken::new();
        let settings = Settings {
            sources: Arc::new(ArcSwap::from_pointee(sources())),
            limits: setup.limits,
            metrics_token: setup.metrics_token,
            version: "1.2.3".to_owned(),
            https: false,
        };
        let router = Gateway {
            settings,
            store: store.clone(),
            intake: setup.inbox.clone().unwrap_or_else(|| Arc::new(store.clone())),
            inbox: setup.inbox.unwrap_or_else(|| Arc::new(store.clone())),
            rules: Arc::clone(&rules),
            chat: vec![Arc::new(Echo)],
            clock: Arc::new(clock.clone()),
            metrics: Arc::new(|| recorder().render()),
            health: Arc::new(Probe(setup.checks)),
            console: ConsoleSettings { link_keys: vec![vec![9; 32].into()] },
            reload: Arc::new(|| Box::pin(async { Err("deploy.yaml:3: no such channel".to_owned()) })),
            stopping: stopping.clone(),
            ops_only: false,
            agents: None,
        }
        .router();
        Self { store, clock, rules, router, stopping, _dir: dir }
    }

    /// A token of `principal`, as it is sent.
    pub(super) async fn token(&self, principal: &str, rights: &[Right]) -> String {
        let token = Token::mint(self.clock.now()).unwrap();
        let row = TokenRow {
            id: token.id,
            secret_hash: token.hash().to_vec(),
            principal: principal.to_owned(),
            name: "test".to_owned(),
            rights: rights.iter().copied().collect(),
            created_at: self.clock.now(),
            expires_at: None,
            revoked_at: None,
            last_used: None,
        };
        let mut tx = self.store.begin().await.unwrap();
        tx.insert_token(&row).await.unwrap();
        tx.commit().await.unwrap();
        secrecy::ExposeSecret::expose_secret(&token.reveal()).to_owned()
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Status and JSON body of the answer.
    pub(super) async fn ask(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.send(request).await;
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
    }

    /// From now on what `deploys` sends are signs of life.
    pub(super) fn expect_deploys(&self) {
        let mut rules = (**self.rules.load()).clone();
        let heartbeats = [("Deploy failed".to_owned(), "1h".parse().unwrap())].into();
        rules.sources.insert("deploys".to_owned(), SourceRule { name: "deploys".to_owned(), repeat_interval: None, heartbeats });
        self.rules.store(rules.into());
    }

    /// Everything stored so far.
    pub(super) async fn events(&self) -> Vec<Event> {
        self.store.read().await.unwrap().events_since(0, 100_000).await.unwrap()
    }

    /// Alert names of the stored alerts, in order.
    pub(super) async fn alerts(&self) -> Vec<String> {
        let name = |event: Event| match event.payload {
            Payload::Alert(sighting) => sighting.labels.get("alertname").cloned(),
            _ => None,
        };
        self.events().await.into_iter().filter_map(name).collect()
    }

    /// Refusals that were written down, by source and reason.
    pub(super) async fn refusals(&self) -> BTreeMap<(String, String), i64> {
        let rows = self.store.read().await.unwrap().refusals(Timestamp::UNIX_EPOCH).await.unwrap();
        rows.into_iter().map(|(source, reason, _, n)| ((source, reason), n)).collect()
    }

    /// Plays the handlers: gives every act the outcome that `decide` says, until it is dropped.
    pub(super) fn answer(&self, decide: impl Fn(&Verb) -> ActOutcome + Send + Sync + 'static) -> Answering {
        let store = self.store.clone();
        Answering(tokio::spawn(async move {
            let mut changes = store.changes();
            loop {
                let mut tx = store.begin().await.unwrap();
                let events = tx.claim_events(100).await.unwrap();
                let outcome = |event: &Event| match &event.payload {
                    Payload::Act(act) => Some(decide(&act.verb)),
                    _ => None,
                };
                let finished: Vec<_> = events.iter().map(|event| (event.seq, outcome(event))).collect();
                tx.finish_events(&finished).await.unwrap();
                tx.commit().await.unwrap();
                if finished.is_empty() {
                    let _ = changes.recv().await;
                }
            }
        }))
    }
}

pub(super) struct Answering(tokio::task::JoinHandle<()>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A POST of text with these headers.
pub(super) fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    call("POST", path, headers, body)
}

/// A GET with a token.
pub(super) fn get(path: &str, token: &str) -> Request<Body> {
    call("GET", path, &[("authorization", &format!("Bearer {token}"))], Body::empty())
}

/// A POST of JSON with a token.
pub(super) fn send(path: &str, token: &str, body: &Value) -> Request<Body> {
    call("POST", path, &[("authorization", &format!("Bearer {token}")), ("content-type", "application/json")], body.to_string())
}

pub(super) fn call(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// The key pair of a seed.
pub(super) fn signer(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).unwrap()
}

fn sources() -> BTreeMap<String, SourceSettings> {
    let source = |name: &str, credentials: &[Credential]| SourceSettings {
        kind: kind(name).unwrap(),
        auth: SourceAuth::new(credentials).unwrap_or_default(),
        map: None,
    };
    let bearer = |text: &str| Credential::Bearer(text.to_owned().into());
    let map =
        json!({"labels": {"alertname": "body.title", "event": "'x-event' in headers ? headers['x-event'] : ''"}, "fingerprint": "body.id"});
    let map = GenericMap::compile(&serde_json::from_value(map).unwrap()).unwrap();
    let mut signed = vec![Credential::HubSignature(HUB.to_owned().into()), Credential::StandardWebhooks(STANDARD.to_owned().into())];
    signed.extend(SLACK.map(|secret| Credential::SlackSignature(secret.to_owned().into())));
    signed.extend(STRIPE.map(|secret| Credential::StripeSignature(secret.to_owned().into())));
    signed.extend(SEEDS.map(|seed| Credential::Ed25519(hex::encode(signer(&seed).public_key().as_ref()))));
    let mut generic = source("generic", &signed);
    generic.map = Some(Arc::new(map));
    let basic = Credential::Basic { user: "am".to_owned(), password: "basic-secret-0123456789".to_owned().into() };
    BTreeMap::from([
        ("alertmanager".to_owned(), source("alertmanager", &[bearer(BEARER)])),
        ("prod".to_owned(), source("alertmanager", &[bearer(BEARER), bearer("the-next-secret-0123456789"), basic])),
        ("closed".to_owned(), source("alertmanager", &[])),
        ("deploys".to_owned(), generic),
    ])
}

fn rules() -> RuleSet {
    let heartbeats = [("Watchdog".to_owned(), "10m".parse().unwrap())].into();
    let all: BTreeSet<Right> = Right::ALL.into();
    let sre = BTreeSet::from([Right::View, Right::Acknowledge, Right::Resolve, Right::Note, Right::Run, Right::Approve]);
    let person = |name: &str, role: &str, human: bool| {
        let principal = Principal { name: name.to_owned(), roles: [role.to_owned()].into(), identities: Vec::new(), human };
        (name.to_owned(), principal)
    };
    RuleSet {
        digest: "0".repeat(64),
        texts: Vec::new(),
        severities: Vec::new(),
        default_severity: 0,
        channels: BTreeMap::new(),
        default_channels: BTreeSet::new(),
        targets: BTreeMap::new(),
        routes: Vec::new(),
        runbooks: BTreeMap::new(),
        people: People {
            roles: [("admin".to_owned(), all), ("sre".to_owned(), sre), ("guest".to_owned(), [Right::View].into())].into(),
            principals: [
                person("root", "admin", true),
                person("ann", "sre", true),
                person("gus", "guest", true),
                person("ci", "sre", false),
            ]
            .into(),
        },
        sources: [("prod".to_owned(), SourceRule { name: "prod".to_owned(), repeat_interval: None, heartbeats })].into(),
        waits: Default::default(),
    }
}

/// The one recorder of the test process.
pub(super) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap())
}

struct Probe(Vec<Check>);

#[async_trait]
impl HealthProbe for Probe {
    async fn checks(&self) -> Vec<Check> {
        self.0.clone()
    }

    async fn measure(&self) {}
}

/// A chat platform that sends back what it was handed.
struct Echo;

#[async_trait]
impl HttpInbound for Echo {
    fn paths(&self) -> Vec<&'static str> {
        vec!["/echo/interactions"]
    }

    async fn handle(&self, request: HttpRequest) -> HttpResponse {
        let given = json!({"path": request.path, "x-sig": request.header("x-sig"), "length": request.body.len()});
        HttpResponse::json(202, &given)
    }
}
