//! The inbox and its queue.

mod crowds;
mod letters;

use std::time::Duration;

use domain::act::ActOutcome;
use domain::event::Event;
use domain::event::Status::{Firing, Resolved};
use domain::id::IncidentId;
use domain::inbox::Inbox;
use jiff::SignedDuration;

use super::make::{NASTY, delivery, note, sighting, told};
use super::on_both;
use crate::{Change, Store, Tx};

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
