//! Two that decide about the same thing at once, on both databases.

use std::time::Duration;

use domain::event::Status::Firing;
use domain::id::RunId;
use domain::run::{Run, RunState};
use jiff::SignedDuration;

use super::world::World;
use crate::starting;

/// Long enough for somebody to come to where they have to wait, or to do what they should not.
const MOMENT: Duration = Duration::from_millis(150);

/// A run ends while the next one on its target asks the guards: the target is free, and cools down.
async fn the_end_of_a_run_is_seen_by_the_next(world: &World) {
    world.script.lock().unwrap().healthy = false;
    world.alert("api", Firing).await;
    let before = world.run().await;
    assert_eq!(before.state, RunState::Verifying);
    let next = Run { id: RunId::new(world.now()), state: RunState::Queued, started_at: None, version: 1, ..before.clone() };
    let mut tx = world.cx.store.begin().await.unwrap();
    tx.insert_run(&next).await.unwrap();
    tx.commit().await.unwrap();
    world.clock.advance(SignedDuration::from_secs(1));

    let ended = Run { state: RunState::Failed, finished_at: Some(world.now()), version: before.version + 1, ..before.clone() };
    let mut tx = world.cx.store.begin().await.unwrap();
    tx.put_run(&ended, before.version).await.unwrap();
    tx.unlock_targets(before.id).await.unwrap();
    tx.attempts(before.id).await.unwrap();
    let start = tokio::spawn({
        let cx = world.cx.clone();
        async move { starting::start(&cx, next.id).await }
    });
    tokio::time::sleep(MOMENT).await;
    tx.commit().await.unwrap();
    let (_, started) = start.await.unwrap().unwrap();
    assert!(started.is_none(), "it was begun");
    let mut tx = world.cx.store.read().await.unwrap();
    let held = tx.run(next.id).await.unwrap().unwrap();
    assert!(held.state == RunState::Held && held.reason.as_deref().unwrap_or_default().contains("cools down"), "{held:#?}");
    assert!(tx.locked_targets().await.unwrap().is_empty(), "and it holds nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_run_is_seen_by_the_next_on_sqlite() {
    the_end_of_a_run_is_seen_by_the_next(&World::new("auto").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_run_is_seen_by_the_next_on_postgres() {
    the_end_of_a_run_is_seen_by_the_next(&World::on_postgres("auto").await).await;
}
