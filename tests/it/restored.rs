//! After a restore: what is heard of what was under way before goes on nothing, and nothing of the store that was there gets into the new one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::eventually;
use harness::peers::Nats;
use harness::world::{Alert, Ledger, Plan, SOON, World};
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::{Edge, begun, plan};
use crate::agents_roll::agent_where;
use crate::backup::backup;
use crate::load::{Load, all_there};

/// The first step writes `first` on the agent and has so long for it, the second one here; nobody can tell whether either happened.
async fn two_steps(nats: &Nats, first: &[&str], timeout: &str) -> anyhow::Result<(Plan, Edge, Ledger)> {
    let (mut plan, edge, ledger) = plan(nats, &nats.url(), first, timeout).await?;
    let mut steps = plan.config["runbooks"]["restart-service"]["steps"].clone();
    let with = json!({ "target": "box", "program": ledger.program, "args": ["local"] });
    steps.as_array_mut().context("no steps")?.push(json!({ "id": "local", "uses": "command", "with": with }));
    plan.merge(json!({ "targets": { "box": { "kind": "systemd", "unit": "box.service" } }, "runbooks": { "restart-service": { "steps": steps } } }));
    Ok((plan, edge, ledger))
}

async fn make(world: &World) -> anyhow::Result<String> {
    let name = world.dir().join("a.backup").to_str().context("no name")?.to_owned();
    let (made, said) = backup(world, &["create", "--out", &name]).await?;
    ensure!(made, "{said}");
    Ok(name)
}

async fn go_back(world: &mut World, name: &str) -> anyhow::Result<String> {
    let (done, said) = backup(world, &["restore", name, "--force"]).await?;
    ensure!(done, "{said}");
    world.forget_tokens().await;
    Ok(said)
}

async fn resume(world: &World) -> anyhow::Result<()> {
    let answer = world.call("ann", Method::POST, "/automation", Some(&json!({ "paused": false }))).await?;
    ensure!(answer.status.is_success(), "{answer:?}");
    Ok(())
}

/// The run, once it was heard what became of its first attempt.
async fn heard(world: &World, word: &str) -> anyhow::Result<Value> {
    eventually(SOON * 2, async || {
        let run = world.run_in("unknown", SOON).await?;
        let told = run["attempts"][0]["error"].as_str().unwrap_or_default();
        ensure!(told.contains("it was heard that") && told.contains(word), "{run}");
        Ok(run)
    })
    .await
}

#[tokio::test]
async fn a_late_report_is_kept_and_a_person_says_what_follows() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let (plan, _edge, ledger) = two_steps(&nats, &["until", "copied"], "5m").await?;
    let mut world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    begun(&ledger).await?;
    let name = make(&world).await?;
    ledger.let_go("copied")?;
    world.run_in("succeeded", SOON).await?;
    assert_eq!(ledger.lines(), ["until copied", "local"]);

    world.stop().await?;
    let said = go_back(&mut world, &name).await?;
    ensure!(said.contains("1 runs that were under way are unknown"), "{said}");
    world.start().await?;
    resume(&world).await?;
    let run = heard(&world, "succeeded: exited with 0").await?;
    assert_eq!((run["attempts"][0]["state"].as_str(), run["attempts"][0]["output"]["data"]["exit"].as_i64()), (Some("unknown"), Some(0)));
    ensure!(run["run"]["reason"].as_str().is_some_and(|why| why.contains("it was heard that")), "{run}");
    // Time in which it could go on.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let run = world.run_in("unknown", SOON).await?;
    assert_eq!((run["attempts"].as_array().map(Vec::len), ledger.lines()), (Some(1), vec!["until copied".to_owned(), "local".to_owned()]));

    // A person goes on with it: under a fence of the new epoch, above everything from before.
    let path = format!("/runs/{}/settle", run["run"]["id"].as_str().context("no id")?);
    let said = json!({ "how": "ran", "reason": "the agent says so; the second step may run again" });
    let answer = world.call("ben", Method::POST, &path, Some(&said)).await?;
    ensure!(answer.status.is_success(), "{answer:?}");
    let run = world.run_in("succeeded", SOON).await?;
    let fence = |n: usize| run["attempts"][n]["place"]["fence"]["epoch"].as_i64();
    ensure!(fence(0) == Some(1) && fence(1).is_some_and(|epoch| epoch > 1), "{run}");
    assert_eq!(ledger.lines(), ["until copied", "local", "local"]);
    Ok(())
}

/// The backup knows of an order, and its agent never will: to ask after it is not to give it once more.
#[tokio::test]
async fn an_order_that_its_agent_never_heard_of_is_not_given_by_a_restore() -> anyhow::Result<()> {
    let mut nats = Nats::start().await?;
    let (plan, mut edge, ledger) = two_steps(&nats, &["never"], "60s").await?;
    let mut world = plan.start().await?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    edge.kill9()?;
    world.send(&[Alert::service_down()]).await?;
    eventually(SOON, async || {
        let run = world.run_in("running", SOON).await?;
        ensure!(!run["attempts"][0]["place"]["execution"].is_null(), "{run}");
        Ok(())
    })
    .await?;
    let name = make(&world).await?;
    world.stop().await?;
    nats.kill9()?;
    nats.delete_store()?;
    nats.restart().await?;
    go_back(&mut world, &name).await?;
    world.start().await?;
    edge.start()?;
    heard(&world, "expired").await?;
    ensure!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    Ok(())
}

/// The server was killed, and the operator moved its database away, but not the log beside it, which SQLite would take for that of the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_left_behind_does_not_get_into_the_restored_store() -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    plan.merge(json!({ "targets": null }));
    let mut world = plan.start().await?;
    let load = Load::start(&[&world], 100);
    load.keeps(50, SOON).await?;
    let before = load.so_far().kept;
    let name = make(&world).await?;
    load.keeps(100, SOON).await?;
    world.kill9()?;
    let _failed_at_the_end = load.stop().await?;
    let store = world.dir().join("data/watchkeeper.db");
    let log = PathBuf::from(format!("{}-wal", store.display()));
    ensure!(std::fs::metadata(&log)?.len() > 0, "there is no log");
    std::fs::rename(&store, world.dir().join("moved-away.db"))?;

    let (done, said) = backup(&world, &["restore", &name]).await?;
    ensure!(done && said.contains("-wal"), "{said}");
    ensure!(!log.exists(), "the log is still there");
    world.forget_tokens().await;
    world.start().await?;
    all_there(&world, &before).await?;
    let flag = world.get("/automation").await?;
    ensure!(flag["automation"]["paused"] == true, "{flag}");
    let audit = world.audit().await?;
    let epochs: Vec<&Value> = audit.iter().filter(|row| row["action"] == "store.restore").map(|row| &row["object"]).collect();
    ensure!(epochs.len() == 1, "{epochs:?}");
    // It is whole: a copy is looked through when it is made.
    let again = world.dir().join("again.backup").to_str().context("no name")?.to_owned();
    let (made, said) = backup(&world, &["create", "--out", &again]).await?;
    ensure!(made && said.contains("verified"), "{said}");
    Ok(())
}
