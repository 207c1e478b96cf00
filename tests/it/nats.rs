//! NATS JetStream in: subjects with wildcards become incidents, a server that goes away and comes back loses nothing, poison is set aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::jetstream;
use harness::eventually;
use harness::peers::Nats;
use harness::world::{Plan, SOON, World};
use serde_json::{Value, json};

fn plan(nats: &Nats) -> anyhow::Result<Plan> {
    Ok(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.with(json!({
        "sources": { "tasks": {
            "kind": "generic",
            "map": {
                "fingerprint": "body.id",
                "labels": { "alertname": "\"Task\"", "task": "body.id", "subject": "headers.subject" },
                "annotations": { "summary": "body.title" },
            },
        } },
        "nats": { "url": nats.url(), "subscriptions": { "tasks": { "stream": "TASKS", "subjects": ["task.created", "task.*.failed"] } } },
        "routes": [{ "match": ["alertname=\"Task\""], "incident": { "group_by": ["task"] } }],
    })))
}

async fn stream(nats: &Nats) -> anyhow::Result<jetstream::Context> {
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    let config = jetstream::stream::Config { name: "TASKS".to_owned(), subjects: vec!["task.>".to_owned()], ..Default::default() };
    context.get_or_create_stream(config).await?;
    Ok(context)
}

async fn publish(context: &jetstream::Context, subject: &'static str, body: impl Into<bytes::Bytes>) -> anyhow::Result<()> {
    context.publish(subject, body.into()).await?.await?;
    Ok(())
}

async fn count(world: &World, wanted: usize) -> anyhow::Result<Vec<Value>> {
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        ensure!(incidents.len() == wanted, "{} incidents", incidents.len());
        Ok(incidents)
    })
    .await
}

#[tokio::test]
async fn messages_become_incidents_through_a_crash_of_the_server() -> anyhow::Result<()> {
    let mut nats = Nats::start().await?;
    let context = stream(&nats).await?;
    let world = plan(&nats)?.start().await?;
    publish(&context, "task.created", r#"{"id":"7","title":"Paint <!channel> the fence"}"#).await?;
    publish(&context, "task.7.failed", r#"{"id":"8","title":"No paint"}"#).await?;
    publish(&context, "task.7.done", r#"{"id":"9","title":"not subscribed"}"#).await?;
    let incidents = count(&world, 2).await?;
    let summaries: Vec<&str> = incidents.iter().filter_map(|incident| incident["summary"].as_str()).collect();
    ensure!(summaries.contains(&"No paint"), "{summaries:?}");

    nats.kill9()?;
    eventually(SOON, async || {
        let ready = world.http().get(format!("{}/health", world.url())).send().await?.text().await?;
        ensure!(ready.contains("degraded"), "{ready}");
        Ok(())
    })
    .await?;
    nats.restart().await?;
    let context = stream(&nats).await?;
    publish(&context, "task.created", r#"{"id":"10","title":"After the crash"}"#).await?;
    count(&world, 3).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_killed_watchkeeper_had_not_acknowledged_comes_again_and_is_not_doubled() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let context = stream(&nats).await?;
    let mut plan = plan(&nats)?;
    plan.config["routes"][0]["incident"]["group_by"] = json!(["alertname"]);
    let mut world = plan.start().await?;
    let over = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                publish(&context, "task.created", format!(r#"{{"id":"{number}","title":"one of many"}}"#)).await?;
                if number % 100 == 0 {
                    // The same task, said twice by its sender.
                    publish(&context, "task.created", format!(r#"{{"id":"{number}","title":"one of many"}}"#)).await?;
                }
                number += 1;
                // Not so many that the last start has all of them to take at once.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(number)
        }
    });
    for _ in 0..3 {
        eventually(SOON, async || {
            ensure!(!publisher.is_finished(), "the publisher failed");
            let count = world.metric("watchkeeper_events_received_total").await?;
            ensure!(count > 10.0, "{count} came in");
            Ok(())
        })
        .await?;
        world.kill9()?;
        world.start().await?;
    }
    over.store(true, Ordering::Relaxed);
    let messages: usize = publisher.await??;
    // What was on its way comes again half a minute later.
    eventually(SOON * 3, async || {
        let incidents = world.incidents().await?;
        ensure!(incidents.len() == 1, "{} incidents", incidents.len());
        let (total, active) = (&incidents[0]["alerts_total"], &incidents[0]["alerts_active"]);
        ensure!(*total == messages && *active == messages, "{total} of {messages} alerts, {active} active");
        Ok(())
    })
    .await
}

/// What nobody can read: no JSON, half of it, too deep, and nothing that tells what it is about.
fn poison(number: usize) -> Vec<u8> {
    let kinds: [&[u8]; 8] = [b"this is no JSON", b"", b"\xff\xfe\x00", b"{\"id\":\"1\"", b"{\"title\":\"no id\"}", b"null", b"[]", b"["];
    let kind = number % kinds.len();
    if kind == kinds.len() - 1 { b"[".repeat(10_000) } else { kinds[kind].to_vec() }
}

/// What the server took, sorted: tasks, and messages that it set aside and told of.
async fn told(world: &World) -> anyhow::Result<Vec<String>> {
    let events = world.all("/events", "after").await?;
    let mut told: Vec<String> = events
        .iter()
        .filter_map(|event| match &event["payload"]["labels"] {
            labels if labels["alertname"] == "Task" => Some(format!("task {}", labels["task"].as_str()?)),
            labels if labels["alertname"] == "MessageSetAside" => {
                let (message, rest) = event["payload"]["annotations"]["summary"].as_str()?.split_once(" on task.created was set aside")?;
                rest.starts_with(" after 5 attempts: ").then(|| format!("{message} set aside"))
            }
            _ => None,
        })
        .collect();
    told.sort();
    Ok(told)
}

#[tokio::test]
async fn messages_that_nobody_can_read_are_set_aside_once_each_and_the_others_go_on() -> anyhow::Result<()> {
    const EACH: usize = 200;
    harness::rounds("messages that nobody can read, then the server killed", 1, async |tally| {
        let nats = Nats::start().await?;
        let context = stream(&nats).await?;
        let mut plan = plan(&nats)?;
        plan.config["routes"][0]["incident"]["group_by"] = json!(["alertname"]);
        let mut world = plan.start().await?;
        let mut wanted = Vec::new();
        for number in 0..EACH {
            let sequence = context.publish("task.created", poison(number).into()).await?.await?.sequence;
            publish(&context, "task.created", format!(r#"{{"id":"{number}","title":"one of many"}}"#)).await?;
            wanted.extend([format!("Message {sequence} set aside"), format!("task {number}")]);
        }
        wanted.sort();
        tally.faults += EACH as u64;
        // After the fifth attempt; the first four take half a minute. It is killed among those that it sets aside.
        eventually(SOON * 2, async || {
            let incidents = world.incidents().await?;
            ensure!(incidents.iter().any(|incident| incident["source"] == "watchkeeper"), "none is set aside");
            Ok(())
        })
        .await?;
        world.kill9()?;
        tally.faults += 1;
        world.start().await?;
        // What was under way comes again half a minute later.
        eventually(SOON * 3, async || {
            let stream = context.get_stream("TASKS").await?;
            let left = stream.consumer_info("watchkeeper-tasks").await?;
            let left = (left.num_pending, left.num_ack_pending);
            ensure!(left == (0, 0), "{left:?} messages are not read or not acknowledged");
            Ok(())
        })
        .await?;
        let told = eventually(SOON, async || {
            let told = told(&world).await?;
            ensure!(told.len() >= wanted.len(), "{} of {} are told", told.len(), wanted.len());
            Ok(told)
        })
        .await?;
        tally.ledger(&told, &wanted)?;
        let incidents = world.incidents().await?;
        let found = incidents.iter().find(|incident| incident["source"] == "watchkeeper").context("no incident about ourselves")?;
        ensure!(found["summary"].as_str().is_some_and(|summary| summary.contains("after 5 attempts")), "{found}");
        Ok(())
    })
    .await
}
