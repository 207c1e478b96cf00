//! Presses, questions, dialogs, commands and completions over HTTP; who is believed, and what is said when something was not stored.

use super::*;

#[tokio::test]
async fn the_endpoint_would_be_accepted() {
    let world = world().await;
    world.fake.verify_endpoint(&world.url).await.unwrap();
    assert_eq!(world.inbox.acts(), []);
}

#[tokio::test]
async fn a_press_is_stored_before_discord_is_answered() {
    let world = world().await;
    let seen = world.asked().await;
    let outcome = world.fake.click(ANN, &seen, "Unacknowledge", &world.url).await.unwrap();
    assert_eq!(outcome.interaction.response_type(), Some(6));
    let act = world.inbox.act();
    assert_eq!(act.verb, Verb::Unacknowledge { incident: incident() });
    assert_eq!(act.place, Some(place(&seen)));
    assert_eq!(act.button.as_deref(), Some(seen.buttons()[2].custom_id.as_str()));
    let actor = &act.actor;
    assert_eq!((actor.platform.as_str(), actor.workspace.as_str(), actor.user.as_str()), ("discord", "1100000000000000100", ANN));
    assert_eq!((actor.display.as_str(), actor.barred), ("ann", None));
    let delivery = world.inbox.deliveries().remove(0);
    assert_eq!((delivery.source.as_str(), delivery.raw.len()), ("chat", 0), "no tokens are kept");
    world.nothing_refused();
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_asked_twice() {
    let world = world().await;
    let seen = world.asked().await;
    let first = world.fake.click(ANN, &seen, "Approve", &world.url).await.unwrap();
    assert_eq!(world.inbox.acts(), [], "the question is no act");
    let question = first.interaction.original().unwrap();
    assert_eq!(question.only_for.as_deref(), Some(ANN));
    assert!(question.visible_text().starts_with("Really approve?"), "{}", question.visible_text());

    world.fake.click(ANN, &question, "Cancel", &world.url).await.unwrap();
    let cancelled = world.fake.current(&question).unwrap();
    assert_eq!((cancelled.visible_text().as_str(), cancelled.buttons().len()), ("Cancelled: nothing was done.", 0));
    assert_eq!(world.inbox.acts(), []);

    world.fake.click(ANN, &question, "Confirm", &world.url).await.unwrap();
    let act = world.inbox.act();
    assert_eq!(act.verb, Verb::Approve { approval: approval() });
    assert_eq!(act.place, Some(place(&seen)), "the place is the card, not the question");
    assert_eq!(act.button.as_deref(), seen.buttons()[0].custom_id.strip_prefix('?'));
    world.discord.reply(&act.reply.unwrap(), &ActOutcome::done("approved", "Approved.")).await.unwrap();
    world.fake.wait_for_ephemeral(ANN, |message| message.visible_text() == "Approved.", SOON).await.unwrap();
    world.nothing_refused();
}

#[tokio::test]
async fn denying_asks_why_first() {
    let world = world().await;
    let seen = world.asked().await;
    let opened = world.fake.click(ANN, &seen, "Deny", &world.url).await.unwrap();
    let modal = opened.interaction.modal().unwrap();
    assert_eq!(modal.title, "Deny the run");
    assert_eq!(world.inbox.acts(), [], "the dialog is no act");
    let submitted = world.fake.submit_modal(ANN, &modal, &[("Why?", " deploying **now** @here ")], &world.url).await.unwrap();
    assert_eq!(submitted.interaction.response_type(), Some(6));
    let act = world.inbox.act();
    assert_eq!(act.verb, Verb::Deny { approval: approval(), reason: "deploying **now** @here".to_owned() });
    assert_eq!((act.place, act.button.as_deref()), (Some(place(&seen)), Some(seen.buttons()[1].custom_id.as_str())));
    world.discord.reply(&act.reply.unwrap(), &ActOutcome::done("denied", "Denied.")).await.unwrap();
    world.fake.wait_for_ephemeral(ANN, |message| message.visible_text() == "Denied.", SOON).await.unwrap();
    let blank = world.fake.submit_modal(ANN, &modal, &[("Why?", "  ")], &world.url).await.unwrap();
    assert!(blank.interaction.original().unwrap().visible_text().contains("Say why"));
    assert_eq!(world.inbox.acts().len(), 1);
    world.nothing_refused();
}

#[tokio::test]
async fn only_discord_is_heard() {
    let world = world().await;
    let seen = world.asked().await;
    let click = || world.fake.click(ANN, &seen, "Unacknowledge", &world.url);
    for (outcome, what) in [
        (click().forged().await.unwrap(), "forged"),
        (click().unsigned().await.unwrap(), "unsigned"),
        (click().aged(Duration::from_secs(6 * 60)).await.unwrap(), "replayed"),
    ] {
        assert_eq!(outcome.reply.status, 401, "{what}");
    }
    let broken = click().with(|payload| *payload = json!({"id": "1", "token": "t", "type": 77})).await.unwrap();
    assert_eq!(broken.reply.status, 400);
    assert_eq!(world.inbox.acts(), []);
}

#[tokio::test]
async fn bots_and_strangers_are_marked() {
    let world = world().await;
    let seen = world.asked().await;
    world.fake.click(ANN, &seen, "Unacknowledge", &world.url).of_guild("1100000000000000999").await.unwrap();
    world.fake.click(ROBO, &seen, "Unacknowledge", &world.url).await.unwrap();
    let dm = |payload: &mut serde_json::Value| {
        payload["user"] = payload["member"]["user"].take();
        for gone in ["member", "guild_id", "guild"] {
            payload.as_object_mut().unwrap().remove(gone);
        }
    };
    world.fake.click(ANN, &seen, "Unacknowledge", &world.url).with(dm).await.unwrap();
    let barred: Vec<_> = world.inbox.acts().into_iter().map(|act| act.actor.barred).collect();
    assert_eq!(barred, [Some(Barred::Stranger), Some(Barred::Bot), Some(Barred::Stranger)], "stored, so that the refusal is on record");
}

#[tokio::test]
async fn the_same_press_heard_twice_is_one_act() {
    let world = world().await;
    let seen = world.asked().await;
    let signed = world.fake.click(ANN, &seen, "Unacknowledge", &world.url).sign().unwrap();
    for _ in 0..2 {
        assert_eq!(signed.send().await.unwrap().reply.status, 200);
    }
    assert_eq!((world.inbox.deliveries().len(), world.inbox.acts().len()), (2, 1));
}

#[tokio::test]
async fn what_was_not_stored_is_said() {
    for hangs in [false, true] {
        let world = world().await;
        world.discord.register_commands().await.unwrap();
        let seen = world.asked().await;
        *world.inbox.hangs.lock().unwrap() = hangs;
        *world.inbox.broken.lock().unwrap() = Some(InboxError::Overloaded);
        let pressed = world.fake.click(ANN, &seen, "Unacknowledge", &world.url).await.unwrap();
        assert!(pressed.reply.took < Duration::from_millis(2_900), "{:?}", pressed.reply.took);
        let typed = world.fake.command(ANN, OPS, "incident ack", &[("number", json!(142))], &world.url).await.unwrap();
        for outcome in [pressed, typed] {
            let told = outcome.interaction.original().unwrap();
            assert_eq!(told.only_for.as_deref(), Some(ANN));
            assert!(told.visible_text().contains("Not recorded"), "{}", told.visible_text());
        }
        assert_eq!(world.inbox.acts(), []);
        world.nothing_refused();
    }
}

#[tokio::test]
async fn commands_become_acts_or_answers() {
    let world = world().await;
    world.discord.register_commands().await.unwrap();
    world.discord.register_commands().await.unwrap();
    let command = async |line: &str, options: &[(&str, serde_json::Value)]| world.fake.command(ANN, OPS, line, options, &world.url).await.unwrap();
    for (line, options) in [
        ("incident ack", vec![("number", json!(142))]),
        ("incident note", vec![("number", json!(7)), ("text", json!("all  good"))]),
        ("runbook run", vec![("name", json!("restart-service")), ("incident", json!(142)), ("params", json!("target=api why=\"a b\""))]),
        ("automation pause", vec![("reason", json!("db move"))]),
    ] {
        let outcome = command(line, &options).await;
        assert_eq!(outcome.interaction.response_type(), Some(5), "{line}");
        assert_eq!(outcome.interaction.response().unwrap()["data"]["flags"], 64);
    }
    let verbs: Vec<Verb> = world.inbox.acts().into_iter().map(|act| act.verb).collect();
    let serde_json::Value::Object(params) = json!({"target": "api", "why": "a b"}) else { unreachable!() };
    assert_eq!(
        verbs,
        [
            Verb::Acknowledge { incident: incident() },
            Verb::Note { incident: incident(), text: "all  good".to_owned() },
            Verb::Run { incident: Some(incident()), runbook: "restart-service".to_owned(), params },
            Verb::Pause { paused: true, reason: "db move".to_owned() },
        ]
    );
    let to = world.inbox.acts().remove(0).reply.unwrap();
    world.discord.reply(&to, &ActOutcome::done("acknowledged", "You have #142.")).await.unwrap();
    world.fake.wait_for_ephemeral(ANN, |message| message.visible_text() == "You have #142.", SOON).await.unwrap();

    for (line, options, part) in [
        ("incident list", vec![], "#142 Service <!channel> down\n#7 Disk filling"),
        ("incident show", vec![("number", json!(3))], "#3 is over"),
        ("incident ack", vec![("number", json!(9))], "There is no incident #9"),
        ("runbook list", vec![], "clear-cache"),
        ("runbook run", vec![("name", json!("x")), ("params", json!("y"))], "takes only"),
    ] {
        let told = command(line, &options).await.interaction.original().unwrap();
        assert!(told.visible_text().contains(part) && told.only_for.is_some(), "{}", told.visible_text());
    }
    assert_eq!(world.inbox.acts().len(), 4, "what only reads is not stored");
    let stranger = world.fake.command(ANN, OPS, "incident list", &[], &world.url).of_guild("1100000000000000999").await.unwrap();
    assert!(stranger.interaction.original().unwrap().visible_text().contains("Only full members"));
    world.nothing_refused();
}

#[tokio::test]
async fn half_typed_options_are_completed() {
    let world = world().await;
    world.discord.register_commands().await.unwrap();
    let complete = async |line: &str, focused: (&str, &str)| world.fake.autocomplete(ANN, OPS, line, focused, &world.url).await.unwrap().interaction.choices();
    assert_eq!(complete("incident ack", ("number", "14")).await, [("#142 Service <!channel> down".to_owned(), json!(142))]);
    assert_eq!(complete("runbook run", ("incident", "#7")).await, [("#7 Disk filling".to_owned(), json!(7))]);
    assert_eq!(complete("runbook run", ("name", "re")).await, [("restart-service".to_owned(), json!("restart-service"))]);
    let stranger = world.fake.autocomplete(ANN, OPS, "incident ack", ("number", ""), &world.url).of_guild("1100000000000000999").await.unwrap();
    assert_eq!(stranger.interaction.choices(), []);
    world.nothing_refused();
}

#[tokio::test]
async fn unknown_buttons_are_said() {
    let world = world().await;
    let seen = world.asked().await;
    for id in ["approve.nothing.x", "?approve.nothing.x", "!1:approve.nothing.x", "!", "", "y"] {
        let odd = world.fake.click(ANN, &seen, "Unacknowledge", &world.url).with(|payload| payload["data"]["custom_id"] = json!(id));
        let told = odd.await.unwrap().interaction.original().unwrap();
        assert!(told.visible_text().contains("does not know this button"), "{id}: {}", told.visible_text());
    }
    assert_eq!(world.inbox.acts(), []);
}
