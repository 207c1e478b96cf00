//! A clock that was ahead and is set back.

use domain::event::Status::Firing;
use domain::inbox::Inbox;
use domain::run::{Run, RunState};
use jiff::SignedDuration;

use super::jobs::{LEASE, claim, enqueue};
use super::make::{delivery, job, run, sighting};
use super::on_both;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

on_both! {
    async fn what_was_put_off_by_a_clock_that_was_ahead_waits_for_what_it_was_to_wait(world) {
        let store = world.open("a").await;
        let right = world.now();
        enqueue(&store, &[job("timer", "long", right + HOUR * 3), job("timer", "under way", right)]).await;
        let [mine] = claim(&store).await;
        world.clock.advance(HOUR);
        enqueue(&store, &[job("timer", "waits", world.now() + MINUTE), job("timer", "due", world.now())]).await;
        enqueue(&store, &[job("timer", "under way", world.now() + MINUTE)]).await;
        world.clock.advance(-HOUR);
        assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty(), "all wait for an hour");

        assert_eq!(store.bring_forward(HOUR).await.unwrap(), 4);
        let [due] = claim(&store).await;
        assert_eq!((due.key.as_str(), due.due_at), ("due", right));
        store.end_job(&mine, None).await.unwrap();
        world.clock.advance(MINUTE);
        let keys = claim::<2>(&store).await.map(|job| job.key);
        assert!(keys.contains(&"waits".to_owned()) && keys.contains(&"under way".to_owned()), "{keys:?}");
        let mut look = store.read().await.unwrap();
        assert_eq!(look.job_due("timer", "long").await.unwrap(), Some(right + HOUR * 2), "it looks for itself whether that is too early");
        assert_eq!(look.job_due("timer", "due").await.unwrap(), None, "it waits for nothing");
    }

    async fn what_cooldowns_and_budgets_are_counted_from_lies_ahead_no_longer(world) {
        let store = world.open("a").await;
        let right = world.now();
        let before = Run { finished_at: Some(right), state: RunState::Succeeded, ..run(None, &["web"], right) };
        world.clock.advance(HOUR);
        let meanwhile = Run { finished_at: Some(world.now()), state: RunState::Succeeded, ..run(None, &["web"], world.now()) };
        let mut tx = store.begin().await.unwrap();
        tx.insert_run(&before).await.unwrap();
        tx.insert_run(&meanwhile).await.unwrap();
        tx.commit().await.unwrap();
        world.clock.advance(MINUTE - HOUR);
        store.bring_forward(HOUR).await.unwrap();
        let target = before.plan.targets().into_iter().next().unwrap().to_owned();
        let mut tx = store.read().await.unwrap();
        let times: Vec<_> = tx.runs_on_target_since(&before.runbook, &target, right - HOUR).await.unwrap();
        let times: Vec<_> = times.into_iter().map(|(_, _, created, finished)| (created, finished)).collect();
        assert_eq!(times, [(right, Some(right)), (world.now(), Some(world.now()))]);
        assert_eq!(tx.run(meanwhile.id).await.unwrap().unwrap(), meanwhile, "what it says itself is what the clock showed");
    }

    async fn an_event_that_waits_for_its_retry_is_brought_forward(world) {
        let store = world.open("a").await;
        let at = world.now();
        let seq = store.accept(delivery("am", vec![sighting("x", Firing, at)], at)).await.unwrap().seqs[0];
        world.clock.advance(HOUR);
        assert!(!store.fail_event(seq, "no", world.now()).await.unwrap());
        world.clock.advance(-HOUR);
        let waiting = async || store.begin().await.unwrap().claim_events(10).await.unwrap().len();
        world.clock.advance(MINUTE);
        assert_eq!(waiting().await, 0);
        assert_eq!(store.bring_forward(HOUR).await.unwrap(), 0);
        world.clock.advance(SignedDuration::from_secs(1));
        assert_eq!(waiting().await, 1);
    }
}
