//! Deliveries on a real stream: whole, in order, and many at a time.

use std::time::Instant;

use domain::event::Heartbeat;
use domain::id::StartId;
use domain::time::{Clock, SystemClock};
use harness::peers::Nats;
use store::Options;

use super::*;
use crate::config::{NatsLink, Via};

fn delivery(events: usize, raw: usize) -> Delivery {
    let at = Timestamp::UNIX_EPOCH;
    let beat = |n: usize| Heartbeat { name: format!("n{n}"), within: domain::duration::Dur::from_hours(1), at };
    Delivery {
        source: "am".to_owned(),
        events: (0..events).map(|n| NewEvent::heartbeat("am", beat(n), b"x")).collect(),
        raw: Bytes::from((0..raw).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>()),
        received_at: at,
    }
}

#[test]
fn a_delivery_comes_back_as_it_was_whatever_its_size() {
    for (events, raw, most) in [(1, 0, 4096), (1, 10, 4096), (100, 5000, 1500), (7, 3, 300), (1000, 100_000, 2000)] {
        let whole = delivery(events, raw);
        let messages = written(&whole, most).unwrap();
        assert!(messages.iter().all(|message| message.len() <= most));
        let back: Vec<Delivery> = messages.iter().map(|message| read(message).unwrap()).collect();
        let keys = |all: &[NewEvent]| all.iter().map(|event| (event.key, event.order_key.clone())).collect::<Vec<_>>();
        let together: Vec<NewEvent> = back.iter().flat_map(|one| one.events.clone()).collect();
        assert_eq!(keys(&together), keys(&whole.events), "{events} events");
        let body: Vec<u8> = back.iter().flat_map(|one| one.raw.to_vec()).collect();
        assert_eq!(body, whole.raw, "{raw} bytes");
    }
    assert!(written(&delivery(1, 5000), 1000).unwrap_err().to_string().contains("max_payload"));
}

#[test]
fn what_is_no_delivery_is_told_apart_and_no_act_comes_this_way() {
    for message in ["", "{}\n", "no json\nraw", r#"{"version":2,"source":"a","received_at":"2026-01-01T00:00:00Z","events":[]}"#] {
        assert!(read(&Bytes::from(message)).is_err(), "{message}");
    }
}

/// A store of its own and a link to a NATS of its own.
struct World {
    nats: Nats,
    store: Store,
    settings: Ingest,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = harness::temp_dir("taken").unwrap();
        let store = open(dir.path(), "one").await;
        let settings = Ingest { via: Via::Jetstream, stream: "KEPT".to_owned(), replicas: 1 };
        Self { nats: Nats::start().await.unwrap(), store, settings, dir }
    }

    fn link(&self) -> Link {
        Link::new(NatsLink { urls: vec![self.nats.url()], ..NatsLink::default() })
    }

    /// Keeps deliveries of one event each on the stream, in this order.
    async fn keep(&self, source: &str, numbers: std::ops::Range<usize>) {
        let intake = Intake::new(self.settings.clone(), self.link(), self.store.clone());
        for n in numbers {
            intake.accept(numbered(source, n)).await.unwrap();
        }
    }

    /// Takes until there are so many deliveries.
    async fn take_until(&self, count: usize) -> Duration {
        let stop = CancellationToken::new();
        let began = Instant::now();
        let taker = tokio::spawn(Taker::new(self.settings.clone(), self.link(), self.store.clone(), stop.clone()).run());
        let taken = harness::eventually(Duration::from_secs(120), async || {
            let there = usize::try_from(self.store.read().await?.depths().await?.queue)?;
            anyhow::ensure!(there >= count, "{there} of {count}");
            Ok(())
        });
        taken.await.unwrap();
        let took = began.elapsed();
        stop.cancel();
        taker.await.unwrap();
        took
    }
}

async fn open(dir: &std::path::Path, instance: &str) -> Store {
    let options = Options {
        url: format!("sqlite:{}", dir.join("store.db").display()),
        clock: Arc::new(SystemClock),
        instance: instance.to_owned(),
        start: StartId::new(SystemClock.now()),
        audit_keys: vec![vec![7; 32].into()],
        max_waiting: 4096,
    };
    Store::open(options).await.unwrap()
}

fn numbered(source: &str, n: usize) -> Delivery {
    let at = Timestamp::UNIX_EPOCH;
    let beat = Heartbeat { name: format!("{source}/{n}"), within: domain::duration::Dur::from_hours(1), at };
    let events = vec![NewEvent::heartbeat(source, beat, format!("{n}").as_bytes())];
    Delivery { source: source.to_owned(), events, raw: Bytes::from(format!("body {n}")), received_at: at }
}

/// What is in the store, in its order.
async fn heard(store: &Store) -> Vec<String> {
    let events = store.read().await.unwrap().claim_events(1_000_000).await.unwrap();
    let mut events: Vec<(i64, String)> = events
        .into_iter()
        .filter_map(|event| match event.payload {
            Payload::Heartbeat(beat) => Some((event.seq, beat.name)),
            _ => None,
        })
        .collect();
    events.sort();
    events.into_iter().map(|(_, name)| name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_taken_in_order_and_soon() {
    let world = World::new().await;
    world.keep("am", 0..2000).await;
    let took = world.take_until(2000).await;
    println!("2,000 deliveries of one source were taken in {took:?}: {:.0}/s", 2000.0 / took.as_secs_f64());
    let wanted: Vec<String> = (0..2000).map(|n| format!("am/{n}")).collect();
    assert_eq!(heard(&world.store).await, wanted);
}
