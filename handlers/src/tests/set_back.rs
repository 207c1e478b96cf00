//! The clock was an hour ahead and is set back: nothing waits for that hour.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use domain::act::Verb;
use domain::action::ActionError;
use domain::approval::ApprovalState;
use domain::event::Status::Firing;
use domain::event::{Heartbeat, NewEvent};
use domain::incident::IncidentState;
use domain::run::RunState;
use jiff::SignedDuration;

use super::world::{RULES, World};
use crate::{Beat, Pulse, Worker};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

async fn set_back(world: &World) {
    set_back_by(world, HOUR).await;
}

async fn set_back_by(world: &World, by: SignedDuration) {
    world.clock.advance(-by);
    world.cx.wake.pace.forget();
    world.cx.store.bring_forward(by).await.unwrap();
}

#[tokio::test]
async fn an_incident_that_got_quiet_meanwhile_resolves_and_closes_and_its_alert_may_fire_again() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    world.resolve_after(3600, "api").await;
    set_back(&world).await;
    world.pass(120).await;
    world.pass(120).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Resolved);
    world.alert("api", Firing).await;
    let incident = world.incidents().await.remove(0);
    assert_eq!((incident.state, incident.alerts_active), (IncidentState::Open, 1), "it is no late copy");
    world.resolve_after(60, "api").await;
    world.pass(120).await;
    world.pass(24 * 3600).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Closed);
}

#[tokio::test]
async fn a_step_that_failed_meanwhile_is_tried_again_after_its_pause() {
    for restarted in [false, true] {
        let world = World::new("auto").await;
        world
            .reload(&RULES.replace("MODE", "auto").replace("uses: test.change,", "uses: test.change, retry: { attempts: 2, delay: 10m },"));
        world.worker.first_rounds().await.unwrap();
        world.script.lock().unwrap().change_fails = Some(ActionError::Failed("no".to_owned()));
        world.pass(3600).await;
        world.alert("api", Firing).await;
        world.script.lock().unwrap().change_fails = None;
        if restarted {
            world.clock.advance(-HOUR);
            world.worker.first_rounds().await.unwrap();
        } else {
            set_back(&world).await;
        }
        world.pass(599).await;
        assert_eq!((world.run().await.state, world.script.lock().unwrap().changes), (RunState::Running, 1));
        world.pass(1).await;
        assert_eq!((world.run().await.state, world.script.lock().unwrap().changes), (RunState::Succeeded, 2), "restarted: {restarted}");
    }
}

#[tokio::test]
async fn a_check_that_does_not_pass_is_given_up_in_its_time() {
    let world = World::new("auto").await;
    world.script.lock().unwrap().healthy = false;
    world.pass(3600).await;
    world.alert("api", Firing).await;
    set_back(&world).await;
    for (seconds, state) in [(5, RunState::Verifying), (55, RunState::Verifying), (5, RunState::Failed)] {
        world.pass(seconds).await;
        assert_eq!(world.run().await.state, state, "after {seconds} more seconds");
    }
}

#[tokio::test]
async fn what_waits_for_a_person_is_on_the_card_whatever_ended_meanwhile() {
    let world = World::new("approve").await;
    world.pass(3600).await;
    world.alert("api", Firing).await;
    let approval = world.approval().await.id;
    assert!(world.act("bob", Verb::Deny { approval, reason: "no".to_owned() }).await.done);
    set_back(&world).await;
    let incident = Some(world.incidents().await[0].id);
    let params = serde_json::Map::from_iter([("target".to_owned(), "api".into())]);
    assert_eq!(world.act("ann", Verb::Run { incident, runbook: "fix".to_owned(), params }).await.code, "awaiting_approval");
    world.pass(10).await;
    let card = world.script.lock().unwrap().cards.last().unwrap().clone();
    assert!(card.buttons.iter().any(|button| button.label == "Approve"), "{:?}", card.buttons);
}

#[tokio::test]
async fn a_cooldown_that_began_meanwhile_lasts_from_the_setting_back() {
    let world = World::new("auto").await;
    world.pass(3600).await;
    world.alert("api", Firing).await;
    world.resolve_after(60, "api").await;
    set_back(&world).await;
    world.pass(120).await;
    world.pass(120).await;
    world.alert("api", Firing).await;
    let held = world.runs().await.into_iter().find(|run| run.state == RunState::Held).expect("the second run is held");
    assert!(held.reason.as_deref().is_some_and(|why| why.contains("cools down")), "{held:?}");
    world.pass(600 - 240 - 1).await;
    assert_eq!(world.script.lock().unwrap().changes, 1, "no shorter than it is to be");
    world.pass(1).await;
    assert_eq!(world.script.lock().unwrap().changes, 2);
}

#[tokio::test]
async fn a_request_for_approval_from_meanwhile_ends_and_one_from_before_lasts_as_long_as_it_was_to() {
    for (by, asked_before) in [(3600, false), (600, false), (600, true)] {
        let world = World::new("approve").await;
        world.pass(if asked_before { 0 } else { by }).await;
        world.alert("api", Firing).await;
        world.pass(if asked_before { by } else { 0 }).await;
        assert_eq!(world.approval().await.state, ApprovalState::Pending);
        set_back_by(&world, SignedDuration::from_secs(by)).await;
        world.pass(0).await;
        let states = async || (world.approval().await.state, world.run().await.state);
        let ended = (ApprovalState::Expired, RunState::Refused);
        if asked_before {
            world.pass(15 * 60 - 1).await;
            assert_eq!(states().await, (ApprovalState::Pending, RunState::AwaitingApproval));
            world.pass(1).await;
            assert_eq!((states().await, world.run().await.reason.unwrap().as_str()), (ended, "nobody decided in time"));
        } else {
            assert_eq!(states().await, ended, "set back by {by} s");
            assert!(world.run().await.reason.unwrap().contains("the clock was set back"));
        }
    }
}

#[tokio::test]
async fn what_was_approved_meanwhile_and_has_not_begun_does_not_begin() {
    let world = World::new("approve").await;
    world.pass(600).await;
    world.alert("api", Firing).await;
    let approval = world.approval().await.id;
    assert!(world.act("bob", Verb::Pause { paused: true, reason: "look".to_owned() }).await.done);
    world.act("ann", Verb::Approve { approval }).await;
    assert_eq!((world.approval().await.state, world.run().await.state), (ApprovalState::Approved, RunState::Held));
    set_back_by(&world, SignedDuration::from_secs(600)).await;
    world.pass(0).await;
    assert_eq!(world.run().await.state, RunState::Refused);
    assert!(world.act("bob", Verb::Pause { paused: false, reason: String::new() }).await.done);
    world.pass(700).await;
    assert_eq!(world.script.lock().unwrap().changes, 0);
}

/// Counts the signs of life that we send.
struct Counted(AtomicUsize);

#[async_trait]
impl Beat for Counted {
    async fn beat(&self, _: Pulse) -> Result<(), String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn every(&self) -> SignedDuration {
        SignedDuration::from_secs(60)
    }
}

#[tokio::test]
async fn our_own_sign_of_life_goes_on_and_others_are_missed_in_time() {
    let mut world = World::new("observe").await;
    let sent = Arc::new(Counted(AtomicUsize::new(0)));
    world.cx.beat = Some(sent.clone());
    world.worker = Worker::new(world.cx.clone());
    world.worker.first_rounds().await.unwrap();
    world.pass(0).await;
    world.pass(3600).await;
    assert_eq!((sent.0.load(Ordering::SeqCst), world.incidents().await[0].alerts_active), (2, 1), "the Watchdog is silent");
    let heartbeat = Heartbeat { name: "Watchdog".to_owned(), within: "15m".parse().unwrap(), at: world.now() };
    world.accept(NewEvent::heartbeat("am", heartbeat, b"heard")).await;
    world.pass(0).await;
    assert_eq!(world.incidents().await[0].alerts_active, 0);
    set_back(&world).await;
    world.pass(5).await;
    assert_eq!(sent.0.load(Ordering::SeqCst), 3);
    world.pass(5).await;
    assert_eq!(sent.0.load(Ordering::SeqCst), 3, "no more often than is said");
    world.pass(15 * 60).await;
    assert_eq!(world.incidents().await[0].alerts_active, 1, "it was waited for from then on");
}
