//! Decisions within the transaction that stores a delivery: whatever becomes of the decision, the delivery is stored once and decided once.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::alert::AlertState;
use domain::event::{Event, Status};
use domain::inbox::Inbox;
use domain::incident::IncidentState;

use super::World;
use super::make::{NASTY, alert, delivery, incident, note, sighting, told};
use crate::{Arrivals, Asks, Backend, Change, Decider, Error, Known, Store, Stored};

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
    /// What it asks, and what it heard last.
    asks: Mutex<Asks>,
    known: Mutex<Known>,
    /// What it decided, in order, how often it was asked to, and how often it had to claim.
    pub(super) decided: Mutex<Vec<Event>>,
    attempts: AtomicUsize,
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

    async fn decide(&self, arrivals: Arrivals<'_>) -> Result<(), Error> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let asks = self.asks.lock().unwrap().clone();
        let said: Vec<_> = arrivals.events().map(|(source, payload)| (source.to_owned(), payload.clone())).collect();
        let (mut tx, stored) = arrivals.store(&asks).await?;
        let events = match stored {
            Stored::Claimed(events, known) => {
                let claimed: Vec<_> = events.iter().map(|event| (event.source.clone(), event.payload.clone())).collect();
                assert_eq!(claimed, said, "what was shown before is what is to be decided, in the same order");
                *self.known.lock().unwrap() = known;
                events
            }
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
        asks: Mutex::default(),
        known: Mutex::default(),
        decided: Mutex::default(),
        attempts: AtomicUsize::new(0),
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

/// However many come together: few are stored and their questions asked in one trip, many in two.
#[tokio::test]
async fn what_a_decision_asks_is_read_where_the_delivery_is_stored() {
    let world = World::new(Backend::Sqlite).await;
    let (store, judge) = judged(&world).await;
    let (known, open) = (alert("am", NASTY, AlertState::Firing, None, world.now()), incident(7, NASTY, IncidentState::Open, world.now()));
    let mut tx = store.begin().await.unwrap();
    tx.put_alerts(std::slice::from_ref(&known)).await.unwrap();
    tx.insert_incidents(&[&open]).await.unwrap();
    tx.commit().await.unwrap();
    let key = |name: &str| ("am".to_owned(), name.to_owned());
    let both = BTreeSet::from([key(NASTY), key("nobody heard of it")]);
    for (alerts, groups) in [(true, true), (true, false), (false, true), (false, false)] {
        for count in [1, 15, 16, 64] {
            let asked = |one: bool| if one { both.clone() } else { BTreeSet::new() };
            *judge.asks.lock().unwrap() = Asks { alerts: asked(alerts), groups: asked(groups) };
            let round = |n: i32| format!("{alerts} {groups} {count} {n}");
            let sightings = (0..count).map(|n| sighting(&round(n), Status::Firing, world.now())).collect();
            let accepted = store.accept(delivery("am", sightings, world.now())).await.unwrap();
            assert_eq!((accepted.seqs.len(), accepted.repeats), (count as usize, Some(0)));
            let heard = std::mem::take(&mut *judge.known.lock().unwrap());
            assert_eq!(heard.alerts, if alerts { HashMap::from([(key(NASTY), known.clone())]) } else { HashMap::new() });
            assert_eq!(heard.incidents, if groups { HashMap::from([(key(NASTY), open.clone())]) } else { HashMap::new() });
        }
    }
    assert_eq!(judge.claimed.load(Ordering::SeqCst), 0, "all of it was decided where it was stored");
    // A repeat is decided from the queue, whatever was asked.
    store.accept(delivery("am", vec![sighting("true true 1 0", Status::Firing, world.now())], world.now())).await.unwrap();
    assert_eq!(judge.claimed.load(Ordering::SeqCst), 1);
}

/// Alerts that this process never met are decided as if nobody had; whoever had is asked after all, and nothing is stored or decided twice.
#[tokio::test]
async fn a_stranger_is_decided_unasked_and_one_who_is_known_after_all_is_not() {
    let world = World::new(Backend::Sqlite).await;
    let (store, judge) = judged(&world).await;
    let key = |name: &str| ("am".to_owned(), name.to_owned());
    let fire = async |alerts: &[&str], group: &str| {
        *judge.asks.lock().unwrap() = Asks { alerts: alerts.iter().map(|name| key(name)).collect(), groups: BTreeSet::from([key(group)]) };
        let sightings = alerts.iter().map(|name| sighting(name, Status::Firing, world.now())).collect();
        store.accept(delivery("am", sightings, world.now())).await.unwrap()
    };
    let attempts = || judge.attempts.load(Ordering::SeqCst);
    let first = fire(&["a", "b"], "g").await;
    assert_eq!((first.seqs.as_slice(), first.repeats, attempts()), (&[1, 2][..], Some(0), 1));
    assert_eq!(store.read().await.unwrap().events_since(0, 10).await.unwrap().len(), 2);

    // The database knows what an earlier start, or somebody who was forgotten, left there.
    let known = alert("am", NASTY, AlertState::Firing, None, world.now());
    let open = incident(7, "its group", IncidentState::Open, world.now());
    let mut tx = store.begin().await.unwrap();
    tx.put_alerts(std::slice::from_ref(&known)).await.unwrap();
    tx.insert_incidents(&[&open]).await.unwrap();
    tx.commit().await.unwrap();
    for (alerts, group, heard) in [([NASTY], "h", (1, 0)), (["c"], "its group", (0, 1)), (["d"], "its group", (0, 1))] {
        let before = attempts();
        let accepted = fire(&alerts, group).await;
        assert_eq!((accepted.seqs.len(), accepted.repeats), (1, Some(0)));
        let met = alerts == ["d"];
        assert_eq!(attempts() - before, if met { 1 } else { 2 }, "{alerts:?}: who was met is asked at once");
        let known = judge.known.lock().unwrap();
        assert_eq!((known.alerts.len(), known.incidents.len()), heard);
    }
    // A repeat of what an earlier start heard.
    let events = store.read().await.unwrap().events_since(0, 10).await.unwrap().len();
    store.core.met.forget();
    let repeat = fire(&["a", "b"], "g").await;
    assert_eq!((repeat.seqs, repeat.repeats), (first.seqs, Some(2)));
    assert_eq!(store.read().await.unwrap().events_since(0, 10).await.unwrap().len(), events);
    assert_eq!(judge.told().len(), 7, "each once, and the two that were repeated once more");
    assert!(waiting(&store).await.is_empty());
    // Something that waits is decided before a stranger.
    judge.free.store(false, Ordering::SeqCst);
    fire(&["e"], "i").await;
    judge.free.store(true, Ordering::SeqCst);
    fire(&["f"], "j").await;
    assert_eq!(judge.told()[7..], ["e:firing", "f:firing"]);
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
