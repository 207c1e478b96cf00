//! The inbox and its queue.

use domain::event::Status::{Firing, Resolved};
use domain::inbox::Inbox;

use super::make::{delivery, sighting, told};
use super::on_both;

on_both! {
    async fn what_was_accepted_is_claimed_in_order_and_finished(world) {
        let store = world.open("a").await;
        let at = world.now();
        let accepted = store.accept(delivery("am", vec![sighting("x", Firing, at), sighting("x", Resolved, at)], at)).await.unwrap();
        assert_eq!((accepted.seqs.len(), accepted.repeats), (2, 0));
        let mut tx = store.begin().await.unwrap();
        let events = tx.claim_events(10).await.unwrap();
        assert_eq!(events.iter().map(told).collect::<Vec<_>>(), ["x:firing", "x:resolved"]);
        tx.finish_events(&[(events[0].seq, None), (events[1].seq, None)]).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        assert!(tx.claim_events(10).await.unwrap().is_empty());
    }
}
