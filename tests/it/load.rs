//! Deliveries at a steady rate to any of several servers, as a load balancer in front of them would spread them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::eventually;
use harness::world::{Alert, SOON, World, body};

/// How often the balancer asks who is ready.
const PROBE: Duration = Duration::from_millis(300);

/// What became of the deliveries so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Names of those that were answered with a 2xx.
    pub(crate) kept: Vec<String>,
    /// Those that were told to come again, and how long that took.
    pub(crate) again: Vec<Duration>,
    /// What should not happen: another status, or a connection that broke.
    pub(crate) failed: Vec<String>,
}

/// A source of deliveries. Each has an alert `Flood` of its own, named by the label `delivery`.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    task: tokio::task::JoinHandle<()>,
}

struct Balancer {
    http: reqwest::Client,
    token: &'static str,
    urls: Vec<String>,
    ready: Vec<AtomicBool>,
    next: AtomicUsize,
}

impl Load {
    /// Begins. A server that is not ready gets nothing; one that refuses the connection is passed over; nothing else is tried again.
    pub(crate) fn start(worlds: &[&World], rate: u64) -> Self {
        let urls: Vec<String> = worlds.iter().map(|world| world.url()).collect();
        let ready = urls.iter().map(|_| AtomicBool::new(true)).collect();
        let balancer = Balancer { http: worlds[0].http().clone(), token: worlds[0].source_token(), urls, ready, next: AtomicUsize::new(0) };
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Told::default())));
        let task = tokio::spawn(run(Arc::new(balancer), rate, Arc::clone(&stop), Arc::clone(&told)));
        Self { stop, told, task }
    }

    /// What became of them so far.
    pub(crate) fn so_far(&self) -> Told {
        lock(&self.told).clone()
    }

    /// Waits until so many more were kept.
    pub(crate) async fn keeps(&self, more: usize, within: Duration) -> anyhow::Result<()> {
        let before = lock(&self.told).kept.len();
        eventually(within, async || {
            let told = lock(&self.told).clone();
            ensure!(
                told.kept.len() >= before + more,
                "{} were kept, {} told to come again: {:?}",
                told.kept.len(),
                told.again.len(),
                told.failed
            );
            Ok(())
        })
        .await
    }

    /// Ends, and waits for the last answers.
    pub(crate) async fn stop(self) -> anyhow::Result<Told> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await?;
        Ok(std::mem::take(&mut lock(&self.told)))
    }
}

/// Fails unless every one of these was stored, once. What was left unopened is an event when it is decided.
pub(crate) async fn all_there(world: &World, kept: &[String]) -> anyhow::Result<()> {
    eventually(SOON, async || {
        let stored = world.all("/events", "after").await?;
        let mut names: Vec<&str> = stored.iter().filter_map(|event| event["payload"]["labels"]["delivery"].as_str()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        ensure!(names.len() == count, "an event is there twice");
        let lost: Vec<&String> = kept.iter().filter(|name| names.binary_search(&name.as_str()).is_err()).collect();
        ensure!(lost.is_empty(), "{} of {} deliveries that were answered are lost: {lost:?}", lost.len(), kept.len());
        Ok(())
    })
    .await
}

async fn run(balancer: Arc<Balancer>, rate: u64, stop: Arc<AtomicBool>, told: Arc<Mutex<Told>>) {
    static LOADS: AtomicUsize = AtomicUsize::new(0);
    let load = LOADS.fetch_add(1, Ordering::SeqCst);
    let probes = tokio::spawn(probe(Arc::clone(&balancer)));
    let mut every = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
    let mut posts = tokio::task::JoinSet::new();
    for number in 0.. {
        every.tick().await;
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (balancer, told) = (Arc::clone(&balancer), Arc::clone(&told));
        posts.spawn(async move { balancer.deliver(&format!("{load}-{number}"), &told).await });
    }
    posts.join_all().await;
    probes.abort();
}

async fn probe(balancer: Arc<Balancer>) {
    loop {
        for (url, ready) in balancer.urls.iter().zip(&balancer.ready) {
            let answer = balancer.http.get(format!("{url}/readyz")).timeout(Duration::from_secs(2)).send().await;
            ready.store(answer.is_ok_and(|answer| answer.status().is_success()), Ordering::SeqCst);
        }
        tokio::time::sleep(PROBE).await;
    }
}

impl Balancer {
    async fn deliver(&self, name: &str, told: &Mutex<Told>) {
        let began = Instant::now();
        let text = body(&[Alert::new("Flood").label("delivery", name)]);
        let first = self.next.fetch_add(1, Ordering::SeqCst);
        let mut places: Vec<usize> = (0..self.urls.len()).map(|n| (first + n) % self.urls.len()).collect();
        // Where nobody says that it is ready, all are tried.
        places.sort_by_key(|place| !self.ready[*place].load(Ordering::SeqCst));
        let mut failure = "nobody takes a connection".to_owned();
        for place in places {
            let post = self.http.post(format!("{}/api/v1/webhooks/alertmanager/am", self.urls[place])).bearer_auth(self.token).json(&text);
            match post.send().await {
                Ok(answer) if answer.status().is_success() => return lock(told).kept.push(name.to_owned()),
                Ok(answer) if answer.status().as_u16() == 503 => return lock(told).again.push(began.elapsed()),
                Ok(answer) => failure = format!("{name}: {}", answer.status()),
                Err(error) if error.is_connect() => continue,
                Err(error) => failure = format!("{name}: {error:?}"),
            }
            break;
        }
        lock(told).failed.push(failure);
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
