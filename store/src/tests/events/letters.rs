//! Events that cannot be handled: retried, held back, kept as dead letters and replayed.

use std::collections::HashSet;

use domain::event::Status::{Firing, Resolved};
use domain::inbox::Inbox;
use jiff::SignedDuration;

use super::super::make::{NASTY, delivery, sighting};
use super::super::{MOMENT, on_both};
use super::{claim, handle_all};

on_both! {
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
