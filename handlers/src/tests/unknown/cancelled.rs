//! Runs that are cancelled while a step is under way elsewhere, or between two attempts.

use domain::act::Verb;
use domain::run::{Attempt, AttemptState, RunState, Settlement};

use super::super::world::World;
use super::{between_attempts, changes, locked, settle};

/// The second attempt is under way on another server.
async fn under_way_elsewhere() -> (World, Attempt) {
    let world = between_attempts().await;
    let mut tx = world.cx.store.begin().await.unwrap();
    let id = world.run().await.id;
    let first = tx.attempts(id).await.unwrap().remove(0);
    let place = first.place.clone().map(|place| domain::run::Place { instance: "other".to_owned(), ..place });
    let second =
        Attempt { attempt: 2, state: AttemptState::Started, started_at: world.now(), finished_at: None, error: None, place, ..first };
    tx.start_attempt(&second, serde_json::json!({})).await.unwrap();
    tx.commit().await.unwrap();
    (world, second)
}

#[tokio::test]
async fn a_cancelled_run_keeps_its_targets_until_its_step_is_over() {
    let (world, mut row) = under_way_elsewhere().await;
    let run = world.run().await.id;
    let before = world.run().await.version;
    assert_eq!(world.act("ann", Verb::Cancel { run }).await.code, "cancelling");
    world.pass(2).await;
    let now = world.run().await;
    assert_eq!((now.state, now.cancelled_by.as_deref(), locked(&world).await), (RunState::Running, Some("ann"), 1));
    let card = world.script.lock().unwrap().cards.last().unwrap().clone();
    assert_eq!(
        card.automation,
        ["fix is being cancelled: ann cancelled it; step change is being ended, and api stays locked until it has ended"]
    );
    assert_eq!(world.act("bob", Verb::Cancel { run }).await.code, "already");
    let incident = Some(world.incidents().await[0].id);
    let params = serde_json::Map::from_iter([("target".to_owned(), "api".into())]);
    assert_eq!(world.act("bob", Verb::Run { incident, runbook: "fix".to_owned(), params }).await.code, "already");
    // Whoever had decided before the cancel that a step comes next does not begin it.
    let third = Attempt { attempt: 3, ..row.clone() };
    let targets = ["api".to_owned()];
    let stepped = crate::steps::intend(&world.cx, before, &targets, &now.plan.steps[0], &third).await.unwrap();
    assert_eq!(stepped, Some(crate::steps::Stepped::On));
    // It is over.
    row.state = AttemptState::Failed;
    row.error = Some("stopped".to_owned());
    let mut tx = world.cx.store.begin().await.unwrap();
    tx.finish_attempt(&row).await.unwrap();
    tx.commit().await.unwrap();
    world.pass(5).await;
    let run = world.run().await;
    assert_eq!((run.state, run.reason.as_deref(), locked(&world).await), (RunState::Cancelled, Some("cancelled by ann"), 0));
    assert_eq!(changes(&world), 1);
}

#[tokio::test]
async fn a_cancelled_run_of_whose_step_nobody_hears_any_more_is_settled_first() {
    let (world, _) = under_way_elsewhere().await;
    let run = world.run().await.id;
    assert_eq!(world.act("ann", Verb::Cancel { run }).await.code, "cancelling");
    world.pass(3600).await;
    assert_eq!((world.run().await.state, locked(&world).await), (RunState::Unknown, 1));
    assert!(world.run().await.reason.unwrap().contains("ann cancelled the run"));
    assert_eq!(settle(&world, "bob", Settlement::Again, "I looked").await, "cancelled");
    assert_eq!(settle(&world, "bob", Settlement::Ran, "I looked").await, "ran");
    assert_eq!((world.run().await.state, locked(&world).await, changes(&world)), (RunState::Cancelled, 0, 1));
}

#[tokio::test]
async fn a_run_that_is_cancelled_between_its_attempts_ends_at_once() {
    let world = between_attempts().await;
    let run = world.run().await.id;
    assert_eq!(world.act("ann", Verb::Cancel { run }).await.code, "cancelled");
    assert_eq!((world.run().await.state, locked(&world).await), (RunState::Cancelled, 0));
    world.pass(3600).await;
    assert_eq!(changes(&world), 1);
}
