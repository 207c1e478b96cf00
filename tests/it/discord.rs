//! The main job over Discord, heard by HTTP interactions and by the gateway.

use anyhow::ensure;
use harness::fake::discord::{Config, FakeDiscord, Message, Target};
use harness::world::{Alert, Plan, SOON, World};

async fn card_with(discord: &FakeDiscord, button: &str) -> anyhow::Result<Message> {
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
    ensure!(discord.refused().is_empty(), "{:#?}", discord.refused());
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
