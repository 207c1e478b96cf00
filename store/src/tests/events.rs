//! The inbox and its queue.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use domain::act::ActOutcome;
use domain::event::Event;
use domain::event::Status::{Firing, Resolved};
use domain::id::IncidentId;
use domain::inbox::{Inbox, InboxError};
use jiff::SignedDuration;

use super::make::{NASTY, delivery, note, sighting, told};
use super::{MOMENT, World, on_both};
use crate::{Backend, Change, Store, Tx};

on_both! {
    async fn what_was_accepted_is_claimed_in_order_and_finished(world) {
        let store = world.open("a").await;
        let at = world.now();
        let accepted = store.accept(delivery(NASTY, vec![sighting(NASTY, Firing, at), sighting("x", Resolved, at)], at)).await.unwrap();
        assert_eq!((accepted.seqs.len(), accepted.repeats), (2, Some(0)));
        let mut tx = store.begin().await.unwrap();
        let events = tx.claim_events(10).await.unwrap();
        assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), accepted.seqs);
        let sent = domain::event::Payload::Alert(sighting(NASTY, Firing, at));
        assert_eq!(events[0].payload, sent);
        assert_eq!((events[0].received_at, events[0].last_seen, events[0].seen, events[0].attempts), (at, at, 1, 0));
        finish(&mut tx, &events).await;
        tx.commit().await.unwrap();
        assert!(claim(&store, 10).await.is_empty());
        assert_eq!(store.read().await.unwrap().depths().await.unwrap().queue, 0);
        assert_eq!(store.read().await.unwrap().number("select cast(length(raw) as bigint) from deliveries").await.unwrap(), 12);
    }

    async fn a_dropped_claim_comes_back(world) {
        let store = world.open("a").await;
        store.accept(delivery("am", vec![sighting("x", Firing, world.now())], world.now())).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let events = tx.claim_events(10).await.unwrap();
        finish(&mut tx, &events).await;
        tx.rollback().await.unwrap();
        assert_eq!(claim(&store, 10).await.len(), 1);
        let mut tx = store.begin().await.unwrap();
        let events = tx.claim_events(10).await.unwrap();
        finish(&mut tx, &events).await;
        drop(tx);
        let again = async || match claim(&store, 10).await.len() {
            1 => Ok(()),
            n => anyhow::bail!("{n} events"),
        };
        harness::eventually(Duration::from_secs(5), again).await.unwrap();
    }

    async fn a_repeat_joins_what_waits_and_queues_what_was_handled(world) {
        let store = world.open("a").await;
        let body = || delivery("am", vec![sighting("x", Firing, "2026-03-01T00:00:00Z".parse().unwrap())], world.now());
        let first = store.accept(body()).await.unwrap();
        world.clock.advance(SignedDuration::from_secs(5));
        let second = store.accept(body()).await.unwrap();
        assert_eq!((&second.seqs, second.repeats), (&first.seqs, Some(1)));
        let events = claim(&store, 10).await;
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((events[0].seen, events[0].last_seen), (2, world.now()));
        assert_eq!(events[0].received_at, world.now() - SignedDuration::from_secs(5));
        handle_all(&store).await;
        let third = store.accept(body()).await.unwrap();
        assert_eq!(third.seqs, first.seqs);
        assert_eq!(handle_all(&store).await, ["x:firing"]);
        let bodies = store.read().await.unwrap().number("select count(*) from deliveries").await.unwrap();
        assert_eq!(bodies, 1, "a body that says nothing new is not kept");
    }

    async fn heard_again_after_something_else_it_has_a_place_of_its_own(world) {
        let store = world.open("a").await;
        let at = world.now();
        let (fire, resolve) = (sighting("x", Firing, at), sighting("x", Resolved, at));
        store.accept(delivery("am", vec![fire.clone(), resolve.clone()], at)).await.unwrap();
        for _ in 0..3 {
            // All but the first join the last row of the chain.
            store.accept(delivery("am", vec![fire.clone()], at)).await.unwrap();
        }
        // In one delivery, too.
        store.accept(delivery("am", vec![resolve.clone(), resolve, fire.clone(), fire], at)).await.unwrap();
        assert_eq!(handle_all(&store).await, ["x:firing", "x:resolved", "x:firing", "x:resolved", "x:firing"]);
    }

    async fn a_persons_act_counts_once(world) {
        let store = world.open("a").await;
        let act = || note("trigger-1", IncidentId::new("2026-03-01T00:00:00Z".parse().unwrap()), world.now());
        let first = store.accept(act()).await.unwrap();
        let second = store.accept(act()).await.unwrap();
        assert_eq!((second.seqs == first.seqs, second.repeats), (true, Some(1)));
        assert_eq!(handle_all(&store).await, ["note"]);
        assert_eq!(store.accept(act()).await.unwrap().seqs, first.seqs);
        assert!(handle_all(&store).await.is_empty());
    }

    async fn people_are_served_first(world) {
        let store = world.open("a").await;
        let at = world.now();
        store.accept(delivery("am", (0..50).map(|n| sighting(&n.to_string(), Firing, at)).collect(), at)).await.unwrap();
        store.accept(note("trigger-1", IncidentId::new(at), at)).await.unwrap();
        let events = claim(&store, 5).await;
        assert_eq!((events.len(), told(&events[0])), (5, "note".to_owned()));
    }

    async fn a_failing_event_holds_back_its_own_alert_alone_and_ends_in_the_dead_letters(world) {
        let store = world.open("a").await;
        let at = world.now();
        let seqs = store.accept(delivery("am", neighbours(at), at)).await.unwrap().seqs;
        for (attempt, pause) in [1, 4, 16, 64].into_iter().enumerate() {
            let events = claim(&store, 10).await;
            assert_eq!((events[0].seq, events[0].attempts), (seqs[0], i64::try_from(attempt).unwrap()));
            assert!(!store.fail_event(seqs[0], NASTY, world.now()).await.unwrap());
            let left: Vec<i64> = claim(&store, 10).await.iter().map(|e| e.seq).collect();
            assert_eq!(left, seqs[2..], "its later sighting waits; others, in its lane or not, go on");
            assert_eq!(claim(&store, 1).await[0].seq, seqs[2], "however few are asked for");
            world.clock.advance(SignedDuration::from_secs(pause));
        }
        assert!(store.fail_event(seqs[0], NASTY, world.now()).await.unwrap());
        assert_eq!(claim(&store, 10).await.iter().map(|e| e.seq).collect::<Vec<_>>(), seqs[1..]);
        let letters = store.read().await.unwrap().dead_letters(10).await.unwrap();
        assert_eq!((letters.len(), letters[0].seq, letters[0].source.as_str(), letters[0].at), (1, seqs[0], "am", world.now()));
        assert_eq!(letters[0].error, NASTY.replace('\0', "\u{2400}"));
        assert!(letters[0].payload.contains("ServiceDown"));

        let mut tx = store.begin().await.unwrap();
        assert!(tx.replay_dead_letter(seqs[0]).await.unwrap());
        assert!(!tx.replay_dead_letter(seqs[0]).await.unwrap());
        tx.commit().await.unwrap();
        let seen: HashSet<i64> = claim(&store, 10).await.iter().map(|e| e.seq).collect();
        assert_eq!(seen, seqs.into_iter().collect());
        assert!(!store.fail_event(4711, "no such event", world.now()).await.unwrap());
    }

    async fn a_dead_letter_that_two_replay_is_queued_once(world) {
        let store = world.open("a").await;
        let seq = store.accept(delivery("am", vec![sighting("x", Firing, world.now())], world.now())).await.unwrap().seqs[0];
        while !store.fail_event(seq, NASTY, world.now()).await.unwrap() {}
        let mut first = store.begin().await.unwrap();
        assert!(first.replay_dead_letter(seq).await.unwrap());
        let second = tokio::spawn({
            let store = store.clone();
            async move {
                let mut tx = store.begin().await?;
                let queued = tx.replay_dead_letter(seq).await?;
                tx.commit().await.map(|()| queued)
            }
        });
        tokio::time::sleep(MOMENT).await;
        first.commit().await.unwrap();
        assert!(!second.await.unwrap().unwrap());
        assert_eq!(claim(&store, 10).await.len(), 1);
    }

    async fn an_event_that_cannot_be_read_does_not_stop_its_lane(world) {
        let store = world.open("a").await;
        let at = world.now();
        let seqs = store.accept(delivery("am", vec![sighting("x", Firing, at), sighting("x", Resolved, at)], at)).await.unwrap().seqs;
        let mut tx = store.begin().await.unwrap();
        let garbage = if tx.is_postgres() { "'{'" } else { "x'7b'" };
        tx.sql(&format!("update events set payload = {garbage} where seq = {}", seqs[0])).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(handle_all(&store).await, ["x:resolved"]);
        assert_eq!(store.read().await.unwrap().dead_letters(10).await.unwrap()[0].seq, seqs[0]);
    }

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
        let mut answers = Vec::new();
        for n in 0..20 {
            let (store, source) = (store.clone(), if n == 7 { "bad" } else { "good" });
            answers.push(tokio::spawn(async move { store.accept(delivery(source, vec![sighting(&n.to_string(), Firing, at)], at)).await }));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.open().await;
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap().is_ok(), n != 7, "{n}");
        }
        assert_eq!(handle_all(&store).await.len(), 19);
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
        tokio::time::sleep(Duration::from_millis(100)).await;
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

    async fn a_body_of_ten_thousand_alerts_is_one_delivery(world) {
        let store = world.open("a").await;
        let at = world.now();
        let alerts: Vec<_> = (0..10_000).map(|n| sighting(&n.to_string(), Firing, at)).collect();
        let accepted = store.accept(delivery("am", alerts, at)).await.unwrap();
        assert!(accepted.seqs.is_sorted() && accepted.seqs.len() == 10_000);
        let mut handled = 0;
        loop {
            let mut tx = store.begin().await.unwrap();
            let events = tx.claim_events(500).await.unwrap();
            if events.is_empty() {
                break;
            }
            assert!(events.len() <= 500);
            handled += events.len();
            finish(&mut tx, &events).await;
            tx.commit().await.unwrap();
        }
        assert_eq!(handled, 10_000);
    }

    async fn an_outcome_is_waited_for(world) {
        let store = world.open("a").await;
        let seq = store.accept(note("t", IncidentId::new(world.now()), world.now())).await.unwrap().seqs[0];
        assert_eq!(store.outcome(seq, Duration::from_millis(20)).await.unwrap(), None);
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.outcome(seq, Duration::from_secs(10)).await.unwrap() }
        });
        let outcome = ActOutcome::done("noted", NASTY);
        let mut changes = store.changes();
        let mut tx = store.begin().await.unwrap();
        tx.claim_events(1).await.unwrap();
        tx.finish_events(&[(seq, Some(outcome.clone()))]).await.unwrap();
        assert!(changes.try_recv().is_err(), "not told before it is true");
        tx.commit().await.unwrap();
        assert_eq!(changes.try_recv().unwrap(), Change::Outcome(seq));
        assert_eq!(waiting.await.unwrap(), Some(outcome));
    }

    async fn what_was_not_claimed_cannot_be_finished(world) {
        let store = world.open("a").await;
        let seq = store.accept(note("t", IncidentId::new(world.now()), world.now())).await.unwrap().seqs[0];
        let mut tx = store.begin().await.unwrap();
        assert!(matches!(tx.finish_events(&[(seq, None)]).await, Err(crate::Error::Conflict)));
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

/// Two sightings of one alert, one of another alert in its lane, and one in another lane.
fn neighbours(at: jiff::Timestamp) -> Vec<domain::event::Sighting> {
    let lane = |name: &str| {
        let event = domain::event::NewEvent::sighting("am", sighting(name, Firing, at));
        event.class.lane(event.order_hash())
    };
    let find = |same: bool| (0..).map(|n| format!("other-{n}")).find(|name| (lane(name) == lane("x")) == same).unwrap();
    vec![sighting("x", Firing, at), sighting("x", Resolved, at), sighting(&find(true), Firing, at), sighting(&find(false), Firing, at)]
}

async fn finish(tx: &mut Tx, events: &[Event]) {
    let seqs: Vec<_> = events.iter().map(|event| (event.seq, None)).collect();
    tx.finish_events(&seqs).await.unwrap();
}

/// Looks at what a claim would get, and gives it back.
async fn claim(store: &Store, limit: i64) -> Vec<Event> {
    let mut tx = store.begin().await.unwrap();
    let events = tx.claim_events(limit).await.unwrap();
    tx.rollback().await.unwrap();
    events
}

/// Handles everything; what it was.
async fn handle_all(store: &Store) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let mut tx = store.begin().await.unwrap();
        let events = tx.claim_events(500).await.unwrap();
        if events.is_empty() {
            tx.commit().await.unwrap();
            return all;
        }
        finish(&mut tx, &events).await;
        tx.commit().await.unwrap();
        all.extend(events.iter().map(told));
    }
}

/// On SQLite, where one delivery waits for the other.
#[tokio::test]
async fn an_act_whose_sender_gave_up_is_not_stored_later() {
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    let fire = |name: &str| delivery("am", vec![sighting(name, Firing, world.now())], world.now());
    let busy = store.begin().await.unwrap();
    let first = tokio::spawn({
        let (store, first) = (store.clone(), fire("first"));
        async move { store.accept(first).await }
    });
    // No sign shows that it is the one at the front.
    tokio::time::sleep(Duration::from_millis(100)).await;
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
