//! The audit log through the real program: sealed while it runs, verified beside it, offline and as evidence; and without it nothing happens.

mod evidence;
mod page;
mod refused;
mod sealed;
mod unreadable;

use std::path::Path;

use anyhow::{Context, ensure};
use harness::world::{Alert, Plan, SOON, World};
use harness::{Cmd, Done, eventually};
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) fn plan() -> anyhow::Result<Plan> {
    Ok(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.with(json!({ "audit": { "checkpoint_every": "1s" } })))
}

pub(crate) async fn say(args: &[&str], paths: &[&Path]) -> anyhow::Result<Done> {
    let cmd = Cmd::new(env!("CARGO_BIN_EXE_watchkeeper")).args(args);
    paths.iter().fold(cmd, |cmd, path| cmd.arg(path)).run(SOON).await
}

/// An incident from its alert to its end, with an approval.
async fn live_through_an_incident(world: &World) -> anyhow::Result<()> {
    world.service_is(true).await?;
    world.kill_service()?;
    let alert = Alert::service_down();
    world.send(std::slice::from_ref(&alert)).await?;
    decide(world, "approve").await?;
    world.run_in("succeeded", SOON).await?;
    world.send(&[alert.resolved()]).await?;
    world.incident_in(1, "closed", SOON).await?;
    Ok(())
}

async fn decide(world: &World, decision: &str) -> anyhow::Result<u16> {
    let approval = eventually(SOON, async || {
        let waiting = world.get("/approvals").await?;
        waiting["items"][0]["id"].as_str().map(str::to_owned).context("nothing waits for approval")
    })
    .await?;
    let path = format!("/approvals/{approval}/decision");
    Ok(world.call("ben", Method::POST, &path, Some(&json!({ "decision": decision }))).await?.status.as_u16())
}

/// Once everything that was written is sealed and covered.
pub(crate) async fn settled(config: &Path) -> anyhow::Result<Value> {
    eventually(SOON, async || {
        let done = say(&["audit", "verify", "-o", "json", "--config"], &[config]).await?;
        ensure!(done.status.code() == Some(0), "{} {}", done.stdout, done.stderr);
        let report: Value = serde_json::from_str(&done.stdout)?;
        ensure!(report["unsealed"] == 0 && report["covered"] == report["rows"], "{report}");
        Ok(report)
    })
    .await
}

pub(crate) async fn unsound(args: &[&str], paths: &[&Path], why: &str) -> anyhow::Result<()> {
    let done = say(args, paths).await?;
    ensure!(done.status.code() == Some(1) && done.stdout.contains(why), "{args:?}: {why:?} is missing in {} {}", done.stdout, done.stderr);
    Ok(())
}

/// All places of the same length replaced.
fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let mut found = 0;
    for at in 0..=bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "{:?} is not there", String::from_utf8_lossy(from));
    out
}
