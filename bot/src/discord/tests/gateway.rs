//! The same over the gateway, through losses and with an event that serenity cannot read.

use harness::fake::discord::Target;
use tokio_util::sync::CancellationToken;

use super::*;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn presses_commands_and_dialogs_are_heard() {
    let world = world().await;
    world.discord.register_commands().await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(world.discord.clone().run_gateway(stop.clone()));
    world.fake.wait_for_sessions(1, LONG).await.unwrap();
    let seen = world.asked().await;

    let pressed = world.fake.click(ANN, &seen, "Unacknowledge", Target::Gateway).await.unwrap();
    assert_eq!(pressed.interaction.response_type(), Some(6));
    let act = world.inbox.act();
    assert_eq!((act.verb, act.place), (Verb::Unacknowledge { incident: incident() }, Some(place(&seen))));
    assert_eq!((act.actor.user.as_str(), act.actor.barred), (ANN, None));
    world.discord.reply(&act.reply.unwrap(), &ActOutcome::done("x", "Given back.")).await.unwrap();

    let opened = world.fake.click(ANN, &seen, "Deny", Target::Gateway).await.unwrap();
    let modal = opened.interaction.modal().unwrap();
    world.fake.submit_modal(ANN, &modal, &[("Why?", "deploying")], Target::Gateway).await.unwrap();
    assert_eq!(world.inbox.acts()[1].verb, Verb::Deny { approval: approval(), reason: "deploying".to_owned() });

    let options = [("number", json!(142)), ("text", json!("all good"))];
    let typed = world.fake.command(ANN, OPS, "incident note", &options, Target::Gateway).await.unwrap();
    assert_eq!(typed.interaction.response_type(), Some(5));
    assert_eq!(world.inbox.acts()[2].verb, Verb::Note { incident: incident(), text: "all good".to_owned() });
    let completed = world.fake.autocomplete(ANN, OPS, "incident ack", ("number", "14"), Target::Gateway).await.unwrap();
    assert_eq!(completed.interaction.choices(), [("#142 Service <!channel> down".to_owned(), json!(142))]);

    let strip = |payload: &mut serde_json::Value| {
        for needed_by_serenity in ["locale", "app_permissions", "entitlements", "version"] {
            payload.as_object_mut().unwrap().remove(needed_by_serenity);
        }
    };
    let stripped = world.fake.click(ANN, &seen, "Resolve", Target::Gateway).with(strip).await.unwrap();
    assert_eq!(stripped.interaction.response_type(), Some(6));
    assert_eq!(world.inbox.acts()[3].verb, Verb::Resolve { incident: incident() });
    world.nothing_refused();

    stop.cancel();
    tokio::time::timeout(LONG, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_connection_comes_back() {
    let world = world().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(world.discord.clone().run_gateway(stop.clone()));
    world.fake.wait_for_sessions(1, LONG).await.unwrap();
    let seen = world.asked().await;
    world.fake.cut_sessions();
    world.fake.wait_for_sessions(0, LONG).await.unwrap();
    world.fake.wait_for_sessions(1, LONG).await.unwrap();
    let pressed = world.fake.click(ANN, &seen, "Unacknowledge", Target::Gateway).await.unwrap();
    assert_eq!(pressed.interaction.response_type(), Some(6));
    stop.cancel();
    tokio::time::timeout(LONG, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_wrong_token_is_final() {
    let fake = FakeDiscord::start(Config::default()).await.unwrap();
    let config = DiscordConfig { bot_token: SecretString::from("wrong"), ..settings(&fake) };
    let discord = Discord::new(config, Arc::new(Memory::default()), Arc::new(Known), Arc::new(SystemClock)).unwrap();
    let ended = tokio::time::timeout(LONG, discord.run_gateway(CancellationToken::new())).await.unwrap();
    assert!(matches!(ended, Err(ChatError::Refused(text)) if text.contains("bot_token")));
}
