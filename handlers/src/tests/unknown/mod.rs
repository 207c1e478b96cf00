//! A step whose outcome nobody knows: what is repeated, what is asked, what a person can say, and who may.

mod again;
mod cancelled;
mod restored;

use domain::act::{Act, Identity, Place, Verb};
use domain::action::{ActionError, ActionOutput};
use domain::card::{ButtonKind, Card};
use domain::event::NewEvent;
use domain::event::Status::Firing;
use domain::inbox::Inbox;
use domain::run::{AttemptState, RunState, Settlement};

use super::world::{RULES, World};

async fn unknown(change: &str) -> World {
    let world = World::new("auto").await;
    let text = RULES.replace("MODE", "auto").replace("uses: test.change,", &format!("uses: test.change, {change}"));
    world.reload(&text.replace("bob: { roles: [sre] }", "bob: { roles: [sre], slack: T1/UBOB }"));
    world.script.lock().unwrap().change_fails = Some(ActionError::Unknown("the connection broke".to_owned()));
    world.alert("api", Firing).await;
    world
}

async fn settle(world: &World, who: &str, how: Settlement, reason: &str) -> String {
    let run = world.run().await.id;
    world.script.lock().unwrap().change_fails = None;
    world.act(who, Verb::Settle { run, how, reason: reason.to_owned() }).await.code
}

async fn states(world: &World) -> Vec<AttemptState> {
    let run = world.run().await.id;
    let attempts = world.cx.store.read().await.unwrap().attempts(run).await.unwrap();
    attempts.iter().filter(|attempt| attempt.index == 0).map(|attempt| attempt.state).collect()
}

fn changes(world: &World) -> u32 {
    world.script.lock().unwrap().changes
}

async fn locked(world: &World) -> usize {
    world.cx.store.read().await.unwrap().locked_targets().await.unwrap().len()
}

#[tokio::test]
async fn people_say_what_happened_and_the_run_goes_on_by_it() {
    use AttemptState::{Failed, Succeeded, Unknown};
    for (how, code, state, attempts, carried_out) in [
        (Settlement::Ran, "ran", RunState::Succeeded, vec![Succeeded], 1),
        (Settlement::DidNotRun, "did_not_run", RunState::Failed, vec![Failed], 1),
        (Settlement::Again, "again", RunState::Succeeded, vec![Failed, Succeeded], 2),
        (Settlement::Abort, "aborted", RunState::Failed, vec![Unknown], 1),
    ] {
        let world = unknown("").await;
        assert_eq!((world.run().await.state, locked(&world).await), (RunState::Unknown, 1));
        assert_eq!(settle(&world, "bob", how, "I looked at the host").await, code);
        assert_eq!((world.run().await.state, states(&world).await), (state, attempts), "{how:?}");
        assert_eq!((changes(&world), locked(&world).await), (carried_out, 0), "{how:?}");
        let said = format!("bob says: {} (I looked at the host)", how.label().to_lowercase());
        assert!(world.timeline().await.iter().any(|line| line.contains(&said)), "{:?}", world.timeline().await);
        let rows = world.cx.store.read().await.unwrap().audit_rows(0, 100).await.unwrap();
        let row = rows.into_iter().map(Result::unwrap).find(|row| row.row.action == "settle").unwrap();
        assert_eq!((row.row.actor.as_str(), row.row.reason.as_str()), ("principal:bob", how.as_str()));
        // What is known is not asked again.
        assert_eq!(settle(&world, "ann", how, "me too").await, "already");
    }
}

#[tokio::test]
async fn it_takes_the_right_the_role_of_the_approval_and_a_reason() {
    let text = RULES.replace("MODE", "approve").replace("roles: { sre:", "roles: { junior: [view, approve], sre:");
    let text = text.replace("eve: { roles: [viewer] }", "eve: { roles: [viewer] }\n  jim: { roles: [junior] }");
    let world = World::new("approve").await;
    world.reload(&text);
    world.script.lock().unwrap().change_fails = Some(ActionError::Unknown("the connection broke".to_owned()));
    world.alert("api", Firing).await;
    let approval = world.approval().await.id;
    assert!(world.act("ann", Verb::Approve { approval }).await.done);
    assert_eq!(world.run().await.state, RunState::Unknown);
    assert_eq!(settle(&world, "eve", Settlement::Again, "why not").await, "no_right");
    assert_eq!(settle(&world, "jim", Settlement::Again, "why not").await, "no_role");
    assert_eq!(settle(&world, "ann", Settlement::Again, " \n").await, "no_reason");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Unknown, 1));
    assert_eq!(world.refusals().await, ["no_right", "no_role", "no_reason"]);
    assert_eq!(settle(&world, "ann", Settlement::Again, "nothing was restarted").await, "again");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 2));
}

#[tokio::test]
async fn what_does_no_harm_twice_is_repeated_three_times_and_then_asked() {
    let world = unknown("effect: idempotent,").await;
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Unknown, 3));
    let world = unknown("effect: idempotent, on_unknown: ask,").await;
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Unknown, 1));
}

#[tokio::test]
async fn a_late_result_is_stored_without_the_secrets_in_it() {
    let world = unknown("").await;
    let run = world.run().await;
    let attempt = || async { world.cx.store.read().await.unwrap().attempts(run.id).await.unwrap().remove(0) };
    let secret = "AKIAABCDEFGHIJKLMNOP";
    let output = ActionOutput { summary: format!("key {secret}"), text: format!("done with {secret}"), ..Default::default() };
    crate::journal::found(&world.cx, attempt().await, (AttemptState::Succeeded, Some(output), None), &run.plan.steps[0]).await.unwrap();
    let stored = attempt().await;
    assert_eq!(stored.state, AttemptState::Succeeded);
    let output = stored.output.unwrap();
    assert!(!output.summary.contains(secret) && !output.text.contains(secret), "{output:?}");
    assert!(!world.timeline().await.concat().contains(secret));
}

#[tokio::test]
async fn the_card_asks_with_four_buttons_that_work_on_it_alone() {
    let world = unknown("").await;
    world.pass(5).await;
    let card = world.script.lock().unwrap().cards.last().unwrap().clone();
    let labels: Vec<&str> = card.buttons.iter().take(4).map(|button| button.label.as_str()).collect();
    assert_eq!(labels, ["It ran", "It did not run", "Run it again", "Abort"]);
    assert_eq!(card.automation.len(), 1, "said once: {card:#?}");
    assert!(card.automation[0].contains("api stays locked. Look at it, then say whether it ran"), "{card:#?}");
    world.script.lock().unwrap().change_fails = None;
    assert_eq!(press(&world, &card, ButtonKind::Again, "C1", "m2").await, "forged");
    assert_eq!(press(&world, &card, ButtonKind::Again, "C2", "m1").await, "forged");
    assert_eq!(changes(&world), 1);
    assert_eq!(press(&world, &card, ButtonKind::Again, "C1", "m1").await, "again");
    assert_eq!((world.run().await.state, changes(&world)), (RunState::Succeeded, 2));
    assert_eq!(press(&world, &card, ButtonKind::Again, "C1", "m1").await, "already");
    assert_eq!(changes(&world), 2);
}

async fn press(world: &World, card: &Card, kind: ButtonKind, channel: &str, message: &str) -> String {
    let token = card.buttons.iter().find(|button| button.kind == kind).unwrap().token.clone();
    let actor = Identity {
        platform: "slack".to_owned(),
        workspace: "T1".to_owned(),
        user: "UBOB".to_owned(),
        display: "bob".to_owned(),
        barred: None,
    };
    let run = world.run().await.id;
    let verb = Verb::Settle { run, how: kind.settlement().unwrap(), reason: "I looked".to_owned() };
    let place = Some(Place { channel: channel.to_owned(), message: message.to_owned() });
    let act = Act { actor, verb, button: Some(token), place, reply: None };
    let unique = domain::id::uuid_at(world.now()).to_string();
    let seq = world.accept(NewEvent::act("slack", &unique, act)).await;
    world.worker.settle().await.unwrap();
    world.cx.store.outcome(seq, std::time::Duration::ZERO).await.unwrap().unwrap().code
}

/// A run whose first attempt failed and whose second waits.
async fn between_attempts() -> World {
    let world = World::new("auto").await;
    world.reload(&RULES.replace("MODE", "auto").replace("uses: test.change,", "uses: test.change, retry: { attempts: 3, delay: 10m },"));
    world.script.lock().unwrap().change_fails = Some(ActionError::Failed("no".to_owned()));
    world.alert("api", Firing).await;
    assert_eq!((world.run().await.state, changes(&world), locked(&world).await), (RunState::Running, 1, 1));
    world.script.lock().unwrap().change_fails = None;
    world
}
