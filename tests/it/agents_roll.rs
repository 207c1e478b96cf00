//! What agents announce: who is there and what is wrong with it is shown, and no order goes to who did not announce what it takes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::{Subscriber, jetstream};
use bytes::Bytes;
use domain::announcement::{Announcement, PROTOCOL};
use domain::order::SERVER;
use futures::{FutureExt, StreamExt};
use harness::eventually;
use harness::peers::Nats;
use harness::world::{Alert, SOON, World};
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::{away, plan, signed};

/// Where the agent is asked to say that it is here.
const HAIL: &str = "watchkeeper.agent.edge.hail";

#[tokio::test]
async fn an_agent_that_never_comes_is_told_nothing_and_that_is_known() -> anyhow::Result<()> {
    let (nats, world, mut edge, ledger) = away("never", "5s").await?;
    let run = world.run_in("failed", SOON).await?;
    let why = run["attempts"].to_string();
    ensure!(why.contains("was not told in the step's time, so nothing was begun"), "{why}");
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    ensure!(orders(&context).await? == 0, "an order was sent");
    edge.start()?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    // Time in which nothing may happen.
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    Ok(())
}

#[tokio::test]
async fn a_run_that_is_stopped_while_its_agent_is_away_is_never_begun() -> anyhow::Result<()> {
    let (nats, world, mut edge, ledger) = away("never", "10m").await?;
    let run = world.run_in("running", SOON).await?;
    let path = format!("/runs/{}", run["run"]["id"].as_str().unwrap_or_default());
    let answer = world.call("ann", Method::POST, &format!("{path}/cancel"), Some(&json!({}))).await?;
    ensure!(answer.status.is_success(), "{}", answer.json);
    eventually(SOON, async || {
        let attempts = world.get(&path).await?["attempts"].to_string();
        ensure!(attempts.contains("was stopped before the agent edge was told"), "{attempts}");
        Ok(())
    })
    .await?;
    edge.start()?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    // Time in which nothing may happen.
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    ensure!(orders(&context).await? == 0, "an order was sent");
    Ok(())
}

/// How many orders and reports were ever put on the stream.
async fn orders(context: &jetstream::Context) -> anyhow::Result<u64> {
    match context.get_stream("WATCHKEEPER_AGENTS").await {
        Ok(mut stream) => Ok(stream.info().await?.state.last_sequence),
        // Nobody needed it yet.
        Err(_) => Ok(0),
    }
}

#[tokio::test]
async fn no_order_goes_to_an_agent_that_did_not_announce_the_target() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let (mut plan, _edge, ledger) = plan(&nats, &nats.url(), &["hello"], "20s").await?;
    plan.merge(json!({
        "targets": { "db": { "kind": "systemd", "unit": "db.service", "agent": "edge" } },
        "runbooks": { "restart-service": { "verify": null, "steps": [
            { "id": "write", "uses": "command", "with": { "target": "db", "program": ledger.program, "args": ["hello"] }, "timeout": "20s" },
        ] } },
    }));
    let world = plan.start().await?;
    let seen = agent_where(&world, |agent| agent["here"] == true).await?;
    assert_eq!(seen["announced"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(seen["announced"]["targets"], json!(["api"]));
    ensure!(seen["announced"]["host"].as_str().is_some_and(|host| !host.is_empty()), "{seen}");
    ensure!(seen["warnings"].to_string().contains("did not announce db"), "{seen}");
    world.send(&[Alert::service_down()]).await?;
    let run = world.run_in("failed", SOON).await?;
    let why = run["attempts"].to_string();
    ensure!(why.contains("no order was sent to the agent edge: it did not announce the target db"), "{why}");
    ensure!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    ensure!(orders(&context).await? == 0, "an order was sent");
    let token = world.dir().join("token");
    fs::write(&token, world.token("ann").await?)?;
    let list = world.command(&["agent", "list", "--server", &world.url(), "--token-file"]).arg(&token);
    let table = list.run(SOON).await?.ok()?;
    ensure!(table.contains("edge  here") && table.contains("make both inventories the same"), "{table}");
    let page = world.console("ann").await?.page("/agents").await?;
    ensure!(page.contains("edge") && page.contains("did not announce db") && page.contains(env!("CARGO_PKG_VERSION")), "{page}");
    let config = world.config().display().to_string();
    let doctor = world.command(&["doctor", "--config", &config]).run(SOON).await?.stdout;
    ensure!(doctor.contains("agent edge: version") && doctor.contains("agent edge: it did not announce db"), "{doctor}");
    Ok(())
}

/// Announcements are in no table: agents are asked when a server starts.
#[tokio::test]
async fn a_server_that_starts_again_knows_its_agents_at_once() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let (plan, mut edge, _) = plan(&nats, &nats.url(), &["never"], "5s").await?;
    let mut world = plan.start().await?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    world.stop().await?;
    let client = async_nats::connect(nats.url()).await?;
    let (mut hails, mut hellos) = (client.subscribe(HAIL).await?, client.subscribe("watchkeeper.agent.edge.hello").await?);
    client.flush().await?;
    world.start().await?;
    next(&mut hails).await?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    // Whoever hails it has its answer: unasked it would say it every ten seconds.
    let began = Instant::now();
    for _ in 0..6 {
        while let Some(Some(_)) = hellos.next().now_or_never() {}
        client.publish(HAIL, Bytes::new()).await?;
        next(&mut hellos).await?;
    }
    ensure!(began.elapsed() < Duration::from_secs(30), "six answers took {:?}", began.elapsed());
    world.stop().await?;
    edge.kill9()?;
    world.start().await?;
    let agent = agent_where(&world, |agent| agent["here"] == false).await?;
    ensure!(agent["heard_at"].is_null() && agent["announced"].is_null(), "nothing is made up: {agent}");
    Ok(())
}

async fn next(signs: &mut Subscriber) -> anyhow::Result<()> {
    tokio::time::timeout(SOON, signs.next()).await.ok().flatten().map(drop).context("no sign")
}

/// The agent `edge` as the API shows it, once it is like this.
pub(super) async fn agent_where(world: &World, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    eventually(SOON, async || {
        let all = world.get("/agents").await?;
        let agent = all["items"][0].clone();
        ensure!(agent["name"] == "edge" && is(&agent), "{all}");
        Ok(agent)
    })
    .await
}

#[tokio::test]
async fn an_agent_of_another_protocol_or_an_older_version_is_told_of_and_a_forged_word_is_not_believed() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let (plan, mut edge, ledger) = plan(&nats, &nats.url(), &["hello"], "20s").await?;
    edge.kill9()?;
    let dir = plan.dir().to_owned();
    let client = async_nats::connect(nats.url()).await?;
    let mut hails = client.subscribe(HAIL).await?;
    client.flush().await?;
    let world = plan.start().await?;
    let announce = async |key: &str, version: &str, protocol: u32| {
        let told = Announcement {
            iss: "edge".to_owned(),
            aud: SERVER.to_owned(),
            iat: i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_secs())?,
            protocol,
            version: version.to_owned(),
            host: "far".to_owned(),
            targets: ["api".to_owned()].into(),
            actions: ["command".to_owned()].into(),
        };
        client.publish("watchkeeper.agent.edge.hello", signed(&told, &dir.join(key))?.into()).await?;
        client.flush().await?;
        anyhow::Ok(())
    };
    // Who hails listens.
    next(&mut hails).await?;
    announce("stranger.pem", "66.6.6", PROTOCOL).await?;
    // Time in which it could be believed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(agent_where(&world, |_| true).await?["announced"].is_null(), "a stranger was believed");
    announce("edge.pem", "0.0.1", PROTOCOL).await?;
    let old = agent_where(&world, |agent| agent["here"] == true).await?;
    ensure!(old["warnings"][0].as_str().is_some_and(|told| told.contains("0.0.1 is older than the server's")), "{old}");
    announce("edge.pem", "9.9.9", PROTOCOL + 1).await?;
    let other = agent_where(&world, |agent| agent["announced"]["protocol"] == PROTOCOL + 1).await?;
    ensure!(other["warnings"].to_string().contains("no orders are sent to it: it speaks protocol"), "{other}");
    world.send(&[Alert::service_down()]).await?;
    let run = world.run_in("failed", SOON).await?;
    ensure!(run["attempts"].to_string().contains("update the server"), "{run}");
    eventually(SOON, async || {
        let health = world.http().get(format!("{}/health", world.url())).send().await?.text().await?;
        ensure!(health.contains("it speaks protocol"), "{health}");
        Ok(())
    })
    .await?;
    ensure!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    Ok(())
}
