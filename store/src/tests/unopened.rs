//! Deliveries that are stored as they came: opened in their order, once, and overtaken by nothing that came later.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use domain::event::Status::{Firing, Resolved};
use domain::event::{Event, NewEvent, Payload, Sighting};
use domain::id::IncidentId;
use domain::inbox::{Accepted, Inbox, Opener, Sealed};
use jiff::{SignedDuration, Timestamp};

use super::World;
use super::at_once::{Mood, judged};
use super::make::{delivery, note, sighting, told};
use crate::{Backend, Store};

/// Reads bodies that are lists of sightings, and knows no others.
struct Lists;

impl Opener for Lists {
    fn open(&self, source: &str, kind: &str, _id: &str, _at: Timestamp, raw: &[u8]) -> Result<Vec<NewEvent>, String> {
        assert_eq!(kind, "list");
        let sightings: Vec<Sighting> = serde_json::from_slice(raw).map_err(|error| error.to_string())?;
        Ok(sightings.into_iter().map(|sighting| NewEvent::sighting(source, sighting)).collect())
    }
}

/// A store that leaves deliveries unopened.
async fn leaving(world: &World) -> Store {
    let store = world.open("a").await;
    store.open_with(Arc::new(Lists));
    store
}

/// Stores sightings by the way that the store wants.
async fn accept(store: &Store, world: &World, sightings: Vec<Sighting>) -> Accepted {
    if !store.wants_sealed(sightings.len()) {
        return store.accept(delivery("am", sightings, world.now())).await.unwrap();
    }
    let raw = serde_json::to_vec(&sightings).unwrap().into();
    let sealed = Sealed { source: "am".to_owned(), kind: "list", id: None, events: sightings.len(), raw, received_at: world.now() };
    store.accept_sealed(sealed).await.unwrap()
}

/// What a worker does: the queue first, then what is unopened. Takes it back if it is not to last.
async fn decide(store: &Store, limit: i64, lasts: bool) -> Vec<Event> {
    let mut tx = store.begin().await.unwrap();
    let mut events = tx.claim_events(limit).await.unwrap();
    if events.is_empty() {
        events = tx.open_deliveries(limit).await.unwrap();
    }
    let finished: Vec<_> = events.iter().map(|event| (event.seq, None)).collect();
    tx.finish_events(&finished).await.unwrap();
    if lasts {
        tx.commit().await.unwrap();
    } else {
        tx.rollback().await.unwrap();
    }
    events
}

async fn decide_all(store: &Store) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match decide(store, 500, true).await {
            events if events.is_empty() => return all,
            events => all.extend(events.iter().map(told)),
        }
    }
}

async fn count(store: &Store, sql: &'static str) -> i64 {
    store.read().await.unwrap().number(sql).await.unwrap()
}

async fn waits(store: &Store) -> i64 {
    store.read().await.unwrap().depths().await.unwrap().queue
}

/// Sightings of one alert, each another than the one before.
fn times(world: &World, name: &str, numbers: std::ops::Range<i64>) -> Vec<Sighting> {
    numbers.map(|n| sighting(name, Firing, world.now() + SignedDuration::from_secs(n))).collect()
}

#[tokio::test]
async fn they_are_opened_in_order_when_it_is_their_turn() {
    let world = World::new(Backend::Sqlite).await;
    let store = leaving(&world).await;
    let at = world.now();
    let first = accept(&store, &world, vec![sighting("x", Firing, at), sighting("y", Firing, at)]).await;
    assert_eq!((first.seqs.len(), first.repeats), (0, None), "nobody has looked inside");
    world.clock.advance(SignedDuration::from_secs(3));
    accept(&store, &world, vec![sighting("x", Resolved, at)]).await;
    let depths = store.read().await.unwrap().depths().await.unwrap();
    assert_eq!((depths.queue, depths.oldest_event_age), (3, Some(SignedDuration::from_secs(3))));
    assert_eq!((count(&store, "select count(*) from events").await, count(&store, "select count(*) from deliveries").await), (0, 2));

    assert_eq!(decide(&store, 10, false).await.len(), 3, "what is taken back is there again");
    let events = decide(&store, 10, true).await;
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), ["x:firing", "y:firing", "x:resolved"]);
    assert_eq!((events[0].received_at, events[0].seen, events[2].received_at), (at, 1, world.now()));
    assert_eq!((waits(&store).await, decide(&store, 10, true).await.len()), (0, 0));
    assert_eq!(
        count(&store, "select count(*) from events where delivery_id in (select id from deliveries)").await,
        3,
        "the evidence is found"
    );
    let kept = store.read().await.unwrap().events_since(0, 10).await.unwrap();
    assert_eq!(
        kept.iter().map(|event| (event.key, event.payload.clone())).collect::<Vec<_>>(),
        events.iter().map(|event| (event.key, event.payload.clone())).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_repeat_is_found_out_when_it_is_opened_and_its_body_is_let_go() {
    let world = World::new(Backend::Sqlite).await;
    let store = leaving(&world).await;
    let at = world.now();
    let body = || vec![sighting("x", Firing, at)];
    accept(&store, &world, body()).await;
    world.clock.advance(SignedDuration::from_secs(5));
    accept(&store, &world, body()).await;
    assert_eq!(count(&store, "select count(*) from deliveries").await, 2);
    let events = decide(&store, 10, true).await;
    assert_eq!((events.len(), events[0].seen, events[0].last_seen), (1, 2, world.now()));
    accept(&store, &world, body()).await;
    assert_eq!(decide_all(&store).await, ["x:firing"]);
    assert_eq!((count(&store, "select count(*) from deliveries").await, count(&store, "select count(*) from events").await), (1, 1));
}

#[tokio::test]
async fn people_are_answered_and_served_first() {
    let world = World::new(Backend::Sqlite).await;
    let store = leaving(&world).await;
    accept(&store, &world, times(&world, "x", 0..40)).await;
    let act = store.accept(note("n", IncidentId::new(world.now()), world.now())).await.unwrap();
    assert_eq!((act.seqs.len(), act.repeats), (1, Some(0)));
    assert_eq!(decide(&store, 10, true).await.iter().map(told).collect::<Vec<_>>(), ["note"]);
    // More than is wanted at once, in one body: it is opened whole, and decided by and by.
    let mut sizes = Vec::new();
    while waits(&store).await > 0 {
        sizes.push(decide(&store, 10, true).await.len());
    }
    assert_eq!(sizes, [10, 10, 10, 10]);
}

#[tokio::test]
async fn what_waits_for_its_retry_holds_back_what_is_opened_later() {
    let world = World::new(Backend::Sqlite).await;
    let store = leaving(&world).await;
    let at = world.now();
    accept(&store, &world, vec![sighting("x", Firing, at)]).await;
    let failed = decide(&store, 10, false).await;
    store.queue_unopened(10).await.unwrap();
    assert!(!store.fail_event(failed[0].seq, "no", at).await.unwrap());
    accept(&store, &world, vec![sighting("x", Resolved, at), sighting("y", Firing, at)]).await;
    assert_eq!(decide_all(&store).await, ["y:firing"]);
    world.clock.advance(SignedDuration::from_secs(2));
    assert_eq!(decide_all(&store).await, ["x:firing", "x:resolved"]);
}

#[tokio::test]
async fn one_that_cannot_be_opened_is_kept_and_the_others_go_on() {
    let world = World::new(Backend::Sqlite).await;
    let store = leaving(&world).await;
    for name in ["a", "b", "c"] {
        accept(&store, &world, vec![sighting(name, Firing, world.now())]).await;
    }
    let mut tx = store.begin().await.unwrap();
    tx.sql("update deliveries set raw = x'5b7b' where id = (select delivery_id from unopened where id = 2)").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(decide_all(&store).await, ["a:firing", "c:firing"]);
    let samples = store.read().await.unwrap().samples("am").await.unwrap();
    assert_eq!((samples.len(), samples[0].body.as_slice()), (1, b"[{".as_slice()));
    assert!(samples[0].error.starts_with("cannot be opened"), "{}", samples[0].error);
}

#[tokio::test]
async fn a_long_body_is_kept_packed_and_opened_as_it_came() {
    let world = World::new(Backend::Sqlite).await;
    let store = leaving(&world).await;
    let sent = times(&world, "x", 0..300);
    let length = serde_json::to_vec(&sent).unwrap().len() as i64;
    accept(&store, &world, sent.clone()).await;
    assert_eq!(count(&store, "select packed_from from deliveries").await, length);
    assert!(count(&store, "select length(raw) from deliveries").await < length / 4);
    let opened = decide(&store, 500, true).await.into_iter().map(|event| event.payload);
    assert!(opened.eq(sent.into_iter().map(Payload::Alert)));

    // Damaged: what is there is kept, and what came later goes on.
    accept(&store, &world, times(&world, "y", 0..300)).await;
    accept(&store, &world, times(&world, "z", 0..1)).await;
    let mut tx = store.begin().await.unwrap();
    tx.sql("update deliveries set packed_from = packed_from + 1 where id = (select delivery_id from unopened order by id limit 1)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(decide_all(&store).await, ["z:firing"]);
    let samples = store.read().await.unwrap().samples("am").await.unwrap();
    assert!(!samples[0].body.is_empty() && samples[0].error.contains("bytes instead of"), "{}", samples[0].error);
}

#[tokio::test]
async fn what_an_earlier_start_left_is_opened_before_what_comes() {
    let world = World::new(Backend::Sqlite).await;
    let store = leaving(&world).await;
    accept(&store, &world, vec![sighting("x", Firing, world.now())]).await;
    store.close().await;
    drop(store);
    let store = leaving(&world).await;
    // Not sealed, as by somebody who saw a store that keeps up.
    store.accept(delivery("other", vec![sighting("y", Firing, world.now())], world.now())).await.unwrap();
    assert_eq!(count(&store, "select count(*) from unopened").await, 1, "sources do not wait for each other");
    store.accept(delivery("am", vec![sighting("x", Resolved, world.now())], world.now())).await.unwrap();
    assert_eq!(count(&store, "select count(*) from unopened").await, 0);
    assert_eq!(decide_all(&store).await, ["y:firing", "x:firing", "x:resolved"]);
}

/// Those that share a transaction, too.
#[tokio::test]
async fn what_comes_together_keeps_its_order() {
    let world = World::new(Backend::Sqlite).await;
    let store = leaving(&world).await;
    let other = || store.accept(delivery("other", vec![sighting("y", Firing, world.now())], world.now()));
    let open = async || store.accept(delivery("am", vec![sighting("x", Resolved, world.now())], world.now())).await.unwrap();
    let writer = store.begin().await.unwrap();
    let both = async {
        // The first one waits for the writer, and those behind it share the next transaction.
        tokio::join!(other(), accept(&store, &world, vec![sighting("x", Firing, world.now())]), open()).0.unwrap()
    };
    let (_, accepted) = tokio::join!(
        async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            writer.commit().await.unwrap();
        },
        both
    );
    assert_eq!(accepted.seqs.len(), 1);
    assert_eq!(decide_all(&store).await, ["y:firing", "x:firing", "x:resolved"]);
}

#[tokio::test]
async fn on_postgresql_they_are_opened_as_they_come() {
    let world = World::new(Backend::Postgres).await;
    let store = leaving(&world).await;
    let accepted = accept(&store, &world, vec![sighting("x", Firing, world.now())]).await;
    assert_eq!((accepted.seqs.len(), accepted.repeats), (1, Some(0)));
    assert_eq!(decide_all(&store).await, ["x:firing"]);
}

/// Whatever is stored by which way, decided where, taken back or started anew: of every alert each sighting is decided once, in the order in which they were told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sighting_overtakes_another_of_its_alert() {
    for seed in 0..12_u64 {
        let world = World::new(Backend::Sqlite).await;
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut store, mut judge) = judged(&world).await;
        store.open_with(Arc::new(Lists));
        let (mut next, mut decided) = ([0; 3], Vec::new());
        for _ in 0..120 {
            match random.u8(..10) {
                0..5 => {
                    let mut all = Vec::new();
                    for _ in 0..random.usize(1..5) {
                        let alert = random.usize(..next.len());
                        all.append(&mut times(&world, &alert.to_string(), next[alert]..next[alert] + 1));
                        next[alert] += 1;
                    }
                    judge.free.store(random.bool(), Ordering::SeqCst);
                    *judge.mood.lock().unwrap() = if random.u8(..4) == 0 { Mood::Refuses } else { Mood::Well };
                    if random.u8(..4) == 0 {
                        // Whoever brought it saw a store that keeps up, which is over.
                        store.accept(delivery("am", all, world.now())).await.unwrap();
                    } else {
                        accept(&store, &world, all).await;
                    }
                    decided.append(&mut judge.decided.lock().unwrap());
                }
                5 => drop(decide(&store, 3, false).await),
                6 => store.queue_unopened(2).await.unwrap(),
                7 if random.u8(..4) == 0 => {
                    store.close().await;
                    drop(store);
                    (store, judge) = judged(&world).await;
                    store.open_with(Arc::new(Lists));
                }
                _ => decided.append(&mut decide(&store, 3, true).await),
            }
        }
        while waits(&store).await > 0 {
            decided.append(&mut decide(&store, 500, true).await);
        }
        for (alert, told) in next.into_iter().enumerate() {
            let of_it = decided.iter().filter_map(|event| match &event.payload {
                Payload::Alert(sighting) if sighting.fingerprint == alert.to_string() => {
                    Some((sighting.starts_at - world.now()).get_seconds())
                }
                _ => None,
            });
            assert_eq!(of_it.collect::<Vec<_>>(), (0..told).collect::<Vec<_>>(), "seed {seed}, alert {alert}");
        }
    }
}
