//! Presses, dialogs, commands and greetings; who is believed, and what is said when something was not stored.

use super::*;

#[tokio::test]
async fn a_press_is_stored_before_slack_is_answered() {
    let world = world().await;
    let seen = world.asked().await;
    let reply = world.fake.click(ANN, &seen, "Unacknowledge", &world.interactions).await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    let act = world.inbox.act();
    assert_eq!(act.verb, Verb::Unacknowledge { incident: incident() });
    assert_eq!(act.place, Some(place(&seen)));
    assert_eq!(act.button.as_deref(), Some(seen.buttons()[2].value.as_str()));
    let actor = &act.actor;
    assert_eq!((actor.platform.as_str(), actor.workspace.as_str(), actor.user.as_str(), actor.display.as_str()), ("slack", "T0WATCH01", ANN, "ann"));
    assert_eq!(actor.barred, None);
    let delivery = world.inbox.deliveries().remove(0);
    assert_eq!((delivery.source.as_str(), delivery.raw.len()), ("chat", 0), "no tokens are kept");
    world.nothing_refused();
}

#[tokio::test]
async fn grave_acts_ask_slack_who_it_is_at_most_once_in_five_minutes() {
    let world = world().await;
    let seen = world.asked().await;
    for _ in 0..3 {
        world.fake.click(ANN, &seen, "Approve", &world.interactions).await.unwrap();
    }
    assert_eq!(world.inbox.acts().len(), 3, "three presses are three acts; which counts is not decided here");
    assert_eq!(world.inbox.acts()[0].verb, Verb::Approve { approval: approval() });
    assert_eq!(world.fake.calls_of("users.info").len(), 1);
    for (user, barred) in [("U0GUEST01", Barred::Guest), ("U0ROBOT01", Barred::Bot), ("U0OTHER01", Barred::Stranger)] {
        world.fake.click(user, &seen, "Approve", &world.interactions).await.unwrap();
        assert_eq!(world.inbox.acts().last().unwrap().actor.barred, Some(barred), "{user}");
    }
}

#[tokio::test]
async fn without_an_answer_from_slack_nothing_grave_happens() {
    for fault in [Fault::Status(500), Fault::Hang(SOON), Fault::Answer(200, json!({"ok": false, "error": "missing_scope"}))] {
        let world = world().await;
        let seen = world.asked().await;
        world.fake.fail("users.info", fault, 2);
        let reply = world.fake.click(ANN, &seen, "Approve", &world.interactions).await.unwrap();
        assert_eq!(reply.status, 503);
        world.whispered(ANN, "could not confirm").await;
        let reply = world.fake.click(ANN, &seen, "Unacknowledge", &world.interactions).await.unwrap();
        assert_eq!(reply.status, 200, "what does no harm is stored all the same");
        assert_eq!(world.inbox.act().verb, Verb::Unacknowledge { incident: incident() });
    }
}

#[tokio::test]
async fn what_was_not_stored_is_said() {
    for hangs in [false, true] {
        let world = world().await;
        let seen = world.asked().await;
        *world.inbox.hangs.lock().unwrap() = hangs;
        *world.inbox.broken.lock().unwrap() = Some(InboxError::Unavailable("disk full".to_owned()));
        let reply = world.fake.click(ANN, &seen, "Unacknowledge", &world.interactions).await.unwrap();
        assert_eq!(reply.status, 503, "Slack marks the press as failed");
        assert!(reply.took < Duration::from_millis(2_900), "{:?}", reply.took);
        world.whispered(ANN, "Not recorded").await;
        let reply = world.fake.command(ANN, OPS, "/incident", "ack 142", &world.commands).await.unwrap();
        assert!(reply.is_ok() && reply.body.contains("Not recorded"), "{}", reply.body);
        assert_eq!(world.inbox.acts(), []);
    }
}

#[tokio::test]
async fn only_slack_is_heard() {
    let world = world().await;
    let seen = world.asked().await;
    let click = || world.fake.click(ANN, &seen, "Approve", &world.interactions);
    for (reply, what) in [
        (click().forged().await.unwrap(), "forged"),
        (click().unsigned().await.unwrap(), "unsigned"),
        (click().aged(Duration::from_secs(6 * 60)).await.unwrap(), "replayed"),
        (world.fake.command(ANN, OPS, "/incident", "ack 142", &world.commands).forged().await.unwrap(), "forged command"),
        (world.fake.url_verification(&world.events).unsigned().await.unwrap(), "unsigned greeting"),
    ] {
        assert_eq!(reply.status, 401, "{what}");
    }
    assert_eq!(world.inbox.acts(), []);
    let reply = click().of_team("T0OTHER01").await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(world.inbox.act().actor.barred, Some(Barred::Stranger), "stored, so that the refusal is on record");
}

#[tokio::test]
async fn the_same_press_heard_twice_is_one_act() {
    let world = world().await;
    let seen = world.asked().await;
    let signed = world.fake.click(ANN, &seen, "Approve", &world.interactions).sign().unwrap();
    for _ in 0..2 {
        assert_eq!(signed.send().await.unwrap().status, 200);
    }
    assert_eq!(world.inbox.deliveries().len(), 2);
    assert_eq!(world.inbox.acts().len(), 1);
}

#[tokio::test]
async fn denying_asks_why_first() {
    let world = world().await;
    let seen = world.asked().await;
    let reply = world.fake.click(ANN, &seen, "Deny", &world.interactions).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(world.inbox.acts(), [], "the dialog is no act");
    let view = world.fake.wait_for_view(ANN, SOON).await.unwrap();
    assert_eq!(view.title(), "Deny the run");

    world.fake.fail("users.info", Fault::Status(500), 1);
    let reply = world.fake.submit_view(ANN, &view.id, &[("Why?", "not now")], &world.interactions).await.unwrap();
    assert_eq!(reply.json()["response_action"], "errors");
    assert!(world.fake.view(&view.id).unwrap().errors["reason"].contains("could not confirm"), "the dialog stays open");

    world.fake.submit_view(ANN, &view.id, &[("Why?", "  deploying *now* <!here>\n")], &world.interactions).await.unwrap();
    assert!(!world.fake.view(&view.id).unwrap().open);
    let act = world.inbox.act();
    assert_eq!(act.verb, Verb::Deny { approval: approval(), reason: "deploying *now* <!here>".to_owned() });
    assert_eq!((act.place, act.button), (Some(place(&seen)), Some(seen.buttons()[1].value.clone())));
    world.slack.reply(&act.reply.unwrap(), &ActOutcome::done("denied", "Denied.")).await.unwrap();
    world.whispered(ANN, "Denied.").await;
    world.nothing_refused();
}

#[tokio::test]
async fn a_dialog_that_does_not_open_is_said() {
    let world = world().await;
    let seen = world.asked().await;
    world.fake.fail("views.open", Fault::Status(500), 1);
    world.fake.click(ANN, &seen, "Deny", &world.interactions).await.unwrap();
    world.whispered(ANN, "could not open the dialog").await;
}

#[tokio::test]
async fn commands_become_acts_or_answers() {
    let world = world().await;
    let command = async |name: &str, text: &str| world.fake.command(ANN, OPS, name, text, &world.commands).await.unwrap();
    for (name, text) in [("/incident", "ack #142"), ("/incident", "note 7 all good"), ("/runbook", "run restart-service #142 target=api"), ("/automation", "pause db move")] {
        let reply = command(name, text).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{name} {text}");
    }
    let verbs: Vec<Verb> = world.inbox.acts().into_iter().map(|act| act.verb).collect();
    let serde_json::Value::Object(params) = json!({"target": "api"}) else { unreachable!() };
    assert_eq!(
        verbs,
        [
            Verb::Acknowledge { incident: incident() },
            Verb::Note { incident: incident(), text: "all good".to_owned() },
            Verb::Run { incident: Some(incident()), runbook: "restart-service".to_owned(), params },
            Verb::Pause { paused: true, reason: "db move".to_owned() },
        ]
    );
    assert!(world.inbox.acts().iter().all(|act| act.reply.is_some() && act.place.is_none()));

    for (name, text, part) in [
        ("/incident", "list", "#142 Service <!channel> down\n#7 Disk filling"),
        ("/incident", "show 142", "#142 Service <!channel> down"),
        ("/incident", "show 3", "#3 is over"),
        ("/incident", "ack 9", "There is no incident #9"),
        ("/incident", "acknowlege 142", "has no verb"),
        ("/incident", "akc 142", "Did you mean /incident ack 142?"),
        ("/incident", "", "/incident note 142"),
        ("/runbook", "list", "clear-cache"),
    ] {
        command(name, text).await;
        let shown = world.fake.wait_for_ephemeral(ANN, |message| message.visible_text().contains(part), SOON).await.unwrap();
        assert_eq!(shown.mentions(), []);
    }
    assert_eq!(world.inbox.acts().len(), 4, "what only reads is not stored");
    let reply = world.fake.command("U0GUEST01", OPS, "/incident", "list", &world.commands).await.unwrap();
    assert!(reply.body.contains("Only full members") && !reply.body.contains("142"), "{}", reply.body);
    world.nothing_refused();
}

#[tokio::test]
async fn greetings_are_answered_and_nonsense_is_not() {
    let world = world().await;
    let reply = world.fake.url_verification(&world.events).await.unwrap();
    assert_eq!(reply.json()["challenge"], "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
    let event = world.fake.event(&json!({"type": "app_mention", "text": "hi"}), &world.events).await.unwrap();
    assert_eq!((event.status, event.body.as_str()), (200, ""));

    let seen = world.asked().await;
    let forged = world.fake.click(ANN, &seen, "Approve", &world.interactions).with(|payload| payload["actions"][0]["value"] = json!("approve.nothing.x"));
    assert_eq!(forged.await.unwrap().status, 200);
    world.whispered(ANN, "does not know this button").await;
    let odd = world.fake.click(ANN, &seen, "Approve", &world.interactions).with(|payload| *payload = json!({"type": "message_action", "user": {"id": ANN}}));
    assert_eq!(odd.await.unwrap().status, 200);
    let broken = world.fake.click(ANN, &seen, "Approve", &world.interactions).with(|payload| *payload = json!([1]));
    assert_eq!(broken.await.unwrap().status, 400);
    assert_eq!(world.inbox.acts(), []);
}
