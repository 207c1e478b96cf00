//! The command line: what a new user types first.

use std::time::Duration;

use anyhow::{Context, ensure};
use harness::world::{Alert, Plan, SOON, body};
use harness::{Cmd, repo, temp_dir};

fn watchkeeper() -> Cmd {
    Cmd::new(env!("CARGO_BIN_EXE_watchkeeper"))
}

#[tokio::test]
async fn the_demo_reaches_every_stage_by_itself() -> anyhow::Result<()> {
    let done = watchkeeper().args(["demo", "--auto"]).run(Duration::from_secs(180)).await?;
    let text = done.ok()?;
    for stage in
        ["was killed", "was accepted", "signed in", "Approve button", "approved", "restarted", "check passed", "closed", "All stages"]
    {
        ensure!(text.contains(stage), "{stage:?} is missing in:\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn check_says_what_is_wrong_and_where() -> anyhow::Result<()> {
    let good = repo().join("deploy/watchkeeper.example.yaml");
    let done = watchkeeper().arg("check").arg("--without-secrets").arg(&good).run(SOON).await?;
    ensure!(done.status.code() == Some(0), "{} {}", done.stdout, done.stderr);
    let dir = temp_dir("check")?;
    let bad = dir.path().join("bad.yaml");
    std::fs::write(&bad, std::fs::read_to_string(&good)?.replace("runbook: restart-service", "runbook: restart-servise"))?;
    let done = watchkeeper().arg("check").arg("--without-secrets").arg(&bad).run(SOON).await?;
    assert_eq!(done.status.code(), Some(3));
    ensure!(done.stdout.contains("restart-servise") && done.stdout.contains("restart-service"), "{}", done.stdout);
    ensure!(done.stdout.contains("bad.yaml:"), "{}", done.stdout);
    let done = watchkeeper().args(["check", "--nonsense"]).run(SOON).await?;
    assert_eq!(done.status.code(), Some(2));
    Ok(())
}

#[tokio::test]
async fn simulate_tells_what_an_alert_would_do() -> anyhow::Result<()> {
    let config = repo().join("deploy/watchkeeper.example.yaml");
    let alert = std::fs::read(repo().join("deploy/alert.json"))?;
    let text = watchkeeper().arg("simulate").arg(&config).stdin(alert.clone()).run(SOON).await?.ok()?;
    for part in ["service-down", "waits for approval", "service.restart on api", "ann, bob"] {
        ensure!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let json = watchkeeper().arg("simulate").arg(&config).args(["-o", "json"]).stdin(alert).run(SOON).await?.ok()?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json[0]["remedies"][0]["may_approve"], serde_json::json!(["ann", "bob"]));
    Ok(())
}

#[tokio::test]
async fn the_nouns_work_over_the_api() -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    plan.merge(serde_json::json!({ "incidents": { "resolve_after": "2m" } }));
    let world = plan.start().await?;
    world.service_is(true).await?;
    let file = world.dir().join("token");
    std::fs::write(&file, world.token("ben").await?)?;
    world.kill_service()?;
    ensure!(world.post(body(&[Alert::service_down()]).to_string()).await?.status.is_success(), "the alert was refused");
    world.incident_in(1, "open", SOON).await?;
    let say = async |args: &[&str]| {
        let cmd = watchkeeper().args(args).args(["--server", &world.url(), "--token-file"]).arg(&file);
        cmd.run(SOON).await
    };
    let list = say(&["incident", "list"]).await?.ok()?;
    ensure!(list.contains("demo is down") && list.contains("P1"), "{list}");
    let ack = say(&["incident", "ack", "1"]).await?.ok()?;
    ensure!(ack.contains("acknowledged"), "{ack}");
    let again = say(&["incident", "ack", "1"]).await?;
    ensure!(again.status.code() == Some(1) && again.stderr.contains("already acknowledged by ben"), "{}", again.stderr);
    let approvals = say(&["approval", "list", "-o", "json"]).await?.ok()?;
    let approvals: serde_json::Value = serde_json::from_str(&approvals)?;
    let id = approvals["items"][0]["id"].as_str().context("an approval waits")?;
    let shown = say(&["approval", "show", id]).await?.ok()?;
    ensure!(shown.contains("service.restart on demo"), "{shown}");
    let approved = say(&["approval", "approve", id]).await?.ok()?;
    ensure!(approved.contains("runs now"), "{approved}");
    world.run_in("succeeded", SOON).await?;
    let runbooks = say(&["runbook", "list"]).await?.ok()?;
    ensure!(runbooks.contains("restart-service"), "{runbooks}");
    let before = std::fs::read_to_string(&file)?;
    let made = say(&["token", "create", "ci", "--right", "view,note", "--expires-in", "1d"]).await?;
    let (token, told) = (made.stdout.trim().to_owned(), made.stderr.clone());
    ensure!(!told.contains(&token) && told.contains("good until"), "{told}");
    let listed = say(&["token", "list"]).await?.ok()?;
    let id = told.split_whitespace().nth(1).context("an id is told")?;
    ensure!(listed.contains(id) && listed.contains("view,note") && !listed.contains(&token), "{told} {listed}");
    std::fs::write(&file, &token)?;
    ensure!(say(&["incident", "list"]).await?.ok()?.contains("demo is down"), "the token looks");
    let acked = say(&["incident", "resolve", "1"]).await?;
    ensure!(acked.status.code() == Some(1) && acked.stderr.contains("watchkeeper token create"), "{}", acked.stderr);
    std::fs::write(&file, before)?;
    let much = say(&["token", "create", "ci", "--right", "admin"]).await?;
    ensure!(much.status.code() == Some(1) && much.stderr.contains("more than"), "{} {}", much.stdout, much.stderr);
    say(&["token", "revoke", id]).await?.ok()?;
    ensure!(say(&["token", "list"]).await?.ok()?.contains("revoked"), "it is revoked");
    std::fs::write(&file, token)?;
    ensure!(say(&["incident", "list"]).await?.status.code() == Some(1), "a revoked token opens nothing");
    std::fs::write(&file, world.token("ben").await?)?;
    let paused = say(&["automation", "pause", "a test"]).await?;
    ensure!(paused.stderr.contains("may not"), "ben has no right to pause: {} {}", paused.stdout, paused.stderr);
    Ok(())
}
