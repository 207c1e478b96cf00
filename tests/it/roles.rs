//! A gateway, a worker and a bot, each a process of its own over one PostgreSQL: together they do the whole job, and none does another's part.

use std::time::Duration;

use anyhow::ensure;
use harness::fake::discord::{self, FakeDiscord, Target};
use harness::fake::slack::{self, FakeSlack};
use harness::peers::Postgres;
use harness::world::{Alert, BEN, Plan, SOON, World};
use serde_json::json;

use crate::replicas::replica;
use crate::slack::{card_with, closed, door};

async fn status(world: &World, path: &str) -> anyhow::Result<u16> {
    Ok(world.http().get(format!("{}{path}", world.url())).send().await?.status().as_u16())
}

#[tokio::test]
async fn a_gateway_a_worker_and_a_bot_take_an_alert_to_its_end() -> anyhow::Result<()> {
    let database = Postgres::shared().await?.create_database().await?;
    let slack = FakeSlack::start(slack::Config::default()).await?;
    let discord = FakeDiscord::start(discord::Config::default()).await?;
    let part = |role: &str| replica(role, &database)?.args(&["--only", role]).slack(&slack)?.discord(&discord, true);
    let (mut gateway, mut worker, mut bot) = (part("gateway")?, part("worker")?, part("bot")?);
    let ledger = worker.ledger()?;
    let with_run = |plan: &mut Plan| {
        plan.config["routes"][0]["remedy"] = json!({ "runbook": "restart-service", "mode": "approve" });
        let step = json!({ "id": "write", "uses": "command", "with": { "program": ledger.program, "args": ["once"] }, "timeout": "30s" });
        plan.merge(json!({
            "programs": [ledger.program],
            "runbooks": { "restart-service": { "params": null, "steps": [step], "verify": null } },
        }));
    };
    [&mut gateway, &mut worker, &mut bot].into_iter().for_each(with_run);

    // The gateway takes what comes in, and has no socket; the bot has it, and takes nothing in; nobody decides yet.
    let gateway = gateway.start().await?;
    let alert = Alert::service_down();
    gateway.send(std::slice::from_ref(&alert)).await?;
    ensure!(discord.sessions() == 0, "the gateway holds Discord's socket");
    let bot = bot.start().await?;
    discord.wait_for_sessions(1, SOON).await?;
    assert_eq!([status(&bot, "/livez").await?, status(&bot, "/readyz").await?, status(&bot, "/metrics").await?], [200; 3]);
    assert_eq!(
        (status(&bot, "/login").await?, status(&bot, "/api/v1/incidents").await?, bot.post("{}").await?.status.as_u16()),
        (404, 404, 404)
    );
    // Time in which it could be decided.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((gateway.incidents().await?.len(), discord.channel("ops").messages().len()), (0, 0));

    // The worker decides and posts on both platforms. The press comes in by the bot's socket, and what follows happens on the worker.
    let worker = worker.start().await?;
    ensure!(discord.sessions() == 1, "the worker holds a socket too");
    let on_slack = card_with(&slack, "Approve").await?;
    let has = |button: &'static str| move |message: &discord::Message| message.buttons().iter().any(|known| known.label == button);
    let on_discord = discord.channel("ops").wait_for(has("Approve"), SOON).await?;
    let ann = discord.config().users[0].id.clone();
    discord.click(&ann, &on_discord, "Approve", Target::Gateway).await?;
    let run = gateway.run_in("succeeded", SOON).await?;
    assert_eq!((&run["attempts"][0]["place"]["instance"], ledger.lines()), (&json!("worker"), vec!["once".to_owned()]));
    let said = |text: &str| text.contains("approved by ann");
    discord.wait_until(&on_discord, |card| said(&card.visible_text()), SOON).await?;
    slack.wait_until(&on_slack, |card| said(&card.visible_text()), SOON).await?;

    // The next press comes in by HTTP, at the gateway; both cards show its outcome.
    let on_slack = card_with(&slack, "Resolve").await?;
    let reply = slack.click(BEN, &on_slack, "Resolve", door(&gateway)).await?;
    assert_eq!(reply.status, 200);
    slack.wait_until(&on_slack, |card| card.visible_text().contains("Resolved by: ben"), SOON).await?;
    discord.wait_until(&on_discord, |card| card.visible_text().contains("Resolved by\nben"), SOON).await?;
    gateway.send(&[alert.resolved()]).await?;
    let on_slack = closed(&slack, &on_slack).await?;
    assert_eq!(on_slack.buttons(), []);
    discord.wait_until(&on_discord, |card| card.visible_text().contains("closed") && card.buttons().is_empty(), SOON).await?;
    assert_eq!((slack.channel("ops").messages().len(), discord.channel("ops").messages().len()), (1, 1), "one card each, edited in place");
    assert_eq!(slack.refused().len(), 0, "{:#?}", slack.refused());
    for world in [&gateway, &worker, &bot] {
        ensure!(world.errors().is_empty(), "{:?}", world.errors());
    }
    Ok(())
}
