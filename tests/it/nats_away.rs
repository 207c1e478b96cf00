//! NATS that is not there: when a server or an agent starts, and later for minutes. Whoever needs it waits, and everybody else goes on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, stream};
use harness::eventually;
use harness::peers::Nats;
use harness::world::{Alert, Plan, SOON, World};
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::plan_over;
use crate::agents_roll::agent_where;
use crate::nats_out::{ask, told};

/// Everything of NATS but agents: messages in, lifecycle events out, requests for runs.
fn plan(nats: &Nats) -> anyhow::Result<Plan> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.with(json!({
        "sources": { "tasks": { "kind": "generic", "map": { "fingerprint": "body.id", "labels": { "alertname": "\"Task\"", "task": "body.id" } } } },
        "nats": {
            "url": nats.url(),
            "subscriptions": { "tasks": { "stream": "TASKS", "subjects": ["task.>"] } },
            "publish": { "prefix": "wk", "stream": "LIVES" },
            "commands": { "prefix": "wk" },
        },
    }));
    let routes = plan.config["routes"].as_array_mut().context("no routes")?;
    routes.push(json!({ "match": ["alertname=\"Task\""], "incident": { "group_by": ["task"] } }));
    routes.push(json!({ "match": ["alertname=\"Each\""], "incident": { "group_by": ["n"] } }));
    Ok(plan)
}

/// A place where NATS will be, and never was.
async fn nowhere() -> anyhow::Result<Nats> {
    let mut nats = Nats::start().await?;
    nats.kill9()?;
    nats.delete_store()?;
    Ok(nats)
}

async fn stream(nats: &Nats, window: Duration) -> anyhow::Result<jetstream::Context> {
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    let subjects = vec!["task.>".to_owned()];
    context.create_stream(stream::Config { name: "TASKS".to_owned(), subjects, duplicate_window: window, ..Default::default() }).await?;
    Ok(context)
}

/// Whether `/health` says that all is well with NATS, and what it says.
async fn health(world: &World) -> anyhow::Result<(bool, String)> {
    let answer = world.http().get(format!("{}/health", world.url())).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    let document: Value = answer.json().await?;
    let nats = &document["checks"]["nats"];
    Ok((nats["status"] == "healthy", nats["detail"].as_str().unwrap_or_default().to_owned()))
}

#[tokio::test]
async fn a_server_that_finds_no_nats_does_its_work_and_tells_of_it_later() -> anyhow::Result<()> {
    let mut nats = nowhere().await?;
    // It gets ready: `start` waits for that.
    let world = plan(&nats)?.start().await?;
    let alert = Alert::service_down();
    world.send(std::slice::from_ref(&alert)).await?;
    let run = world.run_in("awaiting_approval", SOON).await?;
    let id = run["approval"]["id"].as_str().context("nothing waits for approval")?;
    let decided = json!({ "decision": "approve" });
    let answer = world.call("ben", Method::POST, &format!("/approvals/{id}/decision"), Some(&decided)).await?;
    ensure!(answer.status.is_success(), "{}", answer.json);
    world.run_in("succeeded", SOON).await?;
    world.send(&[alert.resolved()]).await?;
    world.incident_in(1, "closed", SOON).await?;
    eventually(SOON, async || {
        let (well, detail) = health(&world).await?;
        ensure!(!well && ["commands: ", "publish: ", "tasks: "].iter().all(|part| detail.contains(part)), "{detail}");
        Ok(())
    })
    .await?;

    nats.restart().await?;
    let context = stream(&nats, Duration::from_secs(120)).await?;
    for id in ["7", "8"] {
        context.publish("task.created", format!(r#"{{"id":"{id}"}}"#).into()).await?.await?;
    }
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        let tasks = incidents.iter().filter(|incident| incident["source"] == "tasks").count();
        ensure!((tasks, incidents.len()) == (2, 3), "{tasks} tasks among {} incidents", incidents.len());
        Ok(())
    })
    .await?;
    // What happened while nobody could hear it, once each, and of the one incident in order.
    let wanted = ["incident.opened", "approval.requested", "approval.approved", "run.running", "run.succeeded", "incident.closed"];
    eventually(SOON, async || {
        let events = told(&nats).await?;
        let first = events.iter().find(|one| one.body["subject"] == "incident/1").context("nothing is told of the first")?;
        let of_it = events.iter().filter(|one| one.body["partitionkey"] == first.body["partitionkey"]);
        let of_it: Vec<&str> = of_it.map(|one| one.subject.trim_start_matches("wk.")).collect();
        let places: Vec<_> = wanted.iter().map(|word| of_it.iter().position(|subject| subject == word)).collect();
        ensure!(places.iter().all(Option::is_some) && places.is_sorted(), "{wanted:?} are not all in order in {of_it:?}");
        ensure!(of_it.iter().collect::<BTreeSet<_>>().len() == of_it.len(), "told twice: {of_it:?}");
        ensure!(events.iter().filter(|one| one.subject == "wk.incident.opened").count() == 3, "{} are told", events.len());
        Ok(())
    })
    .await?;

    let wanted = json!({ "runbook": "restart-service", "params": { "target": "demo" }, "request_id": "later" });
    let token = world.token("ann").await?;
    let answer = eventually(SOON, async || {
        let (code, answer) = ask(&nats, &wanted, Some(&token)).await?;
        ensure!(code.is_empty(), "{code} {answer}");
        Ok(answer)
    })
    .await?;
    ensure!(answer["code"] == "awaiting_approval", "{answer}");
    eventually(SOON, async || {
        let (well, detail) = health(&world).await?;
        ensure!(well, "{detail}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agent_that_finds_no_nats_announces_itself_and_takes_orders_later() -> anyhow::Result<()> {
    let mut nats = nowhere().await?;
    let link = json!({ "url": nats.url() });
    let (plan, mut edge, ledger) = plan_over(&link, &link, &["late"], "10m").await?;
    edge.start()?;
    let proc = edge.proc.as_mut().context("no agent")?;
    eventually(SOON, async || {
        ensure!(proc.log().contains("NATS cannot be used: trying again"), "it has not tried:\n{}", proc.log());
        Ok(())
    })
    .await?;
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    world.run_in("running", SOON).await?;
    // Time in which nothing may happen: the order waits, and nobody gives up.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(ledger.lines().is_empty() && proc.is_running(), "{:?}\n{}", ledger.lines(), proc.log());
    ensure!(agent_where(&world, |_| true).await?["here"] == false, "nobody can have heard of it");

    nats.restart().await?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    world.run_in("succeeded", SOON).await?;
    assert_eq!(ledger.lines(), ["late"]);
    Ok(())
}

/// Messages before and after, and webhooks meanwhile: each is one event here, and each incident's opening is told once.
#[tokio::test]
async fn nats_that_was_away_for_minutes_costs_nothing() -> anyhow::Result<()> {
    const BEFORE: usize = 100;
    const AFTER: usize = 20;
    const MEANWHILE: usize = 10;
    harness::rounds("NATS away for minutes", 1, async |tally| {
        // At length for longer than a message may be under way (30 s) and than streams know ids by default (two minutes), later and in the short form
        // only for longer than this stream knows them.
        let minutes = harness::long() && tally.rounds == 1;
        let (window, away) =
            if minutes { (Duration::from_secs(120), Duration::from_secs(160)) } else { (Duration::from_secs(1), Duration::from_secs(4)) };
        let mut nats = Nats::start().await?;
        let context = stream(&nats, window).await?;
        let world = plan(&nats)?.start().await?;
        let say = async |context: &jetstream::Context, ids: std::ops::Range<usize>| {
            for id in ids {
                let message = PublishMessage::build().payload(format!(r#"{{"id":"{id}"}}"#).into()).message_id(format!("task-{id}"));
                let ack = context.send_publish("task.created", message).await?.await?;
                ensure!(!ack.duplicate, "the stream still knows {id}");
            }
            anyhow::Ok(())
        };
        say(&context, 0..BEFORE).await?;
        nats.kill9()?;
        let began = Instant::now();
        tally.faults += 1;
        // All the time that it is away, webhooks come in and are decided.
        let every = away / u32::try_from(MEANWHILE)?;
        for n in 0..MEANWHILE {
            world.send(&[Alert::new("Each").label("n", &n.to_string())]).await?;
            tokio::time::sleep(every).await;
        }
        eventually(SOON, async || {
            let incidents = world.incidents().await?;
            let meanwhile = incidents.iter().filter(|incident| incident["source"] == "am").count();
            ensure!(meanwhile == MEANWHILE, "{meanwhile} webhooks are decided");
            Ok(())
        })
        .await?;
        ensure!(began.elapsed() > window, "it was away for {:?} only", began.elapsed());
        nats.restart().await?;
        let context = jetstream::new(async_nats::connect(nats.url()).await?);
        // The sender was away as long, and says everything again.
        say(&context, 0..BEFORE + AFTER).await?;

        let mut wanted: Vec<String> = (0..BEFORE + AFTER).map(|id| format!("task {id}")).collect();
        wanted.extend((0..MEANWHILE).map(|n| format!("webhook {n}")));
        wanted.sort();
        eventually(SOON * 2, async || {
            let consumer = context.get_stream("TASKS").await?.consumer_info("watchkeeper-tasks").await?;
            let left = (consumer.num_pending, consumer.num_ack_pending);
            ensure!(left == (0, 0), "{left:?} messages are not read or not acknowledged");
            let count = world.incidents().await?.len();
            ensure!(count >= wanted.len(), "{count} incidents of {}", wanted.len());
            Ok(())
        })
        .await?;
        tally.ledger(&events(&world).await?, &wanted)?;
        let incidents = world.incidents().await?;
        let (count, single) = (incidents.len(), incidents.iter().filter(|incident| incident["alerts_total"] == 1).count());
        ensure!(count == wanted.len() && single == count, "{count} incidents, {single} of one alert");
        let opened = eventually(SOON * 2, async || {
            let all = told(&nats).await?;
            let opened: Vec<String> =
                all.iter().filter(|one| one.subject == "wk.incident.opened").map(|one| one.body["subject"].to_string()).collect();
            ensure!(opened.len() >= count, "{} of {count} openings are told", opened.len());
            Ok(opened)
        })
        .await?;
        let once = opened.iter().collect::<BTreeSet<_>>().len();
        ensure!((opened.len(), once) == (count, count), "{} openings of {once} incidents are told", opened.len());
        Ok(())
    })
    .await
}

/// What is stored, sorted.
async fn events(world: &World) -> anyhow::Result<Vec<String>> {
    let stored = world.all("/events", "after").await?;
    let name = |event: &Value| {
        let labels = &event["payload"]["labels"];
        let (kind, label) = if labels["alertname"] == "Task" { ("task", "task") } else { ("webhook", "n") };
        format!("{kind} {}", labels[label].as_str().unwrap_or("nobody knows"))
    };
    let mut names: Vec<String> = stored.iter().map(name).collect();
    names.sort();
    Ok(names)
}
