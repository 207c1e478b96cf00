//! `ingest.via: jetstream`: a stream that was deleted with deliveries on it, one whose numbers went back, one that is full.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::jetstream::{self, stream};
use harness::eventually;
use harness::peers::{Nats, Postgres, Stop};
use harness::world::{Alert, Plan, SOON, World, body};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::replicas::replica;

const STREAM: &str = "WATCHKEEPER_INGEST";

fn plan(nats: &Nats) -> anyhow::Result<Plan> {
    Ok(kept_by(nats, Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?))
}

fn kept_by(nats: &Nats, plan: Plan) -> Plan {
    plan.with(json!({ "nats": { "url": nats.url() }, "ingest": { "via": "jetstream", "replicas": 1 } }))
}

async fn context(nats: &Nats) -> anyhow::Result<jetstream::Context> {
    Ok(jetstream::new(async_nats::connect(nats.url()).await?))
}

/// Waits until the loss is told as an incident, a metric and an error in the log.
async fn told(world: &World) -> anyhow::Result<Value> {
    let incident = eventually(SOON, async || {
        let incidents = world.incidents().await?;
        let found = incidents.iter().find(|one| one["source"] == "watchkeeper" && one.to_string().contains("DeliveriesLost"));
        found.cloned().with_context(|| format!("{incidents:?}"))
    })
    .await?;
    let lost = world.metric("watchkeeper_ingest_losses_total").await?;
    ensure!((lost - 1.0).abs() < f64::EPSILON, "{lost} losses are counted");
    let said = world.log_lines().iter().filter(|line| line["level"] == "ERROR" && line.to_string().contains(STREAM)).count();
    ensure!(said == 1, "{said} errors in the log");
    Ok(incident)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_before_its_deliveries_were_taken_is_told() -> anyhow::Result<()> {
    let (mut postgres, nats) = (Postgres::start().await?, Nats::start().await?);
    let database = postgres.create_database().await?;
    let mut plan = kept_by(&nats, replica("a", &database)?);
    for expected in ["deliveries were lost", "store", "after_connect"] {
        plan = plan.allow(expected);
    }
    let mut world = plan.start().await?;
    let context = context(&nats).await?;
    world.send(&[Alert::new("Taken")]).await?;
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        ensure!(incidents.len() == 1, "{} incidents", incidents.len());
        Ok(())
    })
    .await?;
    postgres.stop(Stop::Immediate).await?;
    for number in 0..5 {
        world.send(&[Alert::new("Waits").label("n", &number.to_string())]).await?;
    }
    context.delete_stream(STREAM).await?;
    eventually(SOON, async || world.send(&[Alert::new("After")]).await).await?;
    postgres.resume().await?;
    let incident = told(&world).await?;
    let summary = incident["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains(STREAM) && summary.contains("deleted"), "{summary}");

    // Once: a restart finds the stream as it was left.
    world.stop().await?;
    world.start().await?;
    world.send(&[Alert::new("Later")]).await?;
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        ensure!(incidents.iter().any(|one| one.to_string().contains("Later")), "it was not taken");
        Ok(())
    })
    .await?;
    ensure!(world.count("watchkeeper_ingest_losses_total").await? < 0.5, "it is told again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_while_no_server_ran_is_told() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let mut world = plan(&nats)?.allow("deliveries were lost").start().await?;
    let context = context(&nats).await?;
    world.send(&[Alert::new("Taken")]).await?;
    eventually(SOON, async || {
        let left = context.get_stream(STREAM).await?.cached_info().state.messages;
        ensure!(left == 0 && !world.incidents().await?.is_empty(), "{left} are left");
        Ok(())
    })
    .await?;
    world.stop().await?;
    context.delete_stream(STREAM).await?;
    world.start().await?;
    told(&world).await.map(drop)
}

async fn readyz(world: &World) -> anyhow::Result<(StatusCode, String)> {
    let answer = world.http().get(format!("{}/readyz", world.url())).send().await?;
    Ok((answer.status(), answer.text().await?))
}

/// Fails if it says the contrary. One of many questions may get no answer in time on a busy machine, which says nothing.
fn says(ready: bool, (status, text): &(StatusCode, String)) -> anyhow::Result<()> {
    ensure!(status.is_success() == ready || text.contains("no answer within"), "{status}: {text}");
    Ok(())
}

/// Looks again and again for as long as it might change its mind.
async fn stays(world: &World, ready: bool) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        says(ready, &readyz(world).await?)?;
        // As whoever spreads the load asks.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

/// A stream that keeps what is acknowledged, so that it stays full.
fn keeps(limits: stream::Config) -> stream::Config {
    let subjects = vec![format!("{STREAM}.*")];
    stream::Config { name: STREAM.to_owned(), subjects, discard: stream::DiscardPolicy::New, ..limits }
}

/// Sends deliveries until one is refused.
async fn fill(world: &World) -> anyhow::Result<()> {
    for number in 0..1000 {
        let answer = world.post(body(&[Alert::new("Fills").label("n", &number.to_string())]).to_string()).await?;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            return Ok(());
        }
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.json);
    }
    anyhow::bail!("it is never full")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_stream_is_full_is_not_ready_until_there_is_room() -> anyhow::Result<()> {
    for limits in [stream::Config { max_messages: 5, ..Default::default() }, stream::Config { max_bytes: 20_000, ..Default::default() }] {
        let nats = Nats::start().await?;
        let context = context(&nats).await?;
        context.create_stream(keeps(limits)).await?;
        let world = plan(&nats)?.allow("the store is unavailable").start().await?;
        fill(&world).await?;
        eventually(SOON, async || {
            let (status, text) = readyz(&world).await?;
            ensure!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains("[-]ingest"), "{status}: {text}");
            ensure!(text.contains("maximum"), "it does not say why: {text}");
            Ok(())
        })
        .await?;
        // Nobody sends anything any more, and it is still full.
        stays(&world, false).await?;
        context.get_stream(STREAM).await?.purge().await?;
        eventually(SOON, async || {
            let (status, text) = readyz(&world).await?;
            ensure!(status.is_success(), "{status}: {text}");
            Ok(())
        })
        .await?;
        world.send(&[Alert::new("Later")]).await?;
        stays(&world, true).await?;
    }
    Ok(())
}

/// Whoever may send at all must not be able to take a gateway out of service with one body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_are_too_large_for_the_stream_do_not_make_a_gateway_unready() -> anyhow::Result<()> {
    let retention = stream::RetentionPolicy::WorkQueue;
    for limits in [
        stream::Config { max_bytes: 300_000, retention, ..Default::default() },
        stream::Config { max_message_size: 100_000, retention, ..Default::default() },
    ] {
        let nats = Nats::start().await?;
        context(&nats).await?.create_stream(keeps(limits)).await?;
        let world = plan(&nats)?.allow("the store is unavailable").start().await?;
        let large = body(&[Alert::new("Large").label("n", &"x".repeat(1000))]).to_string();
        let large = format!("{}{large}", " ".repeat(500_000));
        let until = Instant::now() + Duration::from_secs(8);
        while Instant::now() < until {
            let answer = world.post(large.clone()).await?;
            ensure!(answer.status == StatusCode::SERVICE_UNAVAILABLE, "{}", answer.status);
            says(true, &readyz(&world).await?)?;
            // So that it is looked at in between, too.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        world.send(&[Alert::new("Small")]).await?;
    }
    Ok(())
}
