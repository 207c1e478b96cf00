//! Three workers on one store, and alerts that fire, resolve and fire again, heard in any order: the final state is what an oracle says, and
//! nothing that was accepted is left without an incident, a heartbeat or a visible reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use arc_swap::ArcSwap;
use domain::action::{Action, ActionCatalogue};
use domain::alert::Alert;
use domain::button::ButtonKeys;
use domain::event::{Delivery, NewEvent, Sighting, Status};
use domain::id::StartId;
use domain::inbox::Inbox;
use domain::redact::Redactor;
use domain::rules::compile;
use domain::time::{Clock, SystemClock};
use handlers::{Cx, Wake, Worker};
use harness::peers::Postgres;
use harness::{eventually, temp_dir};
use jiff::{SignedDuration, Timestamp};
use store::{IncidentFilter, Options, Store};

/// Alerts, each with its fire, resolve and refire.
const ALERTS: usize = 10_000;
/// Incidents that they fold into.
const SERVICES: usize = 100;
/// Every so many alerts one is only recorded, by a route without an incident.
const RECORDED: usize = 51;
const WORKERS: usize = 3;
/// Generous: an unoptimised build beside other tests.
const WITHIN: Duration = Duration::from_secs(300);

const RULES: &str = r#"
incidents: { resolve_after: 1h, reopen_within: 30m, close_after: 24h }
sources: { am: { kind: alertmanager } }
routes:
  - { name: recorded, match: ['alertname="Recorded"'] }
  - { name: flood, match: ['alertname="Flood"'], incident: { group_by: [service] } }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_on_sqlite_agree_with_the_oracle() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let dir = temp_dir("workers")?;
    let store = open(&format!("sqlite:{}", dir.path().join("store.db").display()), "one").await?;
    agree(&vec![store; WORKERS]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_on_postgres_agree_with_the_oracle() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let url = Postgres::shared().await?.create_database().await?;
    let mut stores = Vec::new();
    for instance in ["one", "two", "three"] {
        stores.push(open(&url, instance).await?);
    }
    agree(&stores).await
}

async fn agree(stores: &[Store]) -> anyhow::Result<()> {
    // All is heard at one moment: how late something is must not depend on how busy this machine is.
    let now = SystemClock.now();
    let lives = lives(now);
    let workers: Vec<(Arc<Wake>, tokio::task::JoinHandle<()>)> = stores.iter().map(worker).collect::<Result<_, _>>()?;
    let mut heard: Vec<Sighting> = lives.iter().flat_map(|life| life.heard.clone()).collect();
    shuffle(&mut heard);
    let shares: Vec<Vec<Sighting>> = heard.chunks(heard.len().div_ceil(stores.len())).map(<[_]>::to_vec).collect();
    let senders = stores.iter().cloned().zip(shares).map(|(store, share)| tokio::spawn(send(store, share, now)));
    for sender in futures::future::join_all(senders).await {
        sender??;
    }
    eventually(WITHIN, async || {
        let depths = stores[0].read().await?.depths().await?;
        ensure!(depths.queue == 0, "{} events wait", depths.queue);
        Ok(())
    })
    .await?;
    for (wake, _) in &workers {
        wake.stop();
    }
    for (_, worker) in workers {
        worker.await?;
    }
    check(&stores[0], &lives).await
}

/// What an alert goes through, and how it must end.
struct Life {
    fingerprint: String,
    recorded: bool,
    fires: bool,
    heard: Vec<Sighting>,
}

/// Most lives end firing; every seventh stops after its resolve, every eleventh is resolved once more.
fn lives(now: Timestamp) -> Vec<Life> {
    let mut random = Random(7);
    let life = |n: usize| {
        let begin = now - SignedDuration::from_secs(3_600 - i64::try_from(random.below(600)).unwrap_or(0));
        let at = |minutes: i64| begin + SignedDuration::from_mins(minutes);
        let recorded = n.is_multiple_of(RECORDED);
        let service = format!("service-{}", n % SERVICES);
        let seen =
            |status: Status, starts_at: Timestamp, ends_at: Option<Timestamp>| sighting(n, &service, recorded, status, starts_at, ends_at);
        let mut heard = vec![seen(Status::Firing, at(0), None), seen(Status::Resolved, at(0), Some(at(10)))];
        let again = !n.is_multiple_of(7);
        if again {
            heard.push(seen(Status::Firing, at(20), None));
        }
        let over = again && n.is_multiple_of(11);
        if over {
            heard.push(seen(Status::Resolved, at(20), Some(at(30))));
        }
        // The oracle: it fires if its last start is later than its last end.
        let last = |status: Status, of: fn(&Sighting) -> Timestamp| heard.iter().filter(|one| one.status == status).map(of).max();
        let fires = last(Status::Firing, |one| one.starts_at) > last(Status::Resolved, |one| one.ends_at.unwrap_or(Timestamp::MIN));
        Life { fingerprint: heard[0].fingerprint.clone(), recorded, fires, heard }
    };
    (0..ALERTS).map(life).collect()
}

fn sighting(n: usize, service: &str, recorded: bool, status: Status, starts_at: Timestamp, ends_at: Option<Timestamp>) -> Sighting {
    let name = if recorded { "Recorded" } else { "Flood" };
    let labels = [("alertname", name), ("service", service), ("n", &n.to_string())];
    Sighting {
        fingerprint: format!("f{n}"),
        status,
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        annotations: BTreeMap::new(),
        starts_at,
        ends_at,
        generator_url: None,
        external_url: None,
        cut: 0,
    }
}

/// Sends them in deliveries of one to twenty.
async fn send(store: Store, share: Vec<Sighting>, now: Timestamp) -> anyhow::Result<()> {
    let mut random = Random(share.len() as u64);
    let mut rest = share.as_slice();
    while !rest.is_empty() {
        let (part, after) = rest.split_at((1 + random.below(20)).min(rest.len()));
        rest = after;
        let events = part.iter().map(|sighting| NewEvent::sighting("am", sighting.clone())).collect();
        store.accept(Delivery { source: "am".to_owned(), events, raw: bytes::Bytes::new(), received_at: now }).await?;
    }
    Ok(())
}

async fn check(store: &Store, lives: &[Life]) -> anyhow::Result<()> {
    let mut tx = store.read().await?;
    let depths = tx.depths().await?;
    ensure!((depths.dead_letters, depths.jobs_dead) == (0, 0), "{depths:?}");
    let filter = IncidentFilter { open_only: false, prefix: None, before: None, limit: 500 };
    let incidents = tx.incidents(&filter).await?;
    ensure!(incidents.len() == SERVICES, "{} incidents for {SERVICES} services", incidents.len());
    let mut active: BTreeMap<_, i64> = incidents.iter().map(|incident| (incident.id, 0)).collect();
    let mut total = active.clone();
    for part in lives.chunks(500) {
        let keys: Vec<(String, String)> = part.iter().map(|life| ("am".to_owned(), life.fingerprint.clone())).collect();
        let alerts = tx.alerts(&keys).await?;
        for (life, key) in part.iter().zip(&keys) {
            let Some(alert) = alerts.get(key) else { anyhow::bail!("{} is not there", life.fingerprint) };
            ensure!(
                alert.state.is_active() == life.fires,
                "{} ends {:?}, the oracle says {}: {alert:#?}",
                life.fingerprint,
                alert.state,
                life.fires
            );
            ensure!(accounted_for(alert, life), "{} has neither incident nor reason: {alert:#?}", life.fingerprint);
            if let Some(id) = alert.incident {
                *total.entry(id).or_default() += 1;
                *active.entry(id).or_default() += i64::from(life.fires);
            }
        }
    }
    for incident in &incidents {
        let counted = (total[&incident.id], active[&incident.id]);
        ensure!(
            (incident.alerts_total, incident.alerts_active) == counted,
            "{} counts wrongly: {counted:?}, {incident:#?}",
            incident.title
        );
    }
    Ok(())
}

/// Whether somebody can see what became of it: an incident, or why there is none.
fn accounted_for(alert: &Alert, life: &Life) -> bool {
    if life.recorded {
        return alert.incident.is_none();
    }
    // Whose resolve was heard before its firing never had an episode: the firing came late, and that is written down.
    let late = alert.episode == 0 && alert.late_at.is_some();
    alert.incident.is_some() || (!life.fires && late)
}

fn worker(store: &Store) -> anyhow::Result<(Arc<Wake>, tokio::task::JoinHandle<()>)> {
    let actions = Arc::new(NoActions);
    let rules = compile(&[("rules.yaml".to_owned(), RULES.to_owned())], actions.as_ref());
    let rules = rules.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let wake = Arc::new(Wake::default());
    let cx = Cx {
        store: store.clone(),
        rules: Arc::new(ArcSwap::from_pointee(rules)),
        actions,
        chats: vec![],
        clock: Arc::new(SystemClock),
        buttons: ButtonKeys::new(vec![vec![1; 32].into()]).map_err(anyhow::Error::msg)?,
        redactor: Arc::new(Redactor::detectors_only()),
        beat: None,
        bus: None,
        wake: Arc::clone(&wake),
        retention: handlers::Retention::default(),
        claim: handlers::Claim::default(),
    };
    Ok((wake, tokio::spawn(Worker::new(cx).run())))
}

/// A store by itself, without a server.
pub(crate) async fn open(url: &str, instance: &str) -> anyhow::Result<Store> {
    Ok(Store::open(options(url, instance)).await?)
}

pub(crate) fn options(url: &str, instance: &str) -> Options {
    Options {
        url: url.to_owned(),
        clock: Arc::new(SystemClock),
        instance: instance.to_owned(),
        start: StartId::new(SystemClock.now()),
        audit_keys: vec![vec![7; 32].into()],
        max_waiting: 4096,
    }
}

struct NoActions;

impl ActionCatalogue for NoActions {
    fn get(&self, _name: &str) -> Option<&dyn Action> {
        None
    }

    fn all(&self) -> Vec<&dyn Action> {
        vec![]
    }
}

/// Numbers that look random and are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Every order is as likely as any other (Fisher and Yates).
fn shuffle(all: &mut [Sighting]) {
    let mut random = Random(11);
    for last in (1..all.len()).rev() {
        all.swap(last, random.below(last + 1));
    }
}
