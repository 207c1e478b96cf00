//! What NATS can do to us: messages dropped before they were read, a consumer that vanished, a store deleted, the same message long after.

use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::jetstream::{self, stream};
use harness::eventually;
use harness::peers::Nats;
use harness::world::{Alert, Plan, SOON, World, body};
use serde_json::{Value, json};
use store::Store;

use crate::workers::options;

fn plan(nats: &Nats) -> anyhow::Result<Plan> {
    Ok(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.with(json!({
        "sources": { "tasks": { "kind": "generic", "map": { "fingerprint": "body.id", "labels": { "alertname": "\"Task\"", "task": "body.id" } } } },
        "nats": { "url": nats.url(), "subscriptions": { "tasks": { "stream": "TASKS", "subjects": ["task.>"] } } },
        "routes": [{ "match": ["alertname=\"Task\""], "incident": { "group_by": ["task"] } }],
    })))
}

async fn stream(nats: &Nats, config: stream::Config) -> anyhow::Result<jetstream::Context> {
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    context.create_stream(stream::Config { name: "TASKS".to_owned(), subjects: vec!["task.>".to_owned()], ..config }).await?;
    Ok(context)
}

async fn publish(context: &jetstream::Context, ids: impl IntoIterator<Item = usize>) -> anyhow::Result<()> {
    for id in ids {
        context.publish("task.created", format!(r#"{{"id":"{id}"}}"#).into()).await?.await?;
    }
    Ok(())
}

async fn taken(world: &World, wanted: f64) -> anyhow::Result<()> {
    eventually(SOON, async || {
        let count = world.metric("watchkeeper_events_received_total").await?;
        ensure!(count >= wanted, "{count} of {wanted}");
        Ok(())
    })
    .await
}

/// Waits until it is noted that so much was read, which is every few seconds; nothing shows it outside.
async fn noted(world: &World, read: u64) -> anyhow::Result<()> {
    let url = format!("sqlite:{}", world.dir().join("data/watchkeeper.db").display());
    let store = Store::look(options(&url, "look")).await?;
    eventually(SOON, async || {
        let mark = store.read().await?.flag("nats.read.tasks").await?.context("nothing is noted")?;
        ensure!(mark["read"] == read, "{mark}");
        Ok(())
    })
    .await?;
    store.close().await;
    Ok(())
}

async fn about_ourselves(world: &World, alertname: &str) -> anyhow::Result<Value> {
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        let found = incidents.iter().find(|incident| incident["source"] == "watchkeeper" && incident.to_string().contains(alertname));
        found.cloned().with_context(|| format!("{incidents:?}"))
    })
    .await
}

#[tokio::test]
async fn messages_that_the_stream_dropped_before_they_were_read_are_told() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let context = stream(&nats, stream::Config { max_messages: 5, ..Default::default() }).await?;
    let mut world = plan(&nats)?.start().await?;
    publish(&context, 0..3).await?;
    taken(&world, 3.0).await?;
    world.stop().await?;
    publish(&context, 3..23).await?;
    world.start().await?;
    taken(&world, 5.0).await?;
    let told = about_ourselves(&world, "MessagesLost").await?;
    let summary = told["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains("dropped messages 4 to 18 (15"), "{summary}");
    let lost = world.metric("watchkeeper_nats_lost_messages_total").await?;
    ensure!((lost - 15.0).abs() < f64::EPSILON, "{lost}");
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_vanished_is_made_again_where_it_was() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let context = stream(&nats, stream::Config::default()).await?;
    let world = plan(&nats)?.start().await?;
    publish(&context, 0..3).await?;
    taken(&world, 3.0).await?;
    noted(&world, 3).await?;
    context.get_stream("TASKS").await?.delete_consumer("watchkeeper-tasks").await?;
    publish(&context, 3..5).await?;
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        ensure!(incidents.len() == 5, "{} incidents", incidents.len());
        Ok(())
    })
    .await?;
    let count = world.metric("watchkeeper_events_received_total").await?;
    ensure!((count - 5.0).abs() < f64::EPSILON, "nothing was read again: {count}");
    Ok(())
}

#[tokio::test]
async fn a_stream_made_anew_is_read_from_its_beginning_and_told() -> anyhow::Result<()> {
    harness::rounds("NATS killed, its store deleted", 1, async |tally| {
        let mut nats = Nats::start().await?;
        let context = stream(&nats, stream::Config::default()).await?;
        let world = plan(&nats)?.start().await?;
        publish(&context, 0..3).await?;
        taken(&world, 3.0).await?;
        nats.kill9()?;
        nats.delete_store()?;
        tally.faults += 1;
        nats.restart().await?;
        let context = stream(&nats, stream::Config::default()).await?;
        // The same places in the stream as the first three: they are other messages all the same.
        publish(&context, 3..6).await?;
        taken(&world, 6.0).await?;
        let told = about_ourselves(&world, "MessagesLost").await?;
        ensure!(told["summary"].as_str().is_some_and(|summary| summary.contains("made again")), "{told}");
        let tasks = world.incidents().await?.iter().filter(|incident| incident["source"] == "tasks").count();
        tally.lines += tasks as u64;
        ensure!(tasks == 6, "{tasks} tasks");
        Ok(())
    })
    .await
}

/// An older copy of its store is restored, so that new messages come to places that were read once.
#[tokio::test]
async fn a_stream_that_fell_back_is_read_on_and_told() -> anyhow::Result<()> {
    let mut nats = Nats::start().await?;
    let context = stream(&nats, stream::Config::default()).await?;
    let mut world = plan(&nats)?.start().await?;
    publish(&context, 0..3).await?;
    taken(&world, 3.0).await?;
    nats.kill9()?;
    let older = nats.copy_store().await?;
    nats.restart().await?;
    eventually(SOON, async || publish(&context, 3..4).await).await?;
    publish(&context, 4..7).await?;
    taken(&world, 7.0).await?;
    let had = context.get_stream("TASKS").await?.cached_info().state.last_sequence;
    noted(&world, had).await?;
    world.stop().await?;
    nats.kill9()?;
    nats.put_back(older)?;
    nats.restart().await?;
    eventually(SOON, async || publish(&context, 7..8).await).await?;
    world.start().await?;
    let told = about_ourselves(&world, "MessagesLost").await?;
    ensure!(told["summary"].as_str().is_some_and(|summary| summary.contains(&format!("and had {had} already"))), "{told}");
    publish(&context, 8..10).await?;
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        let mut tasks: Vec<&str> = incidents.iter().filter_map(|incident| incident["labels"]["task"].as_str()).collect();
        tasks.sort_unstable();
        ensure!(tasks == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "{tasks:?}");
        Ok(())
    })
    .await?;
    let lost = world.count("watchkeeper_nats_lost_messages_total").await?;
    ensure!((lost - 1.0).abs() < f64::EPSILON, "told {lost} times");
    Ok(())
}

#[tokio::test]
async fn a_message_sent_again_after_the_streams_own_window_is_one_event() -> anyhow::Result<()> {
    harness::rounds("messages sent again after the window of NATS", 1, async |tally| {
        let nats = Nats::start().await?;
        let context = stream(&nats, stream::Config { duplicate_window: Duration::from_millis(200), ..Default::default() }).await?;
        let world = plan(&nats)?.start().await?;
        for id in ["a", "a", "b"] {
            // The window is over when the stream takes the same id again.
            eventually(SOON, async || {
                let message = jetstream::message::PublishMessage::build().payload(r#"{"id":"1"}"#.into()).message_id(id);
                let ack = context.send_publish("task.created", message).await?.await?;
                ensure!(!ack.duplicate, "the stream still knows {id}");
                Ok(())
            })
            .await?;
        }
        taken(&world, 3.0).await?;
        tally.faults += 1;
        tally.lines += 2;
        let repeats = world.metric("watchkeeper_events_deduplicated_total").await?;
        ensure!((repeats - 1.0).abs() < f64::EPSILON, "{repeats}");
        Ok(())
    })
    .await
}

fn kept_by_nats(nats: &Nats) -> anyhow::Result<Plan> {
    Ok(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.with(json!({
        "nats": { "url": nats.url() },
        "ingest": { "via": "jetstream", "replicas": 1 },
        "routes": [{ "match": ["alertname=~\"Each|Storm\""], "incident": { "group_by": ["alertname"] } }],
    })))
}

#[tokio::test]
async fn deliveries_rest_on_the_stream_until_the_store_has_them() -> anyhow::Result<()> {
    harness::rounds("NATS killed and back, then the server", 1, async |tally| {
        let mut nats = Nats::start().await?;
        let mut world = kept_by_nats(&nats)?.allow("the store is unavailable").start().await?;
        let first = Alert::new("Each").label("n", "1");
        world.send(std::slice::from_ref(&first)).await?;
        world.send(std::slice::from_ref(&first)).await?;
        eventually(SOON, async || {
            let incidents = world.incidents().await?;
            ensure!(incidents.len() == 1 && incidents[0]["alerts_total"] == 1, "{incidents:?}");
            let repeats = world.metric("watchkeeper_events_deduplicated_total").await?;
            ensure!((repeats - 1.0).abs() < f64::EPSILON, "{repeats}");
            Ok(())
        })
        .await?;

        nats.kill9()?;
        tally.faults += 1;
        eventually(SOON, async || {
            let answer = world.post(body(&[first.clone().label("n", "2")]).to_string()).await?;
            ensure!(answer.status == reqwest::StatusCode::SERVICE_UNAVAILABLE, "{}", answer.status);
            Ok(())
        })
        .await?;
        nats.restart().await?;
        eventually(SOON, async || world.send(&[first.clone().label("n", "2")]).await).await?;
        // Accepted and at once killed: the stream has them.
        world.send(&[first.clone().label("n", "3")]).await?;
        world.kill9()?;
        tally.faults += 1;
        tally.lines += 10_003;
        world.start().await?;
        let many: Vec<Alert> = (0..10_000).map(|n| Alert::new("Storm").label("n", &n.to_string())).collect();
        let text = body(&many).to_string();
        ensure!(text.len() > 1024 * 1024, "larger than NATS takes in one message");
        let answer = world.post(text).await?;
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.json);
        eventually(SOON * 2, async || {
            let incidents = world.incidents().await?;
            let total = |name: &str| {
                incidents.iter().find(|incident| incident.to_string().contains(name)).map(|incident| incident["alerts_total"].clone())
            };
            ensure!(total("Each") == Some(json!(3)) && total("Storm") == Some(json!(10_000)), "{:?} {:?}", total("Each"), total("Storm"));
            Ok(())
        })
        .await
    })
    .await
}
