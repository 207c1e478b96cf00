//! Agents and their servers killed in the middle of an order, sooner or later each time: what was ordered happens once, or people are asked.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::peers::Nats;
use harness::world::{Alert, Ledger, SOON, World};
use harness::{Tally, eventually};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::agents::{Edge, away, begun, plan};
use crate::crash::waiting_shims;

/// Within so many milliseconds after an alert its order has been sent, taken and begun.
const UNDER_WAY: u64 = 1500;

#[tokio::test]
async fn a_killed_agent_takes_its_command_up_again() -> anyhow::Result<()> {
    harness::rounds("agent killed, also with its shim", 1, async |tally| {
        let nats = Nats::start().await?;
        let (plan, mut edge, ledger) = plan(&nats, &nats.url(), &["sleep", "3"], "90s").await?;
        let world = plan.start().await?;
        world.send(&[Alert::service_down()]).await?;
        moment(tally, &ledger).await?;
        edge.kill9()?;
        tally.faults += 1;
        // In every third round like a host that lost its power: nobody watches the command any more.
        if tally.rounds % 3 == 0 && kill_shims(&edge)? {
            tally.faults += 1;
        }
        edge.start()?;
        tally.unknown += settled(&world, &ledger).await?;
        tally.ledger(&ledger.lines(), &["sleep 3"])
    })
    .await
}

/// Its order is on its disk and with a shim that stands still: nothing has happened, so the next start carries it out, and nobody is asked.
#[tokio::test]
async fn a_killed_agent_begins_anew_what_its_shim_had_not_begun() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let (plan, mut edge, ledger) = plan(&nats, &nats.url(), &["once"], "2m").await?;
    let agent = edge.proc.as_ref().context("the agent runs")?.pid();
    eventually(SOON, async || {
        let waiting = waiting_shims(agent)?;
        ensure!(!waiting.is_empty(), "no shim waits");
        signal_all(&waiting, Signal::STOP)
    })
    .await?;
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    eventually(SOON, async || {
        ensure!(orders(&edge)?.iter().any(|folder| folder.join("intent.json").exists()), "nothing is intended");
        Ok(())
    })
    .await?;
    edge.kill9()?;
    ensure!(kill_shims(&edge)?, "the shim was gone");
    ensure!(ledger.lines().is_empty(), "it had begun");
    edge.start()?;
    let run = world.run_in("succeeded", SOON).await?;
    let attempts = run["attempts"].as_array().context("it has attempts")?;
    ensure!(attempts.len() == 1 && attempts[0]["state"] == "succeeded", "{run}");
    assert_eq!(ledger.lines(), ["once"]);
    Ok(())
}

fn signal_all(pids: &[i64], signal: Signal) -> anyhow::Result<()> {
    for pid in pids {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).context("no pid")?;
        kill_process(pid, signal)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_server_takes_the_report_of_its_order() -> anyhow::Result<()> {
    harness::rounds("server killed while an agent carries out its order", 1, async |tally| {
        let nats = Nats::start().await?;
        let (plan, edge, ledger) = plan(&nats, &nats.url(), &["sleep", "2"], "90s").await?;
        let mut world = plan.start().await?;
        world.send(&[Alert::service_down()]).await?;
        moment(tally, &ledger).await?;
        world.kill9()?;
        tally.faults += 1;
        // Where it had begun, it ends while nobody waits for it.
        if !ledger.lines().is_empty() {
            reported(&edge).await?;
        }
        world.start().await?;
        tally.unknown += settled(&world, &ledger).await?;
        tally.ledger(&ledger.lines(), &["sleep 2"])
    })
    .await
}

#[tokio::test]
async fn an_agent_that_was_away_gets_its_order_later() -> anyhow::Result<()> {
    let (_nats, world, mut edge, ledger) = away("late", "5m").await?;
    world.run_in("running", SOON).await?;
    // Time in which nobody else may do it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(ledger.lines().is_empty(), "somebody else did it");
    edge.start()?;
    world.run_in("succeeded", SOON * 2).await?;
    assert_eq!(ledger.lines(), ["late"]);
    Ok(())
}

/// In the first round the moment at which the command runs, in later ones another one each time, before it or after.
pub(super) async fn moment(tally: &Tally, ledger: &Ledger) -> anyhow::Result<()> {
    if tally.rounds == 1 {
        return begun(ledger).await;
    }
    tokio::time::sleep(Duration::from_millis(tally.rounds * 131 % UNDER_WAY)).await;
    Ok(())
}

/// Waits until the agent knows how its order ended.
pub(super) async fn reported(edge: &Edge) -> anyhow::Result<()> {
    eventually(SOON, async || {
        let known = orders(edge)?.iter().any(|folder| folder.join("report.json").exists());
        ensure!(known, "the agent has no report");
        Ok(())
    })
    .await
}

/// Kills what watches the commands of an agent. Whether there was anything.
fn kill_shims(edge: &Edge) -> anyhow::Result<bool> {
    let mut any = false;
    for folder in orders(edge)? {
        let Ok(text) = fs::read_to_string(folder.join("intent.json")) else { continue };
        let intent: Value = serde_json::from_str(&text)?;
        any |= signal_all(&[intent["pid"].as_i64().context("no pid")?], Signal::KILL).is_ok();
    }
    Ok(any)
}

fn orders(edge: &Edge) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let folder = edge.data.join("orders");
    if !folder.exists() {
        return Ok(vec![]);
    }
    Ok(fs::read_dir(folder)?.map(|found| Ok(found?.path())).collect::<std::io::Result<_>>()?)
}

/// Lets the one run come to its end. Where nobody knows, a person looks at the ledger and says what it says. How often that was.
pub(super) async fn settled(world: &World, ledger: &Ledger) -> anyhow::Result<u64> {
    let asked = std::cell::Cell::new(0);
    eventually(SOON * 3, async || {
        let runs = world.runs().await?;
        ensure!(runs.len() == 1, "there are {} runs", runs.len());
        if runs[0]["state"] == "unknown" {
            let id = runs[0]["id"].as_str().unwrap_or_default();
            let how = if ledger.lines().is_empty() { "again" } else { "ran" };
            let said = json!({ "how": how, "reason": "the ledger says so" });
            let answer = world.call("ben", Method::POST, &format!("/runs/{id}/settle"), Some(&said)).await?;
            asked.set(asked.get() + u64::from(answer.status.is_success()));
        }
        ensure!(runs[0]["state"] == "succeeded", "the run is {}: {}", runs[0]["state"], runs[0]["reason"]);
        Ok(())
    })
    .await?;
    Ok(asked.get())
}
