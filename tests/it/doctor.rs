//! `watchkeeper doctor`: what is well, what is not, and what to do about it; beside a running server and without changing anything.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, ensure};
use harness::fake::slack::{Config, FakeSlack};
use harness::peers::{Nats, Postgres};
use harness::world::{Plan, SOON};
use harness::{Cmd, free_port};
use serde_json::{Value, json};

async fn doctor(plan: &Plan) -> anyhow::Result<(Option<i32>, Vec<Value>)> {
    plan.write()?;
    let done = plan.command().args(["doctor", "-o", "json", "--config"]).arg(plan.config_dir()).run(SOON).await?;
    let told: Value = serde_json::from_str(&done.stdout).with_context(|| format!("{} {}", done.stdout, done.stderr))?;
    Ok((done.status.code(), told["findings"].as_array().context("no findings")?.clone()))
}

fn find<'f>(findings: &'f [Value], level: &str, text: &str) -> anyhow::Result<&'f Value> {
    let found =
        findings.iter().find(|finding| finding["level"] == level && finding["found"].as_str().is_some_and(|found| found.contains(text)));
    found.with_context(|| format!("no {level} with {text:?} in {findings:#?}"))
}

#[tokio::test]
async fn a_good_house_is_told_so_beside_its_running_server() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let slack = FakeSlack::start(Config::default()).await?;
    let plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.slack(&slack)?.with(json!({
        "nats": { "url": nats.url(), "publish": {} },
        "ingest": { "via": "jetstream", "replicas": 1 },
    }));
    let world = plan.start().await?;
    let config = world.config().display().to_string();
    let done = world.command(&["doctor", "-o", "json", "--config", &config]).run(SOON).await?;
    let told: Value = serde_json::from_str(&done.stdout)?;
    let findings = told["findings"].as_array().context("no findings")?;
    ensure!(done.status.success() && told["level"] == "warn", "{} {}", done.stdout, done.stderr);
    for text in ["SQLite 3.", "a commit is on disk", "tables are up to date", "MiB are free", "keeping a page takes", "slack: ", "NATS 2."]
    {
        find(findings, "ok", text)?;
    }
    find(findings, "ok", "something answers on")?;
    let early = find(findings, "warn", "rests on WATCHKEEPER_INGEST of 1 copies")?;
    ensure!(early["advice"].as_str().is_some_and(|advice| advice.contains("sync_interval: always")), "{early}");
    find(findings, "warn", "nobody outside notices")?;
    let table = world.command(&["doctor", "--config", &config]).run(SOON).await?.ok()?;
    ensure!(table.contains("nats\n  ok    NATS 2.") && table.contains(", 0 failures") && !table.contains('\u{1b}'), "{table}");
    ensure!(
        !fs::read_dir(world.dir().join("data"))?.flatten().any(|entry| entry.file_name().to_string_lossy().contains("doctor")),
        "a file is left"
    );
    Ok(())
}

#[tokio::test]
async fn what_will_not_work_fails_with_what_to_do() -> anyhow::Result<()> {
    let slack = FakeSlack::start(Config::default()).await?;
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.slack(&slack)?;
    plan.secret("slack-bot-token", "xoxb-of-nobody-at-all-0123456789")?;
    let plain = plan.script("plain", "#!/bin/sh\n")?;
    fs::set_permissions(&plain, PermissionsExt::from_mode(0o644))?;
    let key = plan.secret("button.key", &"0".repeat(64))?;
    fs::set_permissions(&key, PermissionsExt::from_mode(0o644))?;
    let (checkpoint, orders) = (plan.secret("checkpoint.key", &"1".repeat(64))?, plan.secret("orders.pem", "not for everybody")?);
    for file in [&checkpoint, &orders] {
        fs::set_permissions(file, PermissionsExt::from_mode(0o644))?;
    }
    let away = format!("nats://127.0.0.1:{}", free_port());
    plan.merge(json!({
        "programs": [plain, "/nowhere/at/all"],
        "keys": { "button": [key], "checkpoint": [checkpoint] },
        "agents": { "key_file": orders, "known": {} },
        "nats": { "url": away, "commands": {} },
        "egress": ["0.0.0.0/0:*"],
    }));
    let (code, findings) = doctor(&plan).await?;
    assert_eq!(code, Some(1));
    for text in ["plain cannot be run", "/nowhere/at/all", "button: ", "checkpoint: ", "orders for agents: ", &away, "slack: "] {
        let finding = find(&findings, "fail", text)?;
        ensure!(finding["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{finding}");
    }
    find(&findings, "warn", "every address")?;
    ensure!(!plan.dir().join("data").exists(), "nothing was made");

    plan.merge(json!({ "routes": [{ "match": ["nonsense"] }] }));
    let (code, findings) = doctor(&plan).await?;
    ensure!(code == Some(1) && findings.iter().all(|finding| finding["area"] == "configuration"), "{findings:#?}");
    Ok(())
}

#[tokio::test]
async fn postgres_is_asked_what_survives_and_what_time_it_is() -> anyhow::Result<()> {
    let url = Postgres::shared().await?.create_database().await?;
    let plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.postgres(&url)?;
    let (_, findings) = doctor(&plan).await?;
    find(&findings, "ok", "PostgreSQL 1")?;
    find(&findings, "ok", "the database's")?;
    ensure!(findings.iter().any(|finding| finding["found"].as_str().is_some_and(|found| found.starts_with("fsync = "))), "{findings:#?}");
    Ok(())
}

#[tokio::test]
async fn shells_complete_our_commands() -> anyhow::Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let script = Cmd::new(env!("CARGO_BIN_EXE_watchkeeper")).args(["completion", shell]).run(SOON).await?.ok()?;
        ensure!(script.contains("doctor") && script.contains("watchkeeper"), "{shell}: {script}");
    }
    Ok(())
}
