//! Who may ask for what; every refusal is audited.

use domain::act::{Act, ActOutcome, Identity, Place, Verb};
use domain::card::ButtonKind;
use domain::event::NewEvent;
use domain::event::Status::Firing;
use domain::id::IncidentId;
use domain::inbox::Inbox;
use domain::incident::IncidentState;
use domain::run::RunState;

use super::world::{RULES, World};

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

impl World {
    /// Ann presses Acknowledge on a message, and that is decided; jobs wait.
    async fn acknowledge_at(&self, incident: IncidentId, message: &str) -> ActOutcome {
        let actor = Identity {
            platform: "slack".to_owned(),
            workspace: "T1".to_owned(),
            user: "U1".to_owned(),
            display: "ann".to_owned(),
            barred: None,
        };
        let button = self.cx.buttons.sign(ButtonKind::Acknowledge, incident.0, "slack", "C1");
        let place = Place { channel: "C1".to_owned(), message: message.to_owned() };
        let act = Act { actor, verb: Verb::Acknowledge { incident }, button: Some(button), place: Some(place), reply: None };
        let seq = self.accept(NewEvent::act("chat", &domain::id::uuid_at(self.now()).to_string(), act)).await;
        crate::deciding::decide(&self.cx).await.unwrap();
        self.cx.store.outcome(seq, std::time::Duration::ZERO).await.unwrap().unwrap()
    }
}

/// The platform shows a card before its answer to the post arrives, and people are quick.
#[tokio::test]
async fn a_press_before_the_cards_place_is_stored_counts_and_afterwards_only_there() {
    let world = World::new("observe").await;
    world.reload(&RULES.replace("MODE", "observe").replace("ann: { roles: [sre] }", "ann: { roles: [sre], slack: T1/U1 }"));
    world.store_only(world.sighting("api", Firing)).await;
    crate::deciding::decide(&world.cx).await.unwrap();
    let incident = world.incidents().await[0].id;
    let early = world.acknowledge_at(incident, "m1").await;
    assert!(early.done, "{early:?}");
    world.worker.settle().await.unwrap();
    assert_eq!(world.acknowledge_at(incident, "m9").await.code, "forged");
    assert_eq!(world.acknowledge_at(incident, "m1").await.code, "already");
    let unknown = IncidentId::new(world.now());
    assert_eq!(world.acknowledge_at(unknown, "m1").await.code, "forged", "the card of another incident");
}
