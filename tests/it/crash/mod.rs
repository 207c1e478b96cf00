//! `kill -9` of the real server: nothing accepted is lost, runs go on at the right step, and what was under way is never done twice.

mod kills;
mod shims;
mod steps;
mod unit;

use anyhow::{Context, ensure};
use harness::eventually;
use harness::world::{Alert, Ledger, Plan, SOON, World};
use rustix::process::Pid;
use serde_json::{Value, json};

fn plan() -> anyhow::Result<Plan> {
    Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))
}

/// A plan whose default runbook has these steps and runs by itself.
fn automatic(plan: &mut Plan, steps: &Value) {
    plan.config["routes"][0]["remedy"]["mode"] = json!("auto");
    plan.merge(json!({ "runbooks": { "restart-service": { "steps": steps, "verify": null } } }));
}

/// A runbook with one step, which has ten minutes for what the ledger's program does with these, and one that wants the same target.
fn slow(args: &[&str]) -> anyhow::Result<(Plan, Ledger)> {
    let mut plan = plan()?;
    let ledger = plan.ledger()?;
    let command = |args: &[&str]| json!({ "program": ledger.program, "args": args, "target": "demo" });
    automatic(&mut plan, &json!([{ "id": "slow", "uses": "command", "with": command(args), "timeout": "10m" }]));
    let second = json!({
        "name": "second", "match": ["alertname=\"Second\""], "incident": {},
        "remedy": { "runbook": "second", "mode": "auto" },
    });
    plan.config["routes"].as_array_mut().unwrap().push(second);
    let write = json!({ "id": "write", "uses": "command", "with": command(&["second"]) });
    plan.merge(json!({ "runbooks": { "second": { "approval": { "roles": ["sre"] }, "steps": [write] } } }));
    Ok((plan, ledger))
}

async fn begun(world: &World, ledger: &Ledger) -> anyhow::Result<()> {
    world.service_is(true).await?;
    world.send(&[Alert::service_down()]).await?;
    eventually(SOON, async || {
        ensure!(ledger.lines().len() == 1, "{:?}", ledger.lines());
        Ok(())
    })
    .await
}

/// The shim of the only run's first step, once it is in the journal.
async fn shim_of(world: &World) -> anyhow::Result<Pid> {
    eventually(SOON, async || {
        let runs = world.runs().await?;
        let id = runs.first().and_then(|run| run["id"].as_str()).context("there is no run")?;
        let run = world.get(&format!("/runs/{id}")).await?;
        let pid = run["attempts"][0]["place"]["execution"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(Pid::from_raw).context("no shim is in the journal")
    })
    .await
}

/// The children of a server that are shims.
pub(crate) fn waiting_shims(server: u32) -> anyhow::Result<Vec<i64>> {
    let mut found = Vec::new();
    for child in children(server)? {
        if std::fs::read(format!("/proc/{child}/cmdline"))?.ends_with(b"\0shim\0") {
            found.push(child.into());
        }
    }
    Ok(found)
}

fn children(pid: impl std::fmt::Display) -> anyhow::Result<Vec<i32>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        for child in std::fs::read_to_string(thread?.path().join("children"))?.split_whitespace() {
            found.push(child.parse()?);
        }
    }
    Ok(found)
}

/// Whoever descends from a process, parents first. Who ends meanwhile has no children.
fn descendants(pid: Pid) -> Vec<Pid> {
    let below = children(pid.as_raw_nonzero()).unwrap_or_default().into_iter().filter_map(Pid::from_raw);
    below.flat_map(|child| std::iter::once(child).chain(descendants(child))).collect()
}

fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
