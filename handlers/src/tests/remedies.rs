//! From a firing alert to a verified remedy, and everything that must stop one.

use domain::act::Verb;
use domain::action::ActionError;
use domain::approval::ApprovalState;
use domain::event::Status::{Firing, Resolved};
use domain::incident::IncidentState;
use domain::run::RunState;

use super::world::{RULES, World};

fn changes(world: &World) -> u32 {
    world.script.lock().unwrap().changes
}

#[tokio::test]
async fn approved_it_runs_once_and_is_verified() {
    let world = World::new("approve").await;
    world.alert("api", Firing).await;
    assert_eq!((world.run().await.state, changes(&world)), (RunState::AwaitingApproval, 0));
    let approval = world.approval().await.id;
    let outcome = world.act("ann", Verb::Approve { approval }).await;
    assert!(outcome.done, "{outcome:?}");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 1));
    assert_eq!(world.incidents().await[0].state, IncidentState::Mitigated);
    let again = world.act("bob", Verb::Approve { approval }).await;
    assert_eq!((again.code.as_str(), changes(&world)), ("already_decided", 1));
}

#[tokio::test]
async fn observed_and_suggested_nothing_runs() {
    for mode in ["observe", "suggest"] {
        let world = World::new(mode).await;
        world.alert("api", Firing).await;
        assert_eq!((world.runs().await.len(), changes(&world)), (0, 0), "{mode}");
        assert!(world.timeline().await.iter().any(|line| line.starts_with("fix")), "the timeline tells what it would be");
    }
}

#[tokio::test]
async fn automatic_it_runs_at_once_and_cools_down_afterwards() {
    let world = World::new("auto").await;
    world.alert("api", Firing).await;
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 1));
    world.resolve_after(60, "api").await;
    world.pass(120).await;
    world.alert("api", Firing).await;
    let held = world.runs().await.into_iter().find(|run| run.state == RunState::Held).expect("the second run is held");
    assert!(held.reason.unwrap().contains("cools down"));
    assert_eq!(changes(&world), 1);
    world.pass(600).await;
    assert_eq!(changes(&world), 2, "after the cooldown it still fires, so it runs");
}

#[tokio::test]
async fn a_remedy_that_is_not_verified_failed_whatever_its_exit_code() {
    let world = World::new("auto").await;
    world.script.lock().unwrap().healthy = false;
    world.alert("api", Firing).await;
    assert_eq!(world.run().await.state, RunState::Verifying);
    for _ in 0..13 {
        world.pass(5).await;
    }
    assert_eq!(world.run().await.state, RunState::Failed);
    assert_eq!(world.incidents().await[0].state, IncidentState::Open, "not remedied");
    assert!(world.timeline().await.iter().any(|line| line.contains("A person has to look now")));
}

#[tokio::test]
async fn after_failures_in_a_row_automation_asks() {
    let world = World::new("auto").await;
    world.script.lock().unwrap().change_fails = Some(ActionError::Failed("no".to_owned()));
    for service in 0..3 {
        world.pass(1200).await;
        let mut sighting = world.sighting("api", Firing);
        sighting.fingerprint = format!("f{service}");
        world.hear(sighting.clone()).await;
        world.pass(10).await;
        sighting.status = Resolved;
        sighting.ends_at = Some(world.now());
        world.hear(sighting).await;
        world.pass(130).await;
        world.pass(1900).await;
    }
    assert_eq!(changes(&world), 2, "the third time a person is asked");
}

#[tokio::test]
async fn an_unknown_outcome_is_not_repeated_and_keeps_its_target() {
    let world = World::new("auto").await;
    world.script.lock().unwrap().change_fails = Some(ActionError::Unknown("the connection broke".to_owned()));
    world.alert("api", Firing).await;
    assert_eq!(world.run().await.state, RunState::Unknown);
    world.pass(600).await;
    assert_eq!(changes(&world), 1);
    assert_eq!(world.cx.store.read().await.unwrap().locked_targets().await.unwrap().len(), 1);
    // A cancel is nobody's word on what happened.
    let run = world.run().await.id;
    let refused = world.act("ann", Verb::Cancel { run }).await;
    assert!(!refused.done && refused.text.contains("Settle it: Abort ends it"), "{refused:?}");
    assert_eq!(world.run().await.state, RunState::Unknown);
    assert_eq!(world.cx.store.read().await.unwrap().locked_targets().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_resolved_meanwhile_is_not_remedied() {
    let world = World::new("approve").await;
    world.alert("api", Firing).await;
    let approval = world.approval().await.id;
    world.resolve_after(10, "api").await;
    let outcome = world.act("ann", Verb::Approve { approval }).await;
    assert_eq!((outcome.code.as_str(), changes(&world)), ("superseded", 0));
    assert_eq!(world.run().await.state, RunState::Superseded);
}

#[tokio::test]
async fn another_plan_is_another_question() {
    let world = World::new("approve").await;
    world.alert("api", Firing).await;
    let first = world.approval().await.id;
    world.pass(1).await;
    world.reload(&RULES.replace("MODE", "approve").replace("within: 1m", "within: 2m"));
    let outcome = world.act("ann", Verb::Approve { approval: first }).await;
    assert_eq!((outcome.code.as_str(), changes(&world)), ("superseded", 0));
    let second = world.approval().await;
    assert_ne!(second.id, first);
    assert!(world.act("ann", Verb::Approve { approval: second.id }).await.done);
    assert_eq!(changes(&world), 1);
}

/// Held by a guard each time that it is approved: it is asked for again as often as anywhere else, and then held for the reason that people can do something about.
#[tokio::test]
async fn a_held_run_whose_plan_keeps_changing_says_so() {
    let world = World::new("approve").await;
    world.alert("api", Firing).await;
    assert!(world.act("bob", Verb::Pause { paused: true, reason: "migration".to_owned() }).await.done);
    for (minutes, then) in [(2, RunState::AwaitingApproval), (3, RunState::AwaitingApproval), (4, RunState::Held)] {
        let approval = world.approval().await.id;
        assert!(world.act("ann", Verb::Approve { approval }).await.done);
        assert_eq!(world.run().await.state, RunState::Held);
        world.reload(&RULES.replace("MODE", "approve").replace("within: 1m", &format!("within: {minutes}m")));
        world.pass(10).await;
        assert_eq!(world.run().await.state, then, "after {minutes}");
    }
    assert!(world.run().await.reason.unwrap().contains("its plan keeps changing"));
    assert_eq!(changes(&world), 0);
}

/// There is nobody left to ask, and what nobody approved does not run.
#[tokio::test]
async fn a_request_whose_runbook_takes_no_approval_any_more_is_off() {
    let without = RULES.replace("MODE", "observe").replace("    approval: { roles: [sre], quorum: 1, expires: 15m }\n", "");
    let without = without.replace(", lock_after: 2", "");
    for queued in [false, true] {
        let world = World::new("observe").await;
        world.alert("api", Firing).await;
        let ask = async |who: &str| {
            let params = serde_json::Map::from_iter([("target".to_owned(), "api".into())]);
            let incident = Some(world.incidents().await[0].id);
            world.act(who, Verb::Run { incident, runbook: "fix".to_owned(), params }).await
        };
        assert_eq!(ask("ann").await.code, "awaiting_approval");
        let approval = world.approval().await.id;
        if queued {
            // Approved, and held until the rules have changed.
            assert!(world.act("bob", Verb::Pause { paused: true, reason: "migration".to_owned() }).await.done);
            assert!(world.act("bob", Verb::Approve { approval }).await.done);
            world.reload(&without);
            assert!(world.act("bob", Verb::Pause { paused: false, reason: String::new() }).await.done);
            world.pass(10).await;
        } else {
            world.reload(&without);
            let outcome = world.act("bob", Verb::Approve { approval }).await;
            assert_eq!(outcome.code, "superseded");
            assert!(outcome.text.contains("ask for it again"), "{outcome:?}");
        }
        let run = world.run().await;
        assert_eq!((run.state, changes(&world)), (RunState::Superseded, 0), "queued: {queued}");
        assert!(run.reason.unwrap().contains("ask for it again"));
        assert_eq!(ask("ann").await.code, "queued", "and nothing is in the way");
        assert_eq!(changes(&world), 1);
    }
}

#[tokio::test]
async fn unrelated_rules_may_change_under_a_request() {
    let world = World::new("approve").await;
    world.alert("api", Firing).await;
    let approval = world.approval().await.id;
    world.reload(&RULES.replace("MODE", "approve").replace("eve: { roles: [viewer] }", "eve: { roles: [sre] }"));
    assert!(world.act("ann", Verb::Approve { approval }).await.done);
    assert_eq!(changes(&world), 1);
}

#[tokio::test]
async fn nobody_decides_and_it_expires() {
    let world = World::new("approve").await;
    world.alert("api", Firing).await;
    let approval = world.approval().await.id;
    world.pass(15 * 60).await;
    assert_eq!(world.approval().await.state, ApprovalState::Expired);
    assert_eq!(world.run().await.state, RunState::Refused);
    assert_eq!(world.act("ann", Verb::Approve { approval }).await.code, "already_decided");
    assert_eq!(changes(&world), 0);
}

#[tokio::test]
async fn a_pause_holds_what_was_approved() {
    let world = World::new("approve").await;
    world.alert("api", Firing).await;
    let approval = world.approval().await.id;
    assert!(world.act("bob", Verb::Pause { paused: true, reason: "migration".to_owned() }).await.done);
    assert!(world.act("ann", Verb::Approve { approval }).await.done);
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Held, 0));
    assert!(world.act("bob", Verb::Pause { paused: false, reason: String::new() }).await.done);
    world.pass(10).await;
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 1));
}

#[tokio::test]
async fn a_label_outside_the_inventory_is_refused() {
    let world = World::new("auto").await;
    world.alert("../../etc", Firing).await;
    assert_eq!((world.runs().await.len(), changes(&world)), (0, 0));
    assert_eq!(world.refusals().await, ["no_plan"]);
    assert!(world.timeline().await.iter().any(|line| line.contains("is not in the inventory")));
}
