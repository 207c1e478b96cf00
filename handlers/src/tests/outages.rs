//! What a chat platform does not take: cards come all the same, later, and nothing knocks all the time meanwhile.

use domain::act::{Act, Identity, Place, ReplyTo, Verb};
use domain::card::Message;
use domain::chat::ChatError;
use domain::event::NewEvent;
use domain::event::Status::{Firing, Resolved};
use domain::incident::IncidentState;
use domain::job::{NewJob, Urgency};
use serde_json::json;

use super::world::{RULES, Script, World};

const OPS: &str = "{ ops: { platform: slack, id: C1 } }";

impl World {
    fn answer(&self, error: Option<ChatError>) {
        self.script.lock().unwrap().answers = error;
    }

    fn look<T>(&self, read: impl Fn(&Script) -> T) -> T {
        read(&self.script.lock().unwrap())
    }

    async fn card(&self) -> Option<store::CardPost> {
        let incident = self.incidents().await[0].id;
        self.cx.store.read().await.unwrap().card(incident, "ops").await.unwrap()
    }

    async fn depths(&self) -> store::Depths {
        self.cx.store.read().await.unwrap().depths().await.unwrap()
    }

    /// The card shows the incident as it is.
    async fn is_current(&self) -> bool {
        let version = self.incidents().await[0].version;
        self.card().await.is_some_and(|card| card.posted_version == version)
    }
}

fn away() -> Option<ChatError> {
    Some(ChatError::Retry("it cannot be reached".to_owned()))
}

fn refused() -> Option<ChatError> {
    Some(ChatError::Refused("the token is not valid any more".to_owned()))
}

#[tokio::test]
async fn cards_outlive_an_outage_of_forty_minutes() {
    let world = World::new("approve").await;
    world.answer(away());
    world.alert("api", Firing).await;
    let knocks = world.pass_slowly(40 * 60).await;
    assert!(knocks < 400, "{knocks} jobs carried out, and most of them calls");
    assert!(world.look(|script| script.calls) < 300, "{}", world.look(|script| script.calls));
    assert_eq!((world.depths().await.jobs_dead, world.depths().await.cards_late), (0, 1));
    world.answer(None);
    world.pass_slowly(90).await;
    assert!(world.is_current().await, "the card is there");
    assert_eq!(world.look(|script| script.posts.len()), 1);
    assert!(world.look(|script| script.thread.iter().any(|line| line.contains("Opened"))), "and so is what its thread tells");
    assert_eq!(world.depths().await.cards_late, 0);

    // The end comes while nobody can be told.
    world.answer(away());
    world.alert("api", Resolved).await;
    world.pass_slowly(40 * 60).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Resolved);
    world.answer(None);
    world.pass_slowly(90).await;
    assert_eq!(world.look(|script| script.cards.last().unwrap().state), IncidentState::Resolved, "the final state arrives");
    assert!(world.look(|script| script.thread.last().unwrap().starts_with("Resolved")), "{:?}", world.look(|script| script.thread.clone()));
    assert_eq!(world.depths().await.jobs_dead, 0);
}

#[tokio::test]
async fn a_card_that_was_refused_for_an_hour_comes_when_it_is_taken() {
    let world = World::new("observe").await;
    world.answer(refused());
    world.alert("api", Firing).await;
    let jobs = world.pass_slowly(3600).await;
    assert!(jobs < 80, "{jobs} jobs carried out: one a minute, and none for a thread that is not there");
    assert!((30..80).contains(&world.look(|script| script.calls)), "{}", world.look(|script| script.calls));
    assert_eq!((world.depths().await.jobs_dead, world.depths().await.cards_late), (0, 1), "it shows");
    world.answer(None);
    world.pass_slowly(70).await;
    assert!(world.is_current().await);
    assert_eq!(world.look(|script| script.posts.len()), 1);
    assert!(world.look(|script| script.thread.iter().any(|line| line.contains("Opened"))), "its thread begins with it");
    assert_eq!((world.depths().await.jobs_waiting, world.depths().await.cards_late), (0, 0));

    // A card that stands is refused its final state.
    world.answer(refused());
    world.alert("api", Resolved).await;
    world.pass_slowly(1200).await;
    world.answer(None);
    world.pass_slowly(70).await;
    assert_eq!(world.look(|script| script.cards.last().unwrap().state), IncidentState::Resolved);
}

#[tokio::test]
async fn a_card_of_an_incident_that_was_closed_long_ago_is_given_up() {
    let world = World::new("observe").await;
    world.answer(refused());
    world.alert("api", Firing).await;
    let incident = world.incidents().await[0].id;
    assert!(world.act("ann", Verb::Close { incident }).await.done);
    for _ in 0..7 {
        world.pass(24 * 3600).await;
    }
    assert_eq!(world.depths().await.jobs_dead, 0);
    world.pass(60).await;
    assert_eq!((world.depths().await.jobs_dead, world.depths().await.jobs_waiting), (1, 0));
    // Every start tries once more.
    world.answer(None);
    world.worker.first_rounds().await.unwrap();
    world.pass(2).await;
    assert_eq!((world.look(|script| script.posts.len()), world.depths().await.jobs_dead), (1, 0));
    assert!(world.is_current().await);
}

/// The post went through and its answer did not: what it shows is what was true then.
#[tokio::test]
async fn a_post_that_is_found_shows_the_newest_state_at_once() {
    let world = World::new("observe").await;
    world.script.lock().unwrap().answers_lost = 1;
    world.alert("api", Firing).await;
    world.alert("api", Resolved).await;
    world.pass(10).await;
    assert_eq!(world.look(|script| (script.posts.len(), script.looks)), (1, 1));
    assert!(world.look(|script| script.cards.last().unwrap().alerts.iter().all(|alert| !alert.active)), "it still shows a firing alert");
    assert!(world.is_current().await);
}

/// A channel's id changes: what stands in the old one goes on, and people can press its buttons.
#[tokio::test]
async fn a_standing_card_keeps_its_place_when_the_channels_id_changes() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    world.pass(5).await;
    world.reload(&RULES.replace("MODE", "observe").replace(OPS, "{ ops: { platform: slack, id: C2 } }"));
    let incident = world.incidents().await[0].id;
    assert!(world.act("ann", Verb::Acknowledge { incident }).await.done);
    world.pass(10).await;
    assert!(world.is_current().await);
    assert_eq!(world.look(|script| script.edited_at.last().unwrap().channel.clone()), "C1");
    let card = world.look(|script| script.cards.last().unwrap().clone());
    assert!(!card.buttons.is_empty());
    for button in &card.buttons {
        assert!(world.cx.buttons.check(&button.token, "slack", "C1").is_some(), "{} cannot be pressed where it stands", button.label);
    }
    // A new card goes to the new place.
    world.alert("web", Firing).await;
    let incident = world.incidents().await[1].id;
    let new = world.cx.store.read().await.unwrap().card(incident, "ops").await.unwrap().unwrap();
    assert_eq!(new.channel_id, "C2");
    let card = world.look(|script| script.cards.last().unwrap().clone());
    assert!(card.buttons.iter().all(|button| world.cx.buttons.check(&button.token, "slack", "C2").is_some()));

    // The old channel takes nothing any more: the card is posted anew where the configuration says.
    world.answer(refused());
    world.alert("api", Resolved).await;
    world.pass(1).await;
    world.answer(None);
    world.pass(120).await;
    let card = world.card().await.unwrap();
    assert_eq!((card.channel_id.as_str(), world.look(|script| script.posts.len())), ("C2", 3));
    assert!(world.is_current().await);
}

/// A channel that the configuration does not name any more, and names again later.
#[tokio::test]
async fn a_card_without_a_channel_waits_for_it_and_a_standing_one_needs_none() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    let none = RULES.replace("MODE", "observe").replace(OPS, "{ all: { platform: slack, id: C9 } }").replace("[ops]", "[all]");
    world.reload(&none);
    world.alert("api", Resolved).await;
    world.pass(130).await;
    assert_eq!(world.look(|script| script.cards.last().unwrap().state), IncidentState::Resolved);

    let world = World::new("observe").await;
    world.store_only(world.sighting("api", Firing)).await;
    crate::deciding::decide(&world.cx).await.unwrap();
    world.reload(&none);
    let jobs = world.pass_slowly(1200).await;
    assert!(jobs < 10, "{jobs}");
    assert_eq!((world.look(|script| script.posts.len()), world.depths().await.jobs_dead), (0, 0));
    world.reload(&RULES.replace("MODE", "observe"));
    world.pass_slowly(310).await;
    assert!(world.is_current().await);
}

/// An answer is worth something for minutes, a message for a day.
#[tokio::test]
async fn a_late_answer_is_dropped_and_a_late_message_is_not() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    world.answer(away());
    let incident = world.incidents().await[0].id;
    let actor =
        Identity { platform: "slack".to_owned(), workspace: "T1".to_owned(), user: "U9".to_owned(), display: "x".to_owned(), barred: None };
    let place = Place { channel: "C1".to_owned(), message: "m1".to_owned() };
    let reply = ReplyTo { platform: "slack".to_owned(), token: "t".to_owned() };
    let act = Act { actor, verb: Verb::Acknowledge { incident }, button: None, place: Some(place), reply: Some(reply) };
    world.accept(NewEvent::act("chat", "one", act)).await;
    let message = Message { text: "done".to_owned(), block: None, at: world.now() };
    let job = NewJob {
        kind: "chat.message",
        key: "k".to_owned(),
        due_at: world.now(),
        urgency: Urgency::Tell,
        payload: json!({ "channel": "ops", "message": message }),
    };
    let mut tx = world.cx.store.begin().await.unwrap();
    tx.enqueue(&[job]).await.unwrap();
    tx.commit().await.unwrap();
    world.pass_slowly(16 * 60).await;
    world.answer(None);
    world.pass_slowly(90).await;
    assert_eq!(world.look(|script| (script.replies.len(), script.messages.len())), (0, 1));
    assert_eq!(world.depths().await.jobs_dead, 0);
}
