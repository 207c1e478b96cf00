//! A store, a worker, two actions, a chat and a clock.

mod actions;
mod room;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use domain::act::{Act, ActOutcome, Identity, Place, Verb};
use domain::action::{ActionCatalogue, ActionError};
use domain::button::ButtonKeys;
use domain::card::{Card, Message};
use domain::chat::ChatError;
use domain::event::{Delivery, NewEvent, Sighting, Status};
use domain::id::StartId;
use domain::inbox::Inbox;
use domain::incident::Incident;
use domain::redact::Redactor;
use domain::rules::{RuleSet, compile};
use domain::run::Run;
use domain::time::{Clock, ManualClock};
use harness::peers::Postgres;
use jiff::{SignedDuration, Timestamp};
use store::{IncidentFilter, Options, RunFilter, Store};
use tokio::sync::Semaphore;

use crate::{Cx, Wake, Worker};
use actions::{Actions, Change, Look};
use room::Room;

pub(super) use actions::Broken;

/// The rules that most tests begin with.
pub(super) const RULES: &str = r#"
channels: { ops: { platform: slack, id: C1 } }
default_channels: [ops]
incidents: { resolve_after: 2m, reopen_within: 30m, close_after: 24h }
sources: { am: { kind: alertmanager, repeat_interval: 4h, heartbeats: { Watchdog: 15m } } }
roles: { sre: [view, acknowledge, resolve, note, run, approve, pause] }
principals:
  ann: { roles: [sre] }
  bob: { roles: [sre] }
  eve: { roles: [viewer] }
targets: { api: { kind: process, program: /bin/true } }
routes:
  - name: down
    match: ['alertname="Down"']
    incident: { group_by: [alertname, service], severity: P1 }
    remedy: { runbook: fix, with: { target: '{{ labels.service }}' }, mode: MODE }
runbooks:
  fix:
    params: { target: { type: target } }
    approval: { roles: [sre], quorum: 1, expires: 15m }
    guards: { cooldown: 10m, concurrency: 1 }
    steps: [ { id: change, uses: test.change, with: { target: '{{ params.target }}' } } ]
    verify: { uses: test.look, with: { target: '{{ params.target }}' }, within: 1m, every: 5s }
    on_failure: { escalate: now, lock_after: 2 }
"#;

/// What the stand-ins do and have done.
#[derive(Default)]
pub(super) struct Script {
    /// How often the change was carried out.
    pub(super) changes: u32,
    /// What it ends with next, if not well.
    pub(super) change_fails: Option<ActionError>,
    /// Whether the check passes.
    pub(super) healthy: bool,
    /// Cards as they were posted or edited, in order.
    pub(super) cards: Vec<Card>,
    /// What was told in threads.
    pub(super) thread: Vec<String>,
    /// Posts that were drawn, whether they were made or not.
    pub(super) drawn: usize,
    /// Posts, not edits: under which delivery id.
    pub(super) posts: Vec<String>,
    /// Answers to the next posts that are lost on the way.
    pub(super) answers_lost: u32,
    /// How often a post was looked for.
    pub(super) looks: u32,
    /// What the platform answers to every call, if not well.
    pub(super) answers: Option<ChatError>,
    /// How many calls were made.
    pub(super) calls: u32,
    /// Where cards were edited.
    pub(super) edited_at: Vec<Place>,
    /// Private answers that arrived.
    pub(super) replies: Vec<ActOutcome>,
    /// Plain messages that arrived.
    pub(super) messages: Vec<Message>,
    /// Changes wait until this is closed.
    pub(super) gate: Option<Arc<Semaphore>>,
}

impl Script {
    /// A call reaches the platform, or not.
    fn call(&mut self) -> Result<(), ChatError> {
        self.calls += 1;
        self.answers.clone().map_or(Ok(()), Err)
    }
}

pub(super) struct World {
    pub(super) cx: Cx,
    pub(super) worker: Worker,
    pub(super) clock: ManualClock,
    pub(super) script: Arc<Mutex<Script>>,
    _dir: tempfile::TempDir,
}

impl World {
    pub(super) async fn new(mode: &str) -> Self {
        Self::over(mode, None).await
    }

    /// The same over PostgreSQL.
    pub(super) async fn on_postgres(mode: &str) -> Self {
        Self::over(mode, Some(Postgres::shared().await.unwrap().create_database().await.unwrap())).await
    }

    /// The same over this PostgreSQL, or SQLite.
    pub(super) async fn over(mode: &str, url: Option<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap());
        let script = Arc::new(Mutex::new(Script { healthy: true, ..Script::default() }));
        let actions = Arc::new(Actions(vec![Box::new(Change(script.clone())), Box::new(Look(script.clone()))]));
        let rules = rules(&RULES.replace("MODE", mode), actions.as_ref());
        let store = Store::open(Options {
            url: url.unwrap_or_else(|| format!("sqlite:{}", dir.path().join("store.db").display())),
            clock: Arc::new(clock.clone()),
            instance: "test".to_owned(),
            start: StartId::new(clock.now()),
            audit_keys: vec![vec![7; 32].into()],
            max_waiting: 100,
        })
        .await
        .unwrap();
        let cx = Cx {
            store: store.clone(),
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            actions,
            chats: vec![Arc::new(Room(script.clone(), store))],
            clock: Arc::new(clock.clone()),
            buttons: ButtonKeys::new(vec![vec![1; 32].into()]).unwrap(),
            redactor: Arc::new(Redactor::detectors_only()),
            beat: None,
            bus: None,
            wake: Arc::new(Wake::default()),
            retention: crate::Retention::default(),
            claim: crate::Claim::default(),
        };
        Self { worker: Worker::new(cx.clone()), cx, clock, script, _dir: dir }
    }

    /// From now on this bus is told of what happens.
    pub(super) fn connect(&mut self, bus: Arc<dyn domain::lifecycle::Bus>) {
        self.cx.store.publish_lifecycle();
        self.cx.bus = Some(bus);
        self.worker = Worker::new(self.cx.clone());
    }

    /// Changes the rules, as a reload would.
    pub(super) fn reload(&self, text: &str) {
        self.cx.rules.store(Arc::new(rules(text, self.cx.actions.as_ref())));
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time passes, and everything that became due is done.
    pub(super) async fn pass(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
        self.worker.settle().await.unwrap();
    }

    /// Time passes a second at a time; how many jobs were carried out meanwhile.
    pub(super) async fn pass_slowly(&self, seconds: i64) -> usize {
        let mut jobs = 0;
        for _ in 0..seconds {
            self.clock.advance(SignedDuration::from_secs(1));
            jobs += self.worker.settle().await.unwrap().jobs;
        }
        jobs
    }

    /// Stores an alert and lets it be handled. The episode begins now, or ends now.
    pub(super) async fn alert(&self, service: &str, status: Status) {
        self.hear(self.sighting(service, status)).await;
    }

    /// Time passes, and then the alert is over.
    pub(super) async fn resolve_after(&self, seconds: i64, service: &str) {
        self.pass(seconds).await;
        self.alert(service, Status::Resolved).await;
    }

    pub(super) async fn hear(&self, sighting: Sighting) {
        self.store_only(sighting).await;
        self.worker.settle().await.unwrap();
    }

    pub(super) async fn store_only(&self, sighting: Sighting) {
        self.accept(NewEvent::sighting("am", sighting)).await;
    }

    pub(super) async fn accept(&self, event: NewEvent) -> i64 {
        let delivery = Delivery { source: "am".to_owned(), events: vec![event], raw: bytes::Bytes::new(), received_at: self.now() };
        self.cx.store.accept(delivery).await.unwrap().seqs[0]
    }

    pub(super) fn sighting(&self, service: &str, status: Status) -> Sighting {
        let labels = [("alertname", "Down"), ("service", service), ("severity", "critical")];
        Sighting {
            fingerprint: format!("f-{service}"),
            status,
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            annotations: BTreeMap::new(),
            starts_at: self.now(),
            ends_at: (status == Status::Resolved).then_some(self.now()),
            generator_url: None,
            external_url: None,
            cut: 0,
        }
    }

    /// Somebody asks for something over the API; everything due follows.
    pub(super) async fn act(&self, who: &str, verb: Verb) -> ActOutcome {
        let actor =
            Identity { platform: "api".to_owned(), workspace: String::new(), user: who.to_owned(), display: who.to_owned(), barred: None };
        let act = Act { actor, verb, button: None, place: None, reply: None };
        let unique = domain::id::uuid_at(self.now()).to_string();
        let seq = self.accept(NewEvent::act("api", &unique, act)).await;
        self.worker.settle().await.unwrap();
        self.cx.store.outcome(seq, std::time::Duration::ZERO).await.unwrap().unwrap()
    }

    pub(super) async fn incidents(&self) -> Vec<Incident> {
        let filter = IncidentFilter { open_only: false, prefix: None, before: None, limit: 1000 };
        let mut all = self.cx.store.read().await.unwrap().incidents(&filter).await.unwrap();
        all.sort_by_key(|incident| incident.number);
        all
    }

    /// The only run.
    pub(super) async fn run(&self) -> Run {
        let runs = self.runs().await;
        assert_eq!(runs.len(), 1, "{runs:#?}");
        runs.into_iter().next().unwrap()
    }

    pub(super) async fn runs(&self) -> Vec<Run> {
        let filter = RunFilter { active_only: false, runbook: None, before: None, limit: 1000 };
        self.cx.store.read().await.unwrap().runs(&filter).await.unwrap()
    }

    /// The newest request for approval of the only run.
    pub(super) async fn approval(&self) -> domain::approval::Approval {
        let run = self.run().await.id;
        self.cx.store.read().await.unwrap().approval_of(run).await.unwrap().unwrap()
    }

    pub(super) async fn timeline(&self) -> Vec<String> {
        let id = self.incidents().await[0].id;
        let entries = self.cx.store.read().await.unwrap().timeline(id, 500).await.unwrap();
        entries.into_iter().map(|(_, entry)| entry.text).collect()
    }

    /// Reasons of everything that was refused, as audited.
    pub(super) async fn refusals(&self) -> Vec<String> {
        let rows = self.cx.store.read().await.unwrap().audit_rows(0, 1000).await.unwrap();
        let refused = rows.into_iter().map(Result::unwrap).filter(|row| row.row.decision == domain::audit::AuditDecision::Refused);
        refused.map(|row| row.row.reason).collect()
    }
}

fn rules(text: &str, actions: &dyn ActionCatalogue) -> RuleSet {
    compile(&[("rules.yaml".to_owned(), text.to_owned())], actions).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    })
}
