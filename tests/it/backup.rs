//! Backups: made while the server works, refused when they are not whole, and used without anything happening twice.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use harness::eventually;
use harness::peers::Postgres;
use harness::world::{Alert, Ledger, Plan, SOON, World};
use reqwest::Method;
use serde_json::json;

use crate::load::{Load, all_there};
use crate::replicas::replica;

/// A runbook that writes one line of the ledger when it is approved.
fn with_ledger(plan: &mut Plan, args: &[&str]) -> anyhow::Result<Ledger> {
    let ledger = plan.ledger()?;
    let step = json!({ "id": "write", "uses": "command", "with": { "program": ledger.program, "args": args }, "timeout": "5m" });
    plan.config["routes"][0]["remedy"]["with"] = json!({});
    plan.merge(json!({ "targets": null, "runbooks": { "restart-service": { "params": null, "steps": [step], "verify": null } } }));
    Ok(ledger)
}

async fn pending(world: &World) -> anyhow::Result<String> {
    eventually(SOON, async || {
        let waiting = world.get("/approvals").await?;
        waiting["items"][0]["id"].as_str().map(str::to_owned).context("nothing waits for approval")
    })
    .await
}

async fn approve(world: &World, approval: &str) -> anyhow::Result<u16> {
    let decided = json!({ "decision": "approve" });
    let answer = world.call("ben", Method::POST, &format!("/approvals/{approval}/decision"), Some(&decided)).await?;
    Ok(answer.status.as_u16())
}

/// Runs `backup` with these arguments: whether it went well, and what it said.
pub(crate) async fn backup(world: &World, args: &[&str]) -> anyhow::Result<(bool, String)> {
    let all: Vec<&str> = ["backup"].iter().chain(args).copied().collect();
    let done = world.command(&all).arg("--config").arg(world.config()).run(SOON).await?;
    Ok((done.status.success(), done.stdout + &done.stderr))
}

/// What was approved and run after the backup, and everything else that was under way, does not happen again.
async fn nothing_happens_again(world: &World, approval: &str, ledger: &Ledger) -> anyhow::Result<()> {
    let refused = approve(world, approval).await?;
    ensure!((400..500).contains(&refused), "the old request was answered with {refused}");
    world.run_in("superseded", SOON).await?;
    let status = world.get("/automation").await?;
    ensure!(status["automation"]["paused"] == true, "{status}");
    // The alert is repeated, and another one asks for the same: even if that is approved it is held, and nothing starts before a person lets it.
    let again = Alert::service_down();
    world.send(&[again.clone(), again.label("instance", "two")]).await?;
    world.everything_is_decided(SOON).await?;
    ensure!(approve(world, &pending(world).await?).await? == 200, "not approved");
    eventually(SOON, async || {
        let runs = world.runs().await?;
        let states: BTreeSet<&str> = runs.iter().filter_map(|run| run["state"].as_str()).collect();
        ensure!(runs.len() == 2 && states == ["held", "superseded"].into(), "{runs:#?}");
        Ok(())
    })
    .await?;
    assert_eq!(ledger.lines(), ["once"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_after_the_backup_does_not_run_again_after_the_restore() -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    let ledger = with_ledger(&mut plan, &["once"])?;
    let mut world = plan.start().await?;
    let file = world.dir().join("first.backup");
    let name = file.to_str().context("no name")?.to_owned();
    world.send(&[Alert::service_down()]).await?;
    let approval = pending(&world).await?;

    // Under load: everything that was answered before is in it.
    let load = Load::start(&[&world], 50);
    load.keeps(50, SOON).await?;
    let before = load.so_far().kept;
    let (made, said) = backup(&world, &["create", "--out", &name]).await?;
    ensure!(made && said.contains("verified") && said.contains("keys are not in it"), "{said}");
    load.keeps(20, SOON).await?;
    let told = load.stop().await?;
    ensure!(told.failed.is_empty(), "{:?}", told.failed);
    let (again, said) = backup(&world, &["create", "--out", &name]).await?;
    ensure!(!again && said.contains("there already"), "{said}");

    ensure!(approve(&world, &approval).await? == 200, "not approved");
    world.run_in("succeeded", SOON).await?;
    assert_eq!(ledger.lines(), ["once"]);

    let (done, said) = backup(&world, &["restore", &name, "--force"]).await?;
    ensure!(!done && said.contains("another Watchkeeper"), "while the server runs: {said}");
    world.stop().await?;
    let (done, said) = backup(&world, &["restore", &name]).await?;
    ensure!(!done && said.contains("--force"), "{said}");
    damaged_copies_are_refused(&world, &file).await?;
    let (done, said) = backup(&world, &["restore", &name, "--force"]).await?;
    ensure!(done && said.contains("1 pending approvals expired") && said.contains("automation is paused"), "{said}");
    world.forget_tokens().await;
    world.start().await?;
    all_there(&world, &before).await?;
    nothing_happens_again(&world, &approval, &ledger).await?;
    let audit = world.audit().await?;
    ensure!(audit.iter().any(|row| row["action"] == "store.restore"), "the restore is not in the audit log");
    Ok(())
}

async fn damaged_copies_are_refused(world: &World, good: &Path) -> anyhow::Result<()> {
    let bad = world.dir().join("bad.backup");
    let described = |path: &Path| path.with_extension("backup.json");
    let mut bytes = std::fs::read(good)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bad, &bytes)?;
    let name = bad.to_str().context("no name")?;
    let (done, said) = backup(world, &["restore", name, "--force"]).await?;
    ensure!(!done && said.contains("without it"), "{said}");
    std::fs::copy(described(good), described(&bad))?;
    let (done, said) = backup(world, &["restore", name, "--force"]).await?;
    ensure!(!done && said.contains("damaged"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_run_that_was_under_way_is_unknown_after_the_restore() -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    let ledger = with_ledger(&mut plan, &["until", "copied"])?;
    plan.config["routes"][0]["remedy"]["mode"] = json!("auto");
    let mut world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    eventually(SOON, async || {
        ensure!(ledger.lines() == ["until copied"], "{:?}", ledger.lines());
        Ok(())
    })
    .await?;
    let file = world.dir().join("busy.backup");
    let name = file.to_str().context("no name")?.to_owned();
    let (made, said) = backup(&world, &["create", "--out", &name]).await?;
    ensure!(made, "{said}");
    ledger.let_go("copied")?;
    world.run_in("succeeded", SOON).await?;
    world.stop().await?;
    let (done, said) = backup(&world, &["restore", &name, "--force"]).await?;
    ensure!(done && said.contains("1 runs that were under way are unknown"), "{said}");
    world.forget_tokens().await;
    world.start().await?;
    world.run_in("unknown", SOON).await?;
    assert_eq!(ledger.lines(), ["until copied"]);
    Ok(())
}

/// PostgreSQL's own tools make the copy; the new epoch is the same.
#[tokio::test]
async fn on_postgres_its_own_tools_are_named_and_the_epoch_is_new() -> anyhow::Result<()> {
    let postgres = Postgres::shared().await?;
    let database = postgres.create_database().await?;
    let mut plan = replica("a", &database)?;
    let ledger = with_ledger(&mut plan, &["once"])?;
    let mut world = plan.start().await?;
    let (made, said) = backup(&world, &["create"]).await?;
    ensure!(!made && said.contains("pg_dump") && said.contains("backup restored"), "{said}");
    world.send(&[Alert::service_down()]).await?;
    let approval = pending(&world).await?;
    let copy = postgres.create_database().await?;
    postgres.copy(&database, &copy).await?;
    ensure!(approve(&world, &approval).await? == 200, "not approved");
    world.run_in("succeeded", SOON).await?;
    world.stop().await?;
    // The copy takes the place of the original.
    postgres.copy(&copy, &database).await?;
    let (done, said) = backup(&world, &["restored"]).await?;
    ensure!(done && said.contains("1 pending approvals expired"), "{said}");
    world.forget_tokens().await;
    world.start().await?;
    nothing_happens_again(&world, &approval, &ledger).await
}
