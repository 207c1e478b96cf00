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
    /// Gone with this.
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = harness::temp_dir("taken").unwrap();
        let store = open(dir.path(), "one").await;
        let settings = Ingest { via: Via::Jetstream, stream: "KEPT".to_owned(), replicas: 1 };
        Self { nats: Nats::start().await.unwrap(), store, settings, _dir: dir }
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

    fn taker(&self, store: &Store) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let stop = CancellationToken::new();
        let taker = Taker::new(self.settings.clone(), self.link(), store.clone(), stop.clone());
        (stop, tokio::spawn(taker.run()))
    }

    /// Takes until there are so many deliveries.
    async fn take_until(&self, count: usize) -> Duration {
        let began = Instant::now();
        let (stop, taker) = self.taker(&self.store);
        let taken = harness::eventually(Duration::from_secs(120), async || {
            let there = waiting(&self.store).await;
            anyhow::ensure!(there >= count, "{there} of {count}");
            Ok(())
        });
        taken.await.unwrap();
        let took = began.elapsed();
        stop.cancel();
        taker.await.unwrap();
        took
    }

    async fn stream(&self) -> stream::Stream {
        let context = jetstream::new(async_nats::connect(self.nats.url()).await.unwrap());
        context.get_stream(&self.settings.stream).await.unwrap()
    }

    async fn consumer(&self, source: &str) -> jetstream::consumer::PullConsumer {
        self.stream().await.get_consumer(&format!("watchkeeper-{}", lane(source))).await.unwrap()
    }
}

async fn waiting(store: &Store) -> usize {
    usize::try_from(store.read().await.unwrap().depths().await.unwrap().queue).unwrap()
}

async fn open(dir: &std::path::Path, instance: &str) -> Store {
    open_at(format!("sqlite:{}", dir.join("store.db").display()), instance).await
}

async fn open_at(url: String, instance: &str) -> Store {
    let options = Options {
        url,
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

/// What is in the store, taken out of it, in its order.
async fn heard(store: &Store) -> Vec<String> {
    let mut all: Vec<(i64, String)> = Vec::new();
    loop {
        let mut tx = store.begin().await.unwrap();
        let events = tx.claim_events(1_000_000).await.unwrap();
        if events.is_empty() {
            break;
        }
        tx.finish_events(&events.iter().map(|event| (event.seq, None)).collect::<Vec<_>>()).await.unwrap();
        tx.commit().await.unwrap();
        all.extend(events.into_iter().filter_map(|event| match event.payload {
            Payload::Heartbeat(beat) => Some((event.seq, beat.name)),
            _ => None,
        }));
    }
    all.sort();
    all.dedup();
    all.into_iter().map(|(_, name)| name).collect()
}

/// Whether all that was kept is there, as it was kept.
async fn in_order(store: &Store, count: usize) {
    let heard = heard(store).await;
    let wrong = heard.iter().enumerate().find(|(n, name)| **name != format!("am/{n}"));
    assert_eq!((heard.len(), wrong), (count, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_taken_in_order_and_soon() {
    let world = World::new().await;
    world.keep("am", 0..2000).await;
    let took = world.take_until(2000).await;
    println!("2,000 deliveries of one source were taken in {took:?}: {:.0}/s", 2000.0 / took.as_secs_f64());
    in_order(&world.store, 2000).await;
    harness::eventually(Duration::from_secs(20), async || {
        let left = world.stream().await.cached_info().state.messages;
        let pending = world.consumer("am").await.cached_info().num_ack_pending;
        anyhow::ensure!((left, pending) == (0, 0), "{left} are left, {pending} not acknowledged");
        Ok(())
    })
    .await
    .unwrap();
}

/// Whoever takes is cut off again and again, with messages in its hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_is_kept_when_whoever_takes_is_cut_off() {
    let world = World::new().await;
    world.keep("am", 0..3000).await;
    for n in 0..6 {
        let before = waiting(&world.store).await;
        let (_, taker) = world.taker(&world.store);
        harness::eventually(Duration::from_secs(60), async || {
            let there = waiting(&world.store).await;
            anyhow::ensure!(there > before || there == 3000, "nothing is taken");
            Ok(())
        })
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_millis(n * 7)).await;
        taker.abort();
        let _ = taker.await;
    }
    world.take_until(3000).await;
    in_order(&world.store, 3000).await;
}

/// Somebody else takes messages out of the lane and says nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_out_and_lost_comes_again_in_order() {
    let world = World::new().await;
    world.keep("am", 0..1).await;
    world.take_until(1).await;
    world.keep("am", 1..500).await;
    let consumer = world.consumer("am").await;
    let lost = consumer.fetch().max_messages(7).messages().await.unwrap().collect::<Vec<_>>().await;
    assert_eq!(lost.len(), 7);
    world.take_until(500).await;
    let (stop, taker) = world.taker(&world.store);
    let mut lost = 0;
    for n in 1..20 {
        world.keep("am", n * 500..(n + 1) * 500).await;
        // The one before may be gone, with what it had.
        let consumer = world.consumer("am").await;
        if let Ok(messages) = consumer.fetch().max_messages(3).messages().await {
            lost += messages.count().await;
        }
    }
    harness::eventually(Duration::from_secs(120), async || {
        let there = waiting(&world.store).await;
        anyhow::ensure!(there >= 10_000, "{there}");
        Ok(())
    })
    .await
    .unwrap();
    stop.cancel();
    taker.await.unwrap();
    println!("{lost} messages were taken away");
    in_order(&world.store, 10_000).await;
}

/// Servers over one PostgreSQL take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_takes_at_a_time_and_another_goes_on_in_order() {
    let world = World::new().await;
    let url = harness::peers::Postgres::shared().await.unwrap().create_database().await.unwrap();
    let stores = [open_at(url.clone(), "a").await, open_at(url, "b").await];
    world.keep("am", 0..2000).await;
    let mut takers = stores.each_ref().map(|store| Some(world.taker(store)));
    for n in 0..4 {
        let before = waiting(&stores[0]).await;
        harness::eventually(Duration::from_secs(60), async || {
            let there = waiting(&stores[0]).await;
            anyhow::ensure!(there > before || there == 2000, "nothing is taken");
            Ok(())
        })
        .await
        .unwrap();
        let (stop, taker) = takers[n % 2].take().unwrap();
        stop.cancel();
        taker.await.unwrap();
        takers[n % 2] = Some(world.taker(&stores[n % 2]));
    }
    harness::eventually(Duration::from_secs(60), async || {
        let there = waiting(&stores[0]).await;
        anyhow::ensure!(there == 2000, "{there}");
        Ok(())
    })
    .await
    .unwrap();
    in_order(&stores[0], 2000).await;
}

/// A stream of another kind keeps what is acknowledged: its consumer goes on where it was, one message at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_another_kind_is_taken_once() {
    let world = World::new().await;
    let context = jetstream::new(async_nats::connect(world.nats.url()).await.unwrap());
    let name = world.settings.stream.clone();
    let config = stream::Config { subjects: vec![format!("{name}.*")], name, ..stream::Config::default() };
    context.create_stream(config).await.unwrap();
    world.keep("am", 0..20).await;
    world.take_until(20).await;
    world.keep("am", 20..40).await;
    world.take_until(40).await;
    in_order(&world.store, 40).await;
}
