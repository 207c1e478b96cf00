//! Many senders and many workers at once.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::event::Delivery;
use domain::event::Status::{Firing, Resolved};
use domain::id::IncidentId;
use domain::inbox::{Accepted, Inbox, InboxError};
use jiff::SignedDuration;
use tokio::task::JoinHandle;

use super::super::make::{delivery, note, sighting, told};
use super::super::{World, on_both};
use super::{finish, handle_all};
use crate::{Backend, Store, Tx};

on_both! {
    async fn one_bad_delivery_does_not_fail_those_beside_it(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        if tx.is_postgres() {
            tx.sql("alter table events add check (source <> 'bad')").await.unwrap();
        } else {
            let trigger = "create trigger bad before insert on events when new.source = 'bad' begin select raise(abort, 'bad'); end";
            tx.sql(trigger).await.unwrap();
        }
        tx.commit().await.unwrap();
        let at = world.now();
        let gate = Blocked::new(&store).await;
        // The others come while this one is stored, so they are stored together.
        let first = at_the_front(&store, delivery("good", vec![sighting("first", Firing, at)], at)).await;
        let mut answers = Vec::new();
        for n in 0..20 {
            let (store, source) = (store.clone(), if n == 7 { "bad" } else { "good" });
            answers.push(tokio::spawn(async move { store.accept(delivery(source, vec![sighting(&n.to_string(), Firing, at)], at)).await }));
        }
        in_line(&store, 20).await;
        gate.open().await;
        first.await.unwrap().unwrap();
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap().is_ok(), n != 7, "{n}");
        }
        assert_eq!(handle_all(&store).await.len(), 20);
    }

    async fn too_much_at_once_is_refused_and_nothing_accepted_is_lost(world) {
        let mut options = world.options("a");
        options.max_waiting = 4;
        let store = Store::open(options).await.unwrap();
        let at = world.now();
        let gate = Blocked::new(&store).await;
        let mut answers = Vec::new();
        for n in 0..40 {
            let store = store.clone();
            answers.push(tokio::spawn(async move { store.accept(delivery("am", vec![sighting(&n.to_string(), Firing, at)], at)).await }));
        }
        // Only who is refused is answered before the gate opens.
        let refused = async || {
            let refused = answers.iter().filter(|answer| answer.is_finished()).count();
            anyhow::ensure!(refused >= 20, "{refused} are refused");
            Ok(())
        };
        harness::eventually(Duration::from_secs(5), refused).await.unwrap();
        gate.open().await;
        let mut accepted = 0;
        for answer in answers {
            match answer.await.unwrap() {
                Ok(_) => accepted += 1,
                Err(error) => assert_eq!(error, InboxError::Overloaded),
            }
        }
        assert!((4..40).contains(&accepted), "{accepted}");
        assert_eq!(handle_all(&store).await.len(), accepted);
    }

    async fn many_senders_with_the_same_alerts_meet_one_event_each(world) {
        let store = world.open("a").await;
        let at = world.now();
        let mut senders = Vec::new();
        for sender in 0..16_usize {
            let store = store.clone();
            senders.push(tokio::spawn(async move {
                let mut seqs = BTreeMap::new();
                for n in 0..20 {
                    // Everybody in another order.
                    let name = ((n + sender) % 20).to_string();
                    let accepted = store.accept(delivery("am", vec![sighting(&name, Firing, at)], at)).await.unwrap();
                    seqs.insert(name, accepted.seqs[0]);
                }
                seqs
            }));
        }
        let mut all = Vec::new();
        for sender in senders {
            all.push(sender.await.unwrap());
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(handle_all(&store).await.len(), 20);
        assert_eq!(store.read().await.unwrap().events_since(0, 100).await.unwrap().len(), 20);
    }
}

/// Two replicas, many workers: every event is handled once, those of one alert in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_lanes() {
    let world = World::new(Backend::Postgres).await;
    let stores = [world.open("a").await, world.open("b").await];
    let at = world.now();
    let mut body = Vec::new();
    for n in 0..200 {
        for second in 0..3 {
            let status = if second % 2 == 0 { Firing } else { Resolved };
            body.push(sighting(&n.to_string(), status, at + SignedDuration::from_secs(second)));
        }
    }
    stores[0].accept(delivery("am", body, at)).await.unwrap();
    let handled = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut workers = Vec::new();
    for worker in 0..4 {
        let (store, handled) = (stores[worker % 2].clone(), handled.clone());
        workers.push(tokio::spawn(async move {
            loop {
                let mut tx = store.begin().await.unwrap();
                let events = tx.claim_events(20).await.unwrap();
                if events.is_empty() && store.read().await.unwrap().depths().await.unwrap().queue == 0 {
                    return;
                }
                finish(&mut tx, &events).await;
                // Written down while the lanes are still locked: the order of the list is the order of handling.
                handled.lock().unwrap().extend(events);
                tx.commit().await.unwrap();
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let handled = handled.lock().unwrap();
    assert_eq!(handled.len(), 600);
    let mut by_alert: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in handled.iter() {
        by_alert.entry(told(event).split(':').next().unwrap().to_owned()).or_default().push(event.seq);
    }
    assert!(by_alert.len() == 200 && by_alert.values().all(|seqs| seqs.len() == 3 && seqs.is_sorted()));
}

/// Two replicas, each behind one of a pair of Alertmanagers: the same alerts, in other orders, at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_meet_one_event_each() {
    let world = World::new(Backend::Postgres).await;
    let stores = [world.open("a").await, world.open("b").await];
    let at = world.now();
    for round in 0..10 {
        let mut senders = Vec::new();
        for (n, store) in stores.iter().enumerate() {
            let store = store.clone();
            senders.push(tokio::spawn(async move {
                let mut names: Vec<String> = (0..50).map(|alert| format!("{round}-{alert}")).collect();
                if n == 1 {
                    names.reverse();
                }
                let sightings = names.iter().map(|name| sighting(name, Firing, at)).collect();
                let accepted = store.accept(delivery("am", sightings, at)).await.unwrap();
                let seqs: BTreeMap<String, i64> = names.into_iter().zip(accepted.seqs).collect();
                (seqs, accepted.repeats.unwrap())
            }));
        }
        let (first, second) = (senders.remove(0).await.unwrap(), senders.remove(0).await.unwrap());
        assert_eq!((first.0, first.1 + second.1), (second.0, 50));
    }
    assert_eq!(stores[0].read().await.unwrap().events_since(0, 1000).await.unwrap().len(), 500);
    // Who was heard twice before it was handled has one row, or two where both replicas stored at the same moment.
    let handled = handle_all(&stores[1]).await.len();
    assert!((500..=1000).contains(&handled), "{handled}");
}

/// Keeps every delivery from being stored until it is opened.
struct Blocked(Tx);

impl Blocked {
    async fn new(store: &Store) -> Self {
        let mut tx = store.begin().await.unwrap();
        if tx.is_postgres() {
            tx.sql("lock table events in access exclusive mode").await.unwrap();
        }
        Self(tx)
    }

    async fn open(self) {
        self.0.commit().await.unwrap();
    }
}

/// Sends a delivery, and waits until it is the one that is being stored, which it is until the gate opens.
async fn at_the_front(store: &Store, delivery: Delivery) -> JoinHandle<Result<Accepted, InboxError>> {
    let sender = store.clone();
    let mut first = Box::pin(async move { sender.accept(delivery).await });
    let sent = tokio::time::timeout(Duration::ZERO, &mut first).await;
    assert!(sent.is_err(), "it was not kept: {sent:?}");
    in_line(store, 0).await;
    tokio::spawn(first)
}

/// Waits until so many deliveries wait for the one that is being stored.
async fn in_line(store: &Store, count: usize) {
    let wait = async || {
        let waiting = store.intake.in_line();
        anyhow::ensure!(waiting == count, "{waiting} wait");
        Ok(())
    };
    harness::eventually(Duration::from_secs(5), wait).await.unwrap();
}

/// On SQLite, where one delivery waits for the other.
#[tokio::test]
async fn an_act_whose_sender_gave_up_is_not_stored_later() {
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    let fire = |name: &str| delivery("am", vec![sighting(name, Firing, world.now())], world.now());
    let busy = store.begin().await.unwrap();
    let first = at_the_front(&store, fire("first")).await;
    let soon = |delivery| tokio::time::timeout(Duration::from_millis(100), store.accept(delivery));
    let act = note("n", IncidentId::new(world.now()), world.now());
    let (act, alert) = tokio::join!(soon(act), soon(fire("second")));
    assert!(act.is_err() && alert.is_err(), "nobody can be answered");
    drop(busy);
    first.await.unwrap().unwrap();
    // It was in line behind them.
    store.accept(fire("third")).await.unwrap();
    assert_eq!(handle_all(&store).await, ["first:firing", "second:firing", "third:firing"], "a machine's is stored all the same");
}
