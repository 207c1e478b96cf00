//! What a restore cut off, and what is heard of it afterwards.

use domain::action::ActionOutput;
use domain::event::Status::Firing;
use domain::run::{AttemptState, RunState, Settlement};
use jiff::SignedDuration;

use super::super::world::World;
use super::{between_attempts, changes, locked, settle, unknown};

/// Its check has not passed yet.
async fn verifying() -> World {
    let world = World::new("auto").await;
    world.script.lock().unwrap().healthy = false;
    world.alert("api", Firing).await;
    assert_eq!(world.run().await.state, RunState::Verifying);
    world
}

/// The check's attempts, in order.
async fn checks(world: &World) -> Vec<AttemptState> {
    let run = world.run().await.id;
    let attempts = world.cx.store.read().await.unwrap().attempts(run).await.unwrap();
    attempts.iter().filter(|attempt| attempt.index == 1).map(|attempt| attempt.state).collect()
}

#[tokio::test]
async fn a_verification_that_a_restore_cut_off_ends_as_a_person_says() {
    use AttemptState::{Failed, Succeeded, Unknown};
    for (how, healthy, state, tried) in [
        (Settlement::Ran, false, RunState::Succeeded, vec![Succeeded]),
        (Settlement::DidNotRun, true, RunState::Failed, vec![Failed]),
        (Settlement::Again, true, RunState::Succeeded, vec![Failed, Succeeded]),
        (Settlement::Abort, true, RunState::Failed, vec![Unknown]),
    ] {
        let world = verifying().await;
        world.cx.store.begin_epoch(0).await.unwrap();
        assert_eq!((world.run().await.state, checks(&world).await), (RunState::Unknown, vec![Unknown]));
        world.script.lock().unwrap().healthy = healthy;
        settle(&world, "bob", how, "I looked").await;
        assert_eq!((world.run().await.state, checks(&world).await), (state, tried), "{how:?}");
        assert_eq!((changes(&world), locked(&world).await), (1, 0), "{how:?}");
    }
}

/// As when the result was stored and the server ended before the run went on.
#[tokio::test]
async fn a_verification_that_has_its_result_is_gone_on_from() {
    for (stored, state) in [(AttemptState::Succeeded, RunState::Succeeded), (AttemptState::Failed, RunState::Failed)] {
        let world = verifying().await;
        let mut tx = world.cx.store.begin().await.unwrap();
        let mut row = tx.attempts(world.run().await.id).await.unwrap().remove(1);
        row.state = stored;
        row.error = (stored == AttemptState::Failed).then(|| "it does not answer".to_owned());
        tx.finish_attempt(&row).await.unwrap();
        tx.commit().await.unwrap();
        world.pass(5).await;
        assert_eq!((world.run().await.state, locked(&world).await), (state, 0));
    }
}

#[tokio::test]
async fn what_is_heard_after_a_restore_is_kept_and_nothing_goes_on_by_it() {
    let world = unknown("").await;
    world.cx.store.begin_epoch(0).await.unwrap();
    world.pass(60).await;
    let run = world.run().await;
    let attempt = || async { world.cx.store.read().await.unwrap().attempts(run.id).await.unwrap().remove(0) };
    let output = ActionOutput { summary: "exited with 0".to_owned(), text: "done".to_owned(), ..Default::default() };
    let told = (AttemptState::Succeeded, Some(output.clone()), None);
    crate::journal::found(&world.cx, attempt().await, told, &run.plan.steps[0]).await.unwrap();
    world.pass(60).await;
    let depths = world.cx.store.read().await.unwrap().depths().await.unwrap();
    assert_eq!(depths.oldest_unknown_age, Some(SignedDuration::from_secs(120)), "it waits since the restore");
    let (now, kept) = (world.run().await, attempt().await);
    assert_eq!((now.state, kept.state, kept.output, changes(&world)), (RunState::Unknown, AttemptState::Unknown, Some(output), 1));
    for text in [now.reason.unwrap(), kept.error.unwrap(), world.timeline().await.concat()] {
        assert!(text.contains("it was heard that change succeeded: exited with 0"), "{text}");
    }
    assert_eq!(settle(&world, "bob", Settlement::Ran, "so it says").await, "ran");
    assert_eq!((world.run().await.state, locked(&world).await), (RunState::Succeeded, 0));
}

#[tokio::test]
async fn a_run_that_a_restore_met_between_two_attempts_can_be_aborted() {
    let world = between_attempts().await;
    world.cx.store.begin_epoch(0).await.unwrap();
    assert_eq!(world.run().await.state, RunState::Unknown);
    assert_eq!(locked(&world).await, 1);
    assert_eq!(settle(&world, "bob", Settlement::Abort, "I looked").await, "aborted");
    assert_eq!((world.run().await.state, locked(&world).await, changes(&world)), (RunState::Failed, 0, 1));
    assert!(world.timeline().await.iter().any(|line| line.contains("bob says: abort (I looked)")), "{:?}", world.timeline().await);
}
