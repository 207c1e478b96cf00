//! To run a lost step again takes an approval, as the run itself did.

use domain::act::Verb;
use domain::action::{ActionError, ActionOutput};
use domain::approval::ApprovalState;
use domain::card::ButtonKind;
use domain::event::Status::Firing;
use domain::run::{AttemptState, RunState, Settlement};

use super::super::world::{RULES, World};
use super::{changes, locked, settle};

/// A run that somebody asked for and somebody else approved, whose step nobody knows of. `policy` stands in its approval.
async fn asked_and_lost(policy: &str) -> World {
    let world = World::new("observe").await;
    let text = RULES.replace("MODE", "observe").replace("quorum: 1", policy);
    world.reload(&text.replace("  bob: { roles: [sre] }", "  bob: { roles: [sre] }\n  cas: { roles: [sre] }\n  dan: { roles: [sre] }"));
    world.alert("api", Firing).await;
    let incident = Some(world.incidents().await[0].id);
    let params = serde_json::Map::from_iter([("target".to_owned(), "api".into())]);
    assert!(world.act("ann", Verb::Run { incident, runbook: "fix".to_owned(), params }).await.done);
    world.script.lock().unwrap().change_fails = Some(ActionError::Unknown("the connection broke".to_owned()));
    let approval = world.approval().await.id;
    for who in ["bob", "cas"] {
        world.act(who, Verb::Approve { approval }).await;
    }
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Unknown, 1));
    world.pass(1).await;
    world
}

#[tokio::test]
async fn to_run_a_step_again_takes_the_word_of_somebody_who_could_approve_it() {
    let world = asked_and_lost("quorum: 1, exclude: [dan]").await;
    let first = world.approval().await;
    let run = world.run().await.id;
    let again = world.act("ann", Verb::Settle { run, how: Settlement::Again, reason: "I need it".to_owned() }).await;
    assert!(!again.done && again.code == "requester" && again.text.contains("somebody else has to approve it"), "{again:?}");
    assert_eq!(settle(&world, "dan", Settlement::Again, "it did not come up").await, "excluded");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Unknown, 1));
    assert_eq!(world.approval().await, first, "what is refused leaves no request");
    // The approval of before has run out: this is a new one.
    world.pass(3600).await;
    assert_eq!(settle(&world, "bob", Settlement::Again, "it did not come up").await, "again");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 2));
    let fresh = world.approval().await;
    assert_eq!((fresh.state, fresh.votes.len(), fresh.votes[0].who.as_str()), (ApprovalState::Approved, 1, "bob"));
    assert!(fresh.id != first.id && fresh.expires_at > world.now() && fresh.requester.as_deref() == Some("ann"));
}

async fn again(world: &World, who: &str) -> String {
    settle(world, who, Settlement::Again, "it did not come up").await
}

#[tokio::test]
async fn to_run_a_step_again_takes_as_many_as_its_approval_did() {
    let world = asked_and_lost("quorum: 2").await;
    assert_eq!(again(&world, "bob").await, "voted");
    assert_eq!(again(&world, "bob").await, "already_voted");
    assert_eq!(again(&world, "ann").await, "requester");
    assert_eq!((world.run().await.state, changes(&world), locked(&world).await), (RunState::Unknown, 1, 1));
    assert_eq!(again(&world, "cas").await, "again");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 2));
    assert!(world.timeline().await.iter().any(|line| line.contains("bob, cas say: run it again")), "{:?}", world.timeline().await);
}

/// The card asks with its own buttons, and they count the same.
#[tokio::test]
async fn to_run_a_step_again_is_approved_on_the_card_too() {
    let world = asked_and_lost("quorum: 2").await;
    assert_eq!(again(&world, "bob").await, "voted");
    let approval = world.approval().await.id;
    assert_eq!(world.act("ann", Verb::Approve { approval }).await.code, "requester");
    assert_eq!(world.act("cas", Verb::Approve { approval }).await.code, "again");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 2));
}

#[tokio::test]
async fn nobody_is_asked_further_after_a_no_or_once_it_is_known_what_happened() {
    let world = asked_and_lost("quorum: 2").await;
    assert_eq!(again(&world, "bob").await, "voted");
    let approval = world.approval().await.id;
    assert_eq!(world.act("cas", Verb::Deny { approval, reason: "no".to_owned() }).await.code, "denied");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Unknown, 1));
    // Somebody may ask anew.
    world.pass(1).await;
    assert_eq!(again(&world, "cas").await, "voted");
    let approval = world.approval().await.id;
    assert_eq!(settle(&world, "bob", Settlement::Abort, "I saw to it").await, "aborted");
    assert_eq!(world.approval().await.state, ApprovalState::Superseded);
    assert_eq!(world.act("dan", Verb::Approve { approval }).await.code, "already_decided");
    assert_eq!((world.run().await.state, changes(&world), locked(&world).await), (RunState::Failed, 1, 0));
}

#[tokio::test]
async fn a_request_to_run_a_step_again_that_expires_is_off_the_card_and_may_be_made_anew() {
    let world = asked_and_lost("quorum: 2").await;
    assert_eq!(again(&world, "bob").await, "voted");
    let approval = world.approval().await;
    let asks = |world: &World| {
        let script = world.script.lock().unwrap();
        script.cards.last().unwrap().buttons.iter().any(|button| button.kind == ButtonKind::Approve)
    };
    world.pass(10).await;
    assert!(asks(&world), "the card asks for the second word");
    world.pass(3600).await;
    world.pass(10).await;
    assert_eq!((world.approval().await.state, world.run().await.state), (ApprovalState::Expired, RunState::Unknown));
    assert!(!asks(&world), "the card still asks for it");
    assert!(world.timeline().await.iter().any(|line| line.contains("run the step of fix again expired")), "{:?}", world.timeline().await);
    assert_eq!(world.act("cas", Verb::Approve { approval: approval.id }).await.code, "already_decided");
    assert_eq!((again(&world, "cas").await, again(&world, "bob").await), ("voted".to_owned(), "again".to_owned()));
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 2));
}

#[tokio::test]
async fn a_late_result_answers_whether_to_run_the_step_again() {
    let world = asked_and_lost("quorum: 2").await;
    assert_eq!(again(&world, "bob").await, "voted");
    let approval = world.approval().await.id;
    let run = world.run().await;
    let row = world.cx.store.read().await.unwrap().attempts(run.id).await.unwrap().remove(0);
    let told = (AttemptState::Succeeded, Some(ActionOutput::default()), None);
    crate::journal::found(&world.cx, row, told, &run.plan.steps[0]).await.unwrap();
    assert_eq!(world.act("cas", Verb::Approve { approval }).await.code, "already_decided");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 1));
}
