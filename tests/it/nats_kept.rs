//! `ingest.via: jetstream` over PostgreSQL: gateways answer while the database is away, and one of three NATS servers may die. What was answered is there, once.

use anyhow::{Context, ensure};
use async_nats::jetstream;
use harness::peers::{Nats, Postgres, Stop};
use harness::world::{Alert, Plan, SOON, World};
use harness::{Tally, eventually};
use serde_json::json;

use crate::load::{Load, Told, all_there};
use crate::replicas::replica;

const STREAM: &str = "WATCHKEEPER_INGEST";

/// A replica whose deliveries rest on a stream of so many copies.
fn kept(name: &str, database: &str, urls: &[String], copies: usize) -> anyhow::Result<Plan> {
    let plan = replica(name, database)?.allow("store").allow("after_connect");
    Ok(plan.with(json!({ "nats": { "url": urls }, "ingest": { "via": "jetstream", "replicas": copies } })))
}

/// Whether all that was answered is stored once and in the one incident that it belongs to.
async fn all_once(world: &World, told: &Told, tally: &mut Tally) -> anyhow::Result<()> {
    ensure!(told.failed.is_empty(), "{:?}", told.failed);
    all_there(world, &told.kept).await?;
    tally.lines += told.kept.len() as u64;
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        let active = incidents.first().and_then(|one| one["alerts_active"].as_u64()).unwrap_or(0);
        ensure!(incidents.len() == 1 && active >= told.kept.len() as u64, "{active} of {} in {}", told.kept.len(), incidents.len());
        Ok(())
    })
    .await
}

async fn ready(world: &World) -> anyhow::Result<()> {
    let answer = world.http().get(format!("{}/readyz", world.url())).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{status}: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_answer_while_the_database_is_away() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("PostgreSQL away, deliveries kept on a stream", 1, async |tally| {
        let (mut postgres, nats) = (Postgres::start().await?, Nats::start().await?);
        let database = postgres.create_database().await?;
        let urls = [nats.url()];
        let a = kept("a", &database, &urls, 1)?.start().await?;
        let b = kept("b", &database, &urls, 1)?.start().await?;
        let load = Load::start(&[&a, &b], 50);
        load.keeps(50, SOON).await?;
        postgres.stop(Stop::Immediate).await?;
        tally.faults += 1;
        // In every other round for longer than a lease is trusted.
        load.keeps(if tally.rounds.is_multiple_of(2) { 1000 } else { 200 }, SOON * 2).await?;
        // Whoever spreads the load asks this before it sends anything.
        ready(&a).await?;
        ready(&b).await?;
        postgres.resume().await?;
        load.keeps(50, SOON).await?;
        let told = load.stop().await?;
        ensure!(told.again.is_empty(), "{} were told to come again", told.again.len());
        all_once(&a, &told, tally).await?;
        let incidents = b.incidents().await?;
        ensure!(incidents[0]["alerts_total"] == told.kept.len(), "{incidents:?} of {}", told.kept.len());
        Ok(())
    })
    .await
}

/// Which of them leads the stream, once all its copies are the same.
async fn leader(nodes: &[Nats]) -> anyhow::Result<usize> {
    eventually(SOON, async || {
        let urls: Vec<String> = nodes.iter().map(Nats::url).collect();
        let stream = jetstream::new(async_nats::connect(urls).await?).get_stream(STREAM).await?;
        let info = stream.cached_info();
        let cluster = info.cluster.as_ref().context("it is in no cluster")?;
        ensure!(info.config.num_replicas == 3 && cluster.replicas.len() == 2, "{cluster:?}");
        ensure!(cluster.replicas.iter().all(|copy| copy.current && !copy.offline), "{:?}", cluster.replicas);
        let name = cluster.leader.as_deref().context("nobody leads")?;
        name.trim_start_matches("node-").parse().context("another name")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_nats_servers_dies_under_load_and_nothing_is_lost() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("one of three NATS servers killed under load", 1, async |tally| {
        let database = Postgres::shared().await?.create_database().await?;
        let mut nodes = Nats::cluster(3).await?;
        let urls: Vec<String> = nodes.iter().map(Nats::url).collect();
        let a = kept("a", &database, &urls, 3)?.start().await?;
        let b = kept("b", &database, &urls, 3)?.start().await?;
        let load = Load::start(&[&a, &b], 50);
        load.keeps(50, SOON).await?;
        for kill in 0..if harness::long() { 6 } else { 1 } {
            // Who leads first, and then another one too.
            let victim = (leader(&nodes).await? + kill) % nodes.len();
            nodes[victim].kill9()?;
            tally.faults += 1;
            load.keeps(60, SOON).await?;
            nodes[victim].restart().await?;
            load.keeps(30, SOON).await?;
        }
        leader(&nodes).await?;
        let told = load.stop().await?;
        all_once(&a, &told, tally).await?;
        // What was told to come again may be there too; nothing is twice.
        let most = told.kept.len() + told.again.len();
        let total = b.incidents().await?[0]["alerts_total"].as_u64().unwrap_or_default();
        ensure!(usize::try_from(total)? <= most, "{total} of {most}");
        // Nothing is left on the stream.
        eventually(SOON, async || {
            let stream = jetstream::new(async_nats::connect(&urls[..]).await?).get_stream(STREAM).await?;
            ensure!(stream.cached_info().state.messages == 0, "{} are left", stream.cached_info().state.messages);
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_stream_is_gone_and_cannot_be_made_is_not_ready() -> anyhow::Result<()> {
    let (database, nats) = (Postgres::shared().await?.create_database().await?, Nats::start().await?);
    let world = kept("a", &database, &[nats.url()], 1)?.allow("ingest").start().await?;
    world.send(&[Alert::service_down()]).await?;
    ready(&world).await?;
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    // Somebody else's, that has our subjects.
    let other = jetstream::stream::Config { name: "OTHER".to_owned(), subjects: vec![format!("{STREAM}.>")], ..Default::default() };
    // Whoever takes from ours, or asks whether it is there, makes it again: until the other was quicker.
    eventually(SOON, async || {
        let _gone_already = context.delete_stream(STREAM).await;
        context.create_stream(other.clone()).await.map(drop).context("ours was quicker")
    })
    .await?;
    let said = format!("{:#}", ready(&world).await.err().context("it is ready")?);
    ensure!(said.contains("503") && said.contains("[-]ingest"), "{said}");
    ensure!(world.send(&[Alert::new("Later")]).await.is_err(), "it was taken");
    context.delete_stream("OTHER").await?;
    eventually(SOON, async || ready(&world).await).await?;
    world.send(&[Alert::new("Later")]).await
}
