//! The main job over Discord, heard by HTTP interactions and by the gateway.

use anyhow::ensure;
use harness::fake::discord::{Config, FakeDiscord, Message, Target};
use harness::world::{Alert, Plan, SOON, World};

/// The first card, once it has a button of this label.
pub(crate) async fn card_with(discord: &FakeDiscord, button: &str) -> anyhow::Result<Message> {
    discord.channel("ops").wait_for(|message: &Message| message.buttons().iter().any(|known| known.label == button), SOON).await
}

/// An alert, a stranger's press, an approval, the remedy, the resolve: on one card.
async fn main_job(discord: &FakeDiscord, world: &World, target: Target) -> anyhow::Result<()> {
    world.service_is(true).await?;
    world.kill_service()?;
    let alert = Alert::service_down();
    world.send(std::slice::from_ref(&alert)).await?;
    let card = card_with(discord, "Approve").await?;
    let text = card.visible_text();
    for part in ["demo is down", "P1", "restart-service", "service.restart on demo"] {
        ensure!(text.contains(part), "{part:?} is not on the card:\n{text}");
    }
    let users = discord.config().users.clone();
    let (ann, cleo) = (&users[0].id, &users[2].id);
    let refused = discord.click(cleo, &card, "Approve", target.clone()).await?;
    let told = refused.interaction.wait_for_followup(|message| message.visible_text().contains("sre"), SOON).await?;
    ensure!(told.visible_text().contains("cleo"), "{}", told.visible_text());
    ensure!(!world.service_answers().await, "a viewer approves nothing");

    discord.click(ann, &card, "Approve", target).await?;
    world.service_is(true).await?;
    world.run_in("succeeded", SOON).await?;
    world.send(&[alert.resolved()]).await?;
    discord.wait_until(&card, |card| card.visible_text().contains("closed") && card.buttons().is_empty(), SOON).await?;
    ensure!(discord.channel("ops").messages().len() == 1, "one card, edited in place");
    // A thread that is not there yet is found out by asking.
    let refused: Vec<_> = discord.refused().into_iter().filter(|seen| seen.status != 404).collect();
    ensure!(refused.is_empty(), "{refused:#?}");
    Ok(())
}

#[tokio::test]
async fn by_http_interactions() -> anyhow::Result<()> {
    let discord = FakeDiscord::start(Config::default()).await?;
    let world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.discord(&discord, false)?.start().await?;
    let url = format!("{}/discord/interactions", world.url());
    discord.verify_endpoint(&url).await?;
    main_job(&discord, &world, Target::from(url.as_str())).await
}

#[tokio::test]
async fn by_the_gateway() -> anyhow::Result<()> {
    let discord = FakeDiscord::start(Config::default()).await?;
    let world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.discord(&discord, true)?.start().await?;
    discord.wait_for_sessions(1, SOON).await?;
    main_job(&discord, &world, Target::Gateway).await
}

#[tokio::test]
async fn taken_denied_with_a_reason_asked_for_and_resolved() -> anyhow::Result<()> {
    let discord = FakeDiscord::start(Config::default()).await?;
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.discord(&discord, false)?;
    plan.merge(serde_json::json!({ "incidents": { "reopen_within": "30m", "close_after": "24h" } }));
    let world = plan.start().await?;
    world.service_is(true).await?;
    let before = world.service_pids();
    let door = Target::from(format!("{}/discord/interactions", world.url()).as_str());
    let ben = discord.config().users[1].id.clone();
    world.send(&[Alert::service_down()]).await?;
    let card = card_with(&discord, "Deny").await?;

    let asked = discord.click(&ben, &card, "Deny", door.clone()).await?;
    let modal = asked.interaction.modal().ok_or_else(|| anyhow::anyhow!("a denial asks for its reason"))?;
    let field = modal.inputs.first().map(|(_, id, _)| id.clone()).unwrap_or_default();
    discord.submit_modal(&ben, &modal, &[(&field, "not during the sale")], door.clone()).await?;
    let card = discord.wait_until(&card, |card| card.visible_text().contains("not during the sale"), SOON).await?;
    world.run_in("refused", SOON).await?;
    assert_eq!(world.service_pids(), before, "nothing was restarted");

    discord.click(&ben, &card, "Acknowledge", door.clone()).await?;
    let card = card_with(&discord, "Unacknowledge").await?;
    discord.click(&ben, &card, "Run restart-service", door.clone()).await?;
    let card = card_with(&discord, "Approve").await?;
    ensure!(card.visible_text().contains("ben"), "{}", card.visible_text());
    discord.click(&ben, &card, "Resolve", door).await?;
    discord.wait_until(&card, |card| card.buttons().iter().any(|button| button.label == "Reopen"), SOON).await?;
    world.incident_in(1, "resolved", SOON).await?;
    Ok(())
}
