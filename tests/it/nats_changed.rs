//! A configuration of NATS that changed: consumers follow its subjects, messages its `map`, and what was on the stream is taken once.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::jetstream::{self, consumer, stream};
use harness::eventually;
use harness::peers::{Nats, Postgres};
use harness::world::{Plan, SOON, World};
use reqwest::Method;
use serde_json::{Value, json};

use crate::replicas::replica;

fn plan(nats: &Nats, subjects: &[&str]) -> anyhow::Result<Plan> {
    Ok(fed(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?, nats, subjects))
}

fn fed(plan: Plan, nats: &Nats, subjects: &[&str]) -> Plan {
    plan.with(json!({
        "sources": { "tasks": { "kind": "generic", "map": { "fingerprint": "body.id", "labels": { "alertname": "\"Task\"", "task": "body.id" } } } },
        "nats": { "url": nats.url(), "subscriptions": { "tasks": { "stream": "TASKS", "subjects": subjects } } },
        "routes": [{ "match": ["alertname=\"Task\""], "incident": { "group_by": ["task"] } }],
    }))
}

async fn stream(nats: &Nats, config: stream::Config) -> anyhow::Result<jetstream::Context> {
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    context.create_stream(stream::Config { name: "TASKS".to_owned(), subjects: vec!["task.>".to_owned()], ..config }).await?;
    Ok(context)
}

async fn publish(context: &jetstream::Context, messages: &[(&'static str, usize)]) -> anyhow::Result<()> {
    for (subject, id) in messages {
        context.publish(*subject, format!(r#"{{"id":"{id}"}}"#).into()).await?.await?;
    }
    Ok(())
}

/// Writes what follows into the configuration.
fn change(world: &World, pointer: &str, value: Value) -> anyhow::Result<()> {
    let file = world.config().join("watchkeeper.yaml");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    *config.pointer_mut(pointer).with_context(|| format!("{pointer} is not there"))? = value;
    Ok(fs::write(file, config.to_string())?)
}

async fn restarted_with(world: &mut World, subjects: &[&str]) -> anyhow::Result<()> {
    change(world, "/nats/subscriptions/tasks/subjects", json!(subjects))?;
    world.start().await
}

/// Waits until there are incidents of these tasks and no others, and nothing is left to read. What was under way when a server was killed comes again half
/// a minute later.
async fn tasks(world: &World, context: &jetstream::Context, wanted: &[usize]) -> anyhow::Result<()> {
    eventually(SOON * 2, async || {
        let incidents = world.incidents().await?;
        let tasks = incidents.iter().filter_map(|incident| incident["labels"]["task"].as_str()?.parse().ok());
        let mut tasks: Vec<usize> = tasks.collect();
        tasks.sort_unstable();
        ensure!(tasks == wanted, "{tasks:?}");
        let left = consumer(context).await?;
        let left = (left.num_pending, left.num_ack_pending);
        ensure!(left == (0, 0), "{left:?} messages are not read or not acknowledged");
        Ok(())
    })
    .await
}

async fn consumer(context: &jetstream::Context) -> anyhow::Result<consumer::Info> {
    Ok(context.get_stream("TASKS").await?.consumer_info("watchkeeper-tasks").await?)
}

/// Waits until the consumer hands out these.
async fn follows(context: &jetstream::Context, subjects: &[&str]) -> anyhow::Result<()> {
    eventually(SOON, async || {
        let config = consumer(context).await?.config;
        ensure!(config.filter_subjects == subjects || config.filter_subject == subjects.join(","), "{config:?}");
        Ok(())
    })
    .await
}

/// How many messages this start of the server took.
async fn took(world: &World, wanted: usize) -> anyhow::Result<()> {
    let count = world.count("watchkeeper_events_received_total").await?;
    ensure!((count - wanted as f64).abs() < f64::EPSILON, "{count} messages were taken instead of {wanted}");
    Ok(())
}

#[tokio::test]
async fn a_subject_that_was_added_is_taken_from_the_beginning_and_the_others_go_on() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let context = stream(&nats, stream::Config::default()).await?;
    let mut world = plan(&nats, &["task.created"])?.start().await?;
    publish(&context, &[("task.created", 1), ("task.failed", 2), ("task.created", 3), ("task.done", 4)]).await?;
    tasks(&world, &context, &[1, 3]).await?;
    world.stop().await?;
    publish(&context, &[("task.failed", 5), ("task.created", 6), ("task.done", 7)]).await?;
    restarted_with(&mut world, &["task.failed", "task.created"]).await?;
    publish(&context, &[("task.failed", 8), ("task.created", 9), ("task.done", 10)]).await?;
    tasks(&world, &context, &[1, 2, 3, 5, 6, 8, 9]).await?;
    // Those that were taken before are not taken again.
    took(&world, 5).await?;

    // With wildcards, and without one that was there: what it had read stays read.
    world.stop().await?;
    publish(&context, &[("task.failed", 11), ("task.done", 12)]).await?;
    restarted_with(&mut world, &["task.*"]).await?;
    tasks(&world, &context, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).await?;
    took(&world, 5).await?;
    // Nothing of it was lost, so nothing is told.
    ensure!(world.count("watchkeeper_nats_lost_messages_total").await? < 0.5, "messages are told as lost");
    Ok(())
}

#[tokio::test]
async fn a_subject_that_was_taken_away_is_not_taken_any_more_and_the_others_go_on() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let context = stream(&nats, stream::Config::default()).await?;
    let mut world = plan(&nats, &["task.>"])?.start().await?;
    publish(&context, &[("task.created", 1), ("task.failed", 2)]).await?;
    tasks(&world, &context, &[1, 2]).await?;
    let before = consumer(&context).await?.created;
    world.stop().await?;
    publish(&context, &[("task.failed", 3), ("task.created", 4)]).await?;
    restarted_with(&mut world, &["task.created"]).await?;
    publish(&context, &[("task.failed", 5), ("task.created", 6)]).await?;
    tasks(&world, &context, &[1, 2, 4, 6]).await?;
    took(&world, 2).await?;
    ensure!(consumer(&context).await?.created == before, "the consumer was made anew, though it had nothing to read again");

    // There again: what came meanwhile is taken, what was taken is not.
    world.stop().await?;
    restarted_with(&mut world, &["task.failed", "task.created"]).await?;
    tasks(&world, &context, &[1, 2, 3, 4, 5, 6]).await?;
    took(&world, 2).await
}

/// It is killed at any place of that: while it takes what is there, while the consumer is made again, while it reads again.
#[tokio::test]
async fn a_server_that_is_killed_while_its_subjects_change_takes_everything_once() -> anyhow::Result<()> {
    harness::rounds("server killed while its subjects change", 1, async |tally| {
        let nats = Nats::start().await?;
        let context = stream(&nats, stream::Config::default()).await?;
        let messages: Vec<(&str, usize)> = (0..60).map(|id| (["task.created", "task.failed", "task.done"][id % 3], id)).collect();
        let mut world = plan(&nats, &["task.created"])?.start().await?;
        publish(&context, &messages).await?;
        for subjects in [&["task.failed", "task.created"][..], &["task.failed"], &["task.*"]] {
            // Until it has begun with what is there.
            eventually(SOON, async || {
                let pending = consumer(&context).await?.num_pending;
                ensure!(pending < 20, "{pending} are not handed out");
                Ok(())
            })
            .await?;
            world.kill9()?;
            restarted_with(&mut world, subjects).await?;
            // It connects in this time, and sets the consumer up: another place in each round.
            tokio::time::sleep(Duration::from_millis(tally.rounds * 13 % 200)).await;
            world.kill9()?;
            tally.faults += 2;
            world.start().await?;
        }
        let wanted: Vec<usize> = (0..60).collect();
        tasks(&world, &context, &wanted).await?;
        tally.lines += 60;
        let lost = world.count("watchkeeper_nats_lost_messages_total").await?;
        ensure!(lost < 0.5, "{lost} messages are told as lost");
        Ok(())
    })
    .await
}

/// Each finds the consumer as it was, and would make it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_start_at_once_with_changed_subjects_take_everything_once() -> anyhow::Result<()> {
    let (database, nats) = (Postgres::shared().await?.create_database().await?, Nats::start().await?);
    let context = stream(&nats, stream::Config::default()).await?;
    let mut a = fed(replica("a", &database)?, &nats, &["task.created"]).start().await?;
    let mut b = fed(replica("b", &database)?, &nats, &["task.created"]).start().await?;
    let mut ids = 0..;
    let mut some = |count: usize| -> Vec<(&'static str, usize)> {
        ids.by_ref().take(count).map(|id| (["task.created", "task.failed", "task.done"][id % 3], id)).collect()
    };
    publish(&context, &some(30)).await?;
    for subjects in [&["task.created", "task.failed"][..], &["task.done", "task.failed"], &["task.created"], &["task.*"]] {
        tokio::try_join!(a.stop(), b.stop())?;
        publish(&context, &some(30)).await?;
        for world in [&a, &b] {
            change(world, "/nats/subscriptions/tasks/subjects", json!(subjects))?;
        }
        let meanwhile = some(150);
        let slowly = async {
            for message in meanwhile {
                publish(&context, &[message]).await?;
                // They start in this time.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(a.start(), b.start(), slowly)?;
        publish(&context, &some(30)).await?;
        follows(&context, subjects).await?;
    }
    let all: Vec<usize> = (0..some(1)[0].1).collect();
    tasks(&a, &context, &all).await?;
    for world in [&a, &b] {
        ensure!(world.count("watchkeeper_nats_lost_messages_total").await? < 0.5, "messages are told as lost");
        let again: Vec<_> = world.log_lines().into_iter().filter(|line| line.to_string().contains("NATS is away")).collect();
        ensure!(again.is_empty(), "one took the consumer from the other: {again:?}");
    }
    Ok(())
}

/// Such a stream forgets what nobody waits for: a consumer that is deleted would take everything with it.
#[tokio::test]
async fn streams_that_let_go_of_what_is_acknowledged_follow_too() -> anyhow::Result<()> {
    for retention in [stream::RetentionPolicy::WorkQueue, stream::RetentionPolicy::Interest] {
        let nats = Nats::start().await?;
        let context = stream(&nats, stream::Config { retention, ..Default::default() }).await?;
        let mut world = plan(&nats, &["task.created"])?.start().await?;
        follows(&context, &["task.created"]).await?;
        publish(&context, &[("task.created", 1), ("task.failed", 2)]).await?;
        tasks(&world, &context, &[1]).await?;
        world.stop().await?;
        publish(&context, &[("task.created", 3), ("task.failed", 4)]).await?;
        restarted_with(&mut world, &["task.created", "task.failed"]).await?;
        follows(&context, &["task.created", "task.failed"]).await?;
        publish(&context, &[("task.created", 5), ("task.failed", 6)]).await?;
        // What nobody subscribed to is not even kept by a stream of interest.
        let wanted: &[usize] = if retention == stream::RetentionPolicy::WorkQueue { &[1, 2, 3, 4, 5, 6] } else { &[1, 3, 5, 6] };
        tasks(&world, &context, wanted).await?;
        took(&world, wanted.len() - 1).await?;
        if retention == stream::RetentionPolicy::WorkQueue {
            // One that vanished is made again, though such a stream lets none begin where it was.
            context.get_stream("TASKS").await?.delete_consumer("watchkeeper-tasks").await?;
            publish(&context, &[("task.created", 7)]).await?;
            eventually(SOON, async || took(&world, 6).await).await?;
        }
    }
    Ok(())
}

/// Another consumer of a work queue has one of the subjects, which is this kind of stream's own reason to refuse. What was read before is read on.
#[tokio::test]
async fn subjects_that_nats_refuses_leave_the_consumer_as_it_was() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let context = stream(&nats, stream::Config { retention: stream::RetentionPolicy::WorkQueue, ..Default::default() }).await?;
    let others =
        consumer::pull::Config { durable_name: Some("others".to_owned()), filter_subject: "task.failed".to_owned(), ..Default::default() };
    context.get_stream("TASKS").await?.create_consumer(others).await?;
    let mut world = plan(&nats, &["task.created"])?.allow("NATS refuses the changed subjects").start().await?;
    publish(&context, &[("task.created", 1)]).await?;
    tasks(&world, &context, &[1]).await?;
    world.stop().await?;
    publish(&context, &[("task.created", 2), ("task.failed", 3)]).await?;
    restarted_with(&mut world, &["task.created", "task.failed"]).await?;
    publish(&context, &[("task.created", 4)]).await?;
    tasks(&world, &context, &[1, 2, 4]).await?;
    let health = world.http().get(format!("{}/readyz", world.url())).send().await?.text().await?;
    ensure!(health.contains("those before are read"), "{health}");
    Ok(())
}

/// What somebody set about the consumer is theirs.
#[tokio::test]
async fn a_consumer_that_follows_keeps_what_else_was_set_about_it() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let context = stream(&nats, stream::Config::default()).await?;
    let mut world = plan(&nats, &["task.created"])?.start().await?;
    follows(&context, &["task.created"]).await?;
    let set = consumer::pull::Config {
        durable_name: Some("watchkeeper-tasks".to_owned()),
        filter_subjects: vec!["task.created".to_owned()],
        ack_policy: consumer::AckPolicy::Explicit,
        ack_wait: Duration::from_secs(77),
        max_ack_pending: 33,
        ..Default::default()
    };
    context.get_stream("TASKS").await?.update_consumer(set).await?;
    world.stop().await?;
    restarted_with(&mut world, &["task.created", "task.failed"]).await?;
    follows(&context, &["task.created", "task.failed"]).await?;
    let config = consumer(&context).await?.config;
    ensure!(config.max_ack_pending == 33 && config.ack_wait == Duration::from_secs(77), "{config:?}");
    publish(&context, &[("task.failed", 1)]).await?;
    tasks(&world, &context, &[1]).await
}

#[tokio::test]
async fn messages_follow_a_changed_map_without_a_restart() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let context = stream(&nats, stream::Config::default()).await?;
    let world = plan(&nats, &["task.>"])?.start().await?;
    publish(&context, &[("task.created", 1)]).await?;
    tasks(&world, &context, &[1]).await?;
    // Nobody can read this one by the map that is in force.
    context.publish("task.created", r#"{"number":2}"#.into()).await?.await?;
    eventually(SOON, async || {
        let rejected = world.count("watchkeeper_events_rejected_total").await?;
        ensure!(rejected > 0.5, "it is not offered yet");
        Ok(())
    })
    .await?;
    let map = json!({ "fingerprint": "string(body.number)", "labels": { "alertname": "\"Task\"", "task": "string(body.number)" } });
    change(&world, "/sources/tasks/map", map)?;
    let reload = world.http().request(Method::POST, format!("{}/-/reload", world.url())).bearer_auth(world.token("ann").await?);
    reload.send().await?.error_for_status()?;
    context.publish("task.created", r#"{"number":3}"#.into()).await?.await?;
    tasks(&world, &context, &[1, 2, 3]).await
}
