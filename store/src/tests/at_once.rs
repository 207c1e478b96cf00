//! Decisions within the transaction that stores a delivery: whatever becomes of the decision, the delivery is stored once and decided once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::event::{Event, Status};
use domain::inbox::Inbox;

use super::World;
use super::make::{delivery, note, sighting, told};
use crate::{Backend, Change, Decider, Error, Store, Stored, Tx};

/// How the next decision goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mood {
    Well,
    Refuses,
    CannotTell,
    NeverEnds,
}

pub(super) struct Judge {
    pub(super) free: AtomicBool,
    pub(super) mood: Mutex<Mood>,
    /// What it decided, in order, and how often it had to claim.
    pub(super) decided: Mutex<Vec<Event>>,
    claimed: AtomicUsize,
}

impl Judge {
    fn told(&self) -> Vec<String> {
        self.decided.lock().unwrap().iter().map(told).collect()
    }
}

#[async_trait]
impl Decider for Judge {
    fn is_free(&self) -> bool {
        self.free.load(Ordering::SeqCst)
    }

    async fn decide(&self, mut tx: Tx, stored: Stored) -> Result<(), Error> {
        let events = match stored {
            Stored::Claimed(events) => events,
            Stored::Queued(_) => {
                self.claimed.fetch_add(1, Ordering::SeqCst);
                tx.claim_events(100).await?
            }
        };
        let finished: Vec<_> = events.iter().map(|event| (event.seq, None)).collect();
        tx.finish_events(&finished).await?;
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well => tx.commit().await?,
            Mood::Refuses => return Err(Error::Refused("no".to_owned())),
            // The answer of a commit that was made is lost.
            Mood::CannotTell => {
                tx.commit().await?;
                return Err(Error::Unavailable("no answer".to_owned()));
            }
            Mood::NeverEnds => std::future::pending().await,
        }
        self.decided.lock().unwrap().extend(events);
        Ok(())
    }
}

pub(super) async fn judged(world: &World) -> (Store, Arc<Judge>) {
    let store = world.open("a").await;
    let judge = Arc::new(Judge {
        free: AtomicBool::new(true),
        mood: Mutex::new(Mood::Well),
        decided: Mutex::default(),
        claimed: AtomicUsize::new(0),
    });
    let weak: std::sync::Weak<Judge> = Arc::downgrade(&judge);
    store.decide_with(weak);
    (store, judge)
}

/// What waits, as a worker would find it.
async fn waiting(store: &Store) -> Vec<String> {
    let mut tx = store.begin().await.unwrap();
    tx.claim_events(100).await.unwrap().iter().map(told).collect()
}

#[tokio::test]
async fn what_is_new_is_decided_where_it_is_stored_people_first() {
    let world = World::new(Backend::Sqlite).await;
    let (store, judge) = judged(&world).await;
    let mut changes = store.changes();
    let firing = |name: &str| sighting(name, Status::Firing, world.now());
    let accepted = store.accept(delivery("am", vec![firing("a"), firing("b")], world.now())).await.unwrap();
    assert_eq!((accepted.seqs.len(), accepted.repeats), (2, Some(0)));
    assert!(waiting(&store).await.is_empty() && changes.try_recv().is_err(), "nobody has to be woken");
    let incident = domain::id::IncidentId::new(world.now());
    store.accept(note("n", incident, world.now())).await.unwrap();
    assert_eq!(judge.told(), ["a:firing", "b:firing", "note"]);
    assert_eq!(judge.claimed.load(Ordering::SeqCst), 0, "nothing went through the queue");
    // A repeat does: it goes by the number that it had.
    let again = store.accept(delivery("am", vec![firing("a")], world.now())).await.unwrap();
    assert_eq!((again.seqs[0], again.repeats), (accepted.seqs[0], Some(1)));
    assert_eq!((judge.claimed.load(Ordering::SeqCst), judge.told().len()), (1, 4));
    assert!(waiting(&store).await.is_empty());
}

#[tokio::test]
async fn what_waits_is_decided_before_what_comes() {
    let world = World::new(Backend::Sqlite).await;
    let (store, judge) = judged(&world).await;
    let fire =
        async |name: &str| store.accept(delivery("am", vec![sighting(name, Status::Firing, world.now())], world.now())).await.unwrap();
    judge.free.store(false, Ordering::SeqCst);
    fire("a").await;
    assert_eq!(waiting(&store).await, ["a:firing"], "a worker that is behind decides itself");
    judge.free.store(true, Ordering::SeqCst);
    fire("b").await;
    assert_eq!(judge.told(), ["a:firing", "b:firing"]);
    let many = (0..65).map(|n| sighting(&format!("m{n}"), Status::Firing, world.now())).collect();
    store.accept(delivery("am", many, world.now())).await.unwrap();
    assert_eq!(waiting(&store).await.len(), 65, "a storm's senders wait for no decision");
    drop(judge);
    fire("c").await;
    assert_eq!(waiting(&store).await.len(), 66, "a decider that is gone decides nothing");
}

#[tokio::test]
async fn a_decision_that_fails_loses_and_doubles_nothing() {
    for mood in [Mood::Refuses, Mood::CannotTell, Mood::NeverEnds] {
        let world = World::new(Backend::Sqlite).await;
        let (store, judge) = judged(&world).await;
        *judge.mood.lock().unwrap() = mood;
        let mut changes = store.changes();
        let incident = domain::id::IncidentId::new(world.now());
        let accepted = store.accept(note("n", incident, world.now())).await.unwrap();
        assert_eq!(accepted.seqs.len(), 1, "{mood:?}");
        let expected: &[&str] = if mood == Mood::CannotTell { &[] } else { &["note"] };
        assert_eq!(waiting(&store).await, expected, "{mood:?}: a person's act that was decided is not queued again");
        assert_eq!(changes.try_recv().unwrap(), Change::Events, "{mood:?}: a worker looks");
        assert_eq!(store.read().await.unwrap().events_since(0, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn on_postgresql_the_workers_decide() {
    let world = World::new(Backend::Postgres).await;
    let (store, judge) = judged(&world).await;
    store.accept(delivery("am", vec![sighting("a", Status::Firing, world.now())], world.now())).await.unwrap();
    assert_eq!((waiting(&store).await, judge.told().len()), (vec!["a:firing".to_owned()], 0));
}
