//! Who may ask for what; every refusal is audited.

use domain::act::Verb;
use domain::event::Status::Firing;
use domain::incident::IncidentState;
use domain::run::RunState;

use super::world::World;

#[tokio::test]
async fn the_one_who_asks_cannot_approve() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    let incident = world.incidents().await[0].id;
    let params = serde_json::Map::from_iter([("target".to_owned(), "api".into())]);
    let asked = world.act("ann", Verb::Run { incident: Some(incident), runbook: "fix".to_owned(), params }).await;
    assert_eq!(asked.code, "awaiting_approval");
    let approval = world.approval().await.id;
    assert_eq!(world.act("ann", Verb::Approve { approval }).await.code, "requester");
    assert_eq!(world.run().await.state, RunState::AwaitingApproval);
    assert!(world.act("bob", Verb::Approve { approval }).await.done);
    assert_eq!(world.run().await.state, RunState::Succeeded);
    assert_eq!(world.refusals().await, ["requester"]);
}

#[tokio::test]
async fn strangers_and_viewers_are_told_what_to_do() {
    let world = World::new("approve").await;
    world.alert("api", Firing).await;
    let approval = world.approval().await.id;
    let stranger = world.act("mallory", Verb::Approve { approval }).await;
    assert_eq!(stranger.code, "not_linked");
    assert!(stranger.text.contains("principals"), "{}", stranger.text);
    let viewer = world.act("eve", Verb::Approve { approval }).await;
    assert_eq!(viewer.code, "no_right");
    assert!(viewer.text.contains("sre"), "{}", viewer.text);
    assert_eq!(world.refusals().await, ["not_linked", "no_right"]);
    assert_eq!(world.run().await.state, RunState::AwaitingApproval);
}

#[tokio::test]
async fn an_incident_is_taken_given_back_and_noted() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    let incident = world.incidents().await[0].id;
    assert!(world.act("ann", Verb::Acknowledge { incident }).await.done);
    let second = world.act("bob", Verb::Acknowledge { incident }).await;
    assert_eq!(second.text, "#1 is already acknowledged by ann.");
    assert!(world.act("ann", Verb::Unacknowledge { incident }).await.done);
    assert!(world.act("bob", Verb::Note { incident, text: "looks like\u{202e} DNS".to_owned() }).await.done);
    assert!(world.act("bob", Verb::Resolve { incident }).await.done);
    assert_eq!(world.incidents().await[0].state, IncidentState::Resolved);
    let told = world.timeline().await;
    assert!(told.iter().any(|line| line.contains("looks like")) && !told.iter().any(|line| line.contains('\u{202e}')), "{told:?}");
}

#[tokio::test]
async fn a_denial_ends_it_with_its_reason() {
    let world = World::new("approve").await;
    world.alert("api", Firing).await;
    let approval = world.approval().await.id;
    assert_eq!(world.act("bob", Verb::Deny { approval, reason: "not now".to_owned() }).await.code, "denied");
    let run = world.run().await;
    assert_eq!((run.state, run.reason.as_deref()), (RunState::Refused, Some("denied by bob: not now")));
}
