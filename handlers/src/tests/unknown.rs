//! A step whose outcome nobody knows: what is repeated, what is asked, what a person can say, and who may.

use domain::act::{Act, Identity, Place, Verb};
use domain::action::{ActionError, ActionOutput};
use domain::approval::ApprovalState;
use domain::card::{ButtonKind, Card};
use domain::event::NewEvent;
use domain::event::Status::Firing;
use domain::inbox::Inbox;
use domain::run::{Attempt, AttemptState, RunState, Settlement};

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
        let row = rows.iter().find(|row| row.row.action == "settle").unwrap();
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
    let run = world.run().await;
    let attempt = || async { world.cx.store.read().await.unwrap().attempts(run.id).await.unwrap().remove(0) };
    let output = ActionOutput { summary: "exited with 0".to_owned(), text: "done".to_owned(), ..Default::default() };
    let told = (AttemptState::Succeeded, Some(output.clone()), None);
    crate::journal::found(&world.cx, attempt().await, told, &run.plan.steps[0]).await.unwrap();
    world.pass(60).await;
    let (now, kept) = (world.run().await, attempt().await);
    assert_eq!((now.state, kept.state, kept.output, changes(&world)), (RunState::Unknown, AttemptState::Unknown, Some(output), 1));
    for text in [now.reason.unwrap(), kept.error.unwrap(), world.timeline().await.concat()] {
        assert!(text.contains("it was heard that change succeeded: exited with 0"), "{text}");
    }
    assert_eq!(settle(&world, "bob", Settlement::Ran, "so it says").await, "ran");
    assert_eq!((world.run().await.state, locked(&world).await), (RunState::Succeeded, 0));
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
