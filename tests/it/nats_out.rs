//! Lifecycle events on NATS, and requests for runs by it.

use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use futures::StreamExt;
use harness::eventually;
use harness::peers::Nats;
use harness::world::{Alert, Plan, SOON, World};
use serde_json::{Value, json};

use crate::backup::backup;

/// One event as it stands on the stream.
pub(super) struct Told {
    pub(super) subject: String,
    msg_id: String,
    pub(super) body: Value,
}

/// Everything that the stream holds, in order.
pub(super) async fn told(nats: &Nats) -> anyhow::Result<Vec<Told>> {
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    let mut stream = context.get_stream("LIVES").await?;
    let count = usize::try_from(stream.info().await?.state.messages)?;
    let consumer = stream.create_consumer(pull::Config::default()).await?;
    let mut all = Vec::new();
    let mut messages = consumer.fetch().max_messages(count.max(1)).expires(Duration::from_secs(2)).messages().await?;
    while let Some(message) = messages.next().await {
        let message = message.map_err(|error| anyhow::anyhow!("{error}"))?;
        let msg_id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id")).context("no Nats-Msg-Id")?;
        all.push(Told {
            subject: message.subject.to_string(),
            msg_id: msg_id.to_string(),
            body: serde_json::from_slice(&message.payload)?,
        });
    }
    Ok(all)
}

async fn subjects(nats: &Nats, wanted: &[&str]) -> anyhow::Result<Vec<Told>> {
    eventually(SOON, async || {
        let all = told(nats).await?;
        let found: Vec<&str> = all.iter().map(|told| told.subject.as_str()).collect();
        ensure!(found == wanted, "{found:?}");
        Ok(all)
    })
    .await
}

fn plan(nats: &Nats) -> anyhow::Result<Plan> {
    let section = json!({ "url": nats.url(), "publish": { "prefix": "wk", "stream": "LIVES" }, "commands": { "prefix": "wk" } });
    Ok(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.with(json!({ "nats": section })))
}

#[tokio::test]
async fn lives_are_told_in_order_through_a_nats_that_loses_everything() -> anyhow::Result<()> {
    let mut nats = Nats::start().await?;
    let world = plan(&nats)?.with(json!({ "incidents": { "close_after": "1h" } })).start().await?;
    let alert = Alert::service_down();
    world.send(std::slice::from_ref(&alert)).await?;
    let asked = ["wk.incident.opened", "wk.run.awaiting_approval", "wk.approval.requested"];
    let all = subjects_of_any_order(&nats, &asked).await?;
    let opened = &all.iter().find(|told| told.subject == "wk.incident.opened").context("not opened")?;
    ensure!(opened.body["specversion"] == "1.0" && opened.body["type"] == "watchkeeper.incident.opened.v1", "{}", opened.body);
    ensure!(opened.body["id"] == opened.msg_id.as_str() && opened.body["subject"] == "incident/1", "{}", opened.body);
    ensure!(opened.body["data"]["severity"] == "P1" && opened.body["data"]["number"] == 1, "{}", opened.body);
    ensure!(opened.body["source"] == world.url() && opened.body["datacontenttype"] == "application/json", "{}", opened.body);
    ensure!(all.iter().all(|told| told.body["partitionkey"] == opened.body["partitionkey"]), "one incident, one partition");

    nats.kill9()?;
    nats.delete_store()?;
    world.send(&[alert.resolved()]).await?;
    world.incident_in(1, "resolved", SOON).await?;
    eventually(SOON, async || {
        let health = world.http().get(format!("{}/health", world.url())).send().await?.text().await?;
        ensure!(health.contains("publish: "), "{health}");
        Ok(())
    })
    .await?;
    nats.restart().await?;
    subjects_of_any_order(&nats, &["wk.incident.resolved"]).await?;
    Ok(())
}

/// The stream holds these among others; what is told of one incident comes in the order of its transactions.
async fn subjects_of_any_order(nats: &Nats, wanted: &[&str]) -> anyhow::Result<Vec<Told>> {
    eventually(SOON * 2, async || {
        let all = told(nats).await?;
        let found: Vec<&str> = all.iter().map(|told| told.subject.as_str()).collect();
        ensure!(wanted.iter().all(|subject| found.contains(subject)), "{found:?}");
        let ids: std::collections::BTreeSet<&str> = all.iter().map(|told| told.msg_id.as_str()).collect();
        ensure!(ids.len() == all.len(), "one came twice: {found:?}");
        Ok(all)
    })
    .await
}

#[tokio::test]
async fn a_killed_watchkeeper_tells_what_it_had_committed_once() -> anyhow::Result<()> {
    const INCIDENTS: usize = 40;
    let nats = Nats::start().await?;
    let mut plan = plan(&nats)?;
    plan.merge(json!({ "routes": [{ "match": ["alertname=\"Each\""], "incident": { "group_by": ["n"] } }] }));
    let mut world = plan.start().await?;
    for n in 0..INCIDENTS {
        world.send(&[Alert::new("Each").label("n", &n.to_string())]).await?;
        if n % 15 == 14 {
            world.kill9()?;
            world.start().await?;
        }
    }
    subjects(&nats, &["wk.incident.opened"; INCIDENTS]).await?;
    Ok(())
}

pub(super) async fn ask(nats: &Nats, body: &Value, token: Option<&str>) -> anyhow::Result<(String, Value)> {
    let client = async_nats::connect(nats.url()).await?;
    let mut headers = async_nats::HeaderMap::new();
    if let Some(token) = token {
        headers.insert("Authorization", format!("Bearer {token}").as_str());
    }
    let answer =
        eventually(SOON, async || Ok(client.request_with_headers("wk.cmd.runbook.run", headers.clone(), body.to_string().into()).await?))
            .await?;
    let told = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code")).map(ToString::to_string);
    Ok((told.unwrap_or_default(), serde_json::from_slice(&answer.payload)?))
}

#[tokio::test]
async fn a_run_is_asked_for_over_nats_by_whoever_may() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let world = plan(&nats)?.start().await?;
    let (ann, cleo) = (world.token("ann").await?, world.token("cleo").await?);
    let wanted = json!({ "runbook": "restart-service", "params": { "target": "demo" }, "request_id": "deploy-7" });

    let (code, answer) = ask(&nats, &wanted, None).await?;
    ensure!(code == "401" && answer["code"] == "unauthorized", "{code} {answer}");
    let (code, answer) = ask(&nats, &wanted, Some("wk_nonsense")).await?;
    ensure!(code == "401", "{code} {answer}");
    let (code, answer) = ask(&nats, &wanted, Some(&cleo)).await?;
    ensure!(code == "403", "{code} {answer}");
    let (code, answer) = ask(&nats, &json!({ "runbook": "../tokens" }), Some(&ann)).await?;
    ensure!(code == "400", "{code} {answer}");
    let (code, answer) = ask(&nats, &json!({ "runbook": "restart-everything" }), Some(&ann)).await?;
    ensure!(code == "404", "{code} {answer}");
    ensure!(world.runs().await?.is_empty(), "nobody started anything");

    let (code, first) = ask(&nats, &wanted, Some(&ann)).await?;
    ensure!(code.is_empty() && first["done"] == true && first["code"] == "awaiting_approval", "{first}");
    let mut with_token = wanted.clone();
    with_token["token"] = json!(ann);
    let (_, again) = ask(&nats, &with_token, None).await?;
    ensure!(first["run"].is_string() && first == again, "the same request is the same run: {first} {again}");
    let runs = world.runs().await?;
    ensure!(runs.len() == 1 && runs[0]["id"] == first["run"] && runs[0]["requester"] == "ann", "{runs:?}");
    Ok(())
}

/// A restore changes states without the server; the bus hears of that too, whichever way the store came back.
#[tokio::test]
async fn what_a_restore_changes_is_told_too() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let mut world = plan(&nats)?.start().await?;
    world.send(&[Alert::service_down()]).await?;
    subjects_of_any_order(&nats, &["wk.incident.opened", "wk.run.awaiting_approval", "wk.approval.requested"]).await?;
    let name = world.dir().join("a.backup").to_str().context("no name")?.to_owned();
    let (made, said) = backup(&world, &["create", "--out", &name]).await?;
    ensure!(made, "{said}");
    for (times, way) in [vec!["restored"], vec!["restore", &name, "--force"]].iter().enumerate() {
        world.stop().await?;
        let (done, said) = backup(&world, way).await?;
        ensure!(done, "{said}");
        world.start().await?;
        eventually(SOON * 2, async || {
            let all = told(&nats).await?;
            for wanted in ["wk.run.superseded", "wk.approval.expired"] {
                let found = all.iter().filter(|told| told.subject == wanted).count();
                ensure!(found == times + 1, "{wanted} was told {found} times after `backup {}`", way.join(" "));
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A server that says who it is, and no more than a client needs to believe it.
async fn old_server() -> anyhow::Result<String> {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("nats://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (read, mut write) = socket.into_split();
                let info = r#"{"server_id":"OLD","version":"2.9.10","proto":1,"go":"go1.19","host":"0.0.0.0","port":4222,"headers":true,"max_payload":1048576,"jetstream":true}"#;
                write.write_all(format!("INFO {info}\r\n").as_bytes()).await?;
                let mut lines = BufReader::new(read).lines();
                while let Some(line) = lines.next_line().await? {
                    if line == "PING" {
                        write.write_all(b"PONG\r\n").await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    Ok(url)
}

#[tokio::test]
async fn a_server_before_2_10_is_refused_with_a_clear_word() -> anyhow::Result<()> {
    let url = old_server().await?;
    let plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.with(json!({ "nats": { "url": url, "commands": {} } }));
    let world: World = plan.start().await?;
    eventually(SOON, async || {
        let health = world.http().get(format!("{}/health", world.url())).send().await?.text().await?;
        ensure!(health.contains("NATS server 2.9.10 is too old: it takes 2.10 or later"), "{health}");
        Ok(())
    })
    .await
}
