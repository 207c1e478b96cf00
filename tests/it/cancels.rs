//! Cancelled runs: what was under way is ended, whoever of the servers is killed meanwhile, and until it is over nothing else touches its target.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::eventually;
use harness::peers::Postgres;
use harness::world::{Alert, Plan, SOON, World};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::replicas::replica;

/// A command that takes minutes, longer than anything here waits, and says when another one begins beside it.
struct Slow {
    pid: PathBuf,
    lines: PathBuf,
}

impl Slow {
    /// Two routes to the same target: `ServiceDown` runs the slow command, `Second` a quick one. `stubborn`: it does not heed TERM.
    fn add(plan: &mut Plan, stubborn: bool) -> anyhow::Result<Self> {
        let program = plan.dir().join("work");
        let slow = Self { pid: plan.dir().join("pid"), lines: plan.dir().join("ledger") };
        let (pid, lines) = (slow.pid.display(), slow.lines.display());
        let begin = if stubborn { "trap '' TERM; while :; do /bin/sleep 0.2; done" } else { "exec /bin/sleep 300" };
        let text = format!(
            "#!/bin/sh\ncase \"$1\" in\nslow) echo slow >> '{lines}'; echo $$ > '{pid}.new'; mv '{pid}.new' '{pid}'; {begin} ;;\n\
             second) ! kill -0 \"$(cat '{pid}')\" || echo beside >> '{lines}'; echo second >> '{lines}' ;;\nesac\n"
        );
        plan.script("work", &text)?;
        let step = |word: &str| json!({ "id": word, "uses": "command", "with": { "program": program, "args": [word], "target": "api" }, "timeout": "10m" });
        plan.config["routes"][0]["remedy"] = json!({ "runbook": "restart-service", "with": { "target": "api" }, "mode": "auto" });
        let second = json!({
            "name": "second", "match": ["alertname=\"Second\""], "incident": {}, "remedy": { "runbook": "second", "mode": "auto" },
        });
        plan.config["routes"].as_array_mut().context("no routes")?.push(second);
        plan.config["targets"] = json!({ "api": { "kind": "systemd", "unit": "api.service" } });
        plan.merge(json!({
            "programs": [program],
            "runbooks": {
                "restart-service": { "steps": [step("slow")], "verify": null },
                "second": { "approval": { "roles": ["sre"] }, "steps": [step("second")] },
            },
        }));
        Ok(slow)
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.lines).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits until it runs; its id.
    async fn begun(&self) -> anyhow::Result<i32> {
        eventually(SOON, async || Ok(std::fs::read_to_string(&self.pid)?.trim().parse()?)).await
    }

    /// Waits until it has ended.
    async fn gone(&self, pid: i32) -> anyhow::Result<()> {
        eventually(SOON, async || {
            ensure!(!lives(pid), "{pid} lives");
            Ok(())
        })
        .await
    }
}

fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The run of a runbook.
async fn run_of(world: &World, runbook: &str) -> anyhow::Result<Value> {
    let runs = world.runs().await?;
    runs.into_iter().find(|run| run["runbook"] == runbook).with_context(|| format!("there is no run of {runbook}"))
}

async fn run_is(world: &World, runbook: &str, state: &str) -> anyhow::Result<Value> {
    eventually(SOON, async || {
        let run = run_of(world, runbook).await?;
        ensure!(run["state"] == state, "{runbook} is {}: {}", run["state"], run["reason"]);
        Ok(run)
    })
    .await
}

/// Somebody cancels the run of the slow step, and is told that it still ends.
async fn cancel(world: &World) -> anyhow::Result<String> {
    let path = format!("/runs/{}", run_of(world, "restart-service").await?["id"].as_str().context("no id")?);
    let answer = world.call("ann", Method::POST, &format!("{path}/cancel"), Some(&json!({}))).await?;
    ensure!(answer.status.is_success(), "{answer:?}");
    Ok(path)
}

/// Another run wants the target, and waits for it.
async fn second_waits(world: &World) -> anyhow::Result<()> {
    world.send(&[Alert::new("Second")]).await?;
    let held = run_is(world, "second", "held").await?;
    ensure!(held["reason"].as_str().is_some_and(|why| why.contains("api")), "it is held because of {}", held["reason"]);
    Ok(())
}

#[tokio::test]
async fn what_a_killed_replica_left_behind_ends_when_it_is_back_and_its_target_waits_for_that() -> anyhow::Result<()> {
    let database = Postgres::shared().await?.create_database().await?;
    let mut plan = replica("a", &database)?;
    let slow = Slow::add(&mut plan, false)?;
    let mut other = replica("b", &database)?;
    for part in ["routes", "targets", "runbooks", "programs"] {
        other.config[part] = plan.config[part].clone();
    }
    let mut a = plan.start().await?;
    a.send(&[Alert::service_down()]).await?;
    let pid = slow.begun().await?;
    let b = other.start().await?;
    a.kill9()?;
    let path = cancel(&b).await?;
    let run = b.get(&path).await?["run"].clone();
    ensure!(run["state"] == "running" && run["cancelled_by"] == "ann", "{run}");
    ensure!(run["reason"].as_str().is_some_and(|why| why.contains("api stays locked until it has ended")), "{run}");
    let page = b.console("ann").await?.page(&path).await?;
    ensure!(page.contains("api stays locked until it has ended") && !page.contains("Cancel the run"), "{page}");
    second_waits(&b).await?;
    // Time in which it may not begin.
    tokio::time::sleep(Duration::from_secs(6)).await;
    ensure!(lives(pid) && slow.lines() == ["slow"], "{:?}", slow.lines());

    a.start().await?;
    slow.gone(pid).await?;
    run_is(&b, "restart-service", "cancelled").await?;
    run_is(&b, "second", "succeeded").await?;
    assert_eq!(slow.lines(), ["slow", "second"]);
    Ok(())
}

#[tokio::test]
async fn a_cancel_that_a_server_took_and_could_not_carry_out_is_carried_out_by_its_next_start() -> anyhow::Result<()> {
    for killed in [true, false] {
        let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
        let slow = Slow::add(&mut plan, false)?;
        let mut world = plan.start().await?;
        world.token("ann").await?;
        world.send(&[Alert::service_down()]).await?;
        let pid = slow.begun().await?;
        cancel(&world).await?;
        // Before whoever carries it out has looked whether it was cancelled, most likely.
        if killed {
            world.kill9()?;
        } else {
            world.stop().await?;
        }
        world.start().await?;
        let began = Instant::now();
        world.send(&[Alert::new("Second")]).await?;
        slow.gone(pid).await?;
        let run = run_is(&world, "restart-service", "cancelled").await?;
        ensure!(run["reason"] == "cancelled by ann", "killed: {killed}, after {:?}: {run}", began.elapsed());
        run_is(&world, "second", "succeeded").await?;
        assert_eq!(slow.lines(), ["slow", "second"], "killed: {killed}");
    }
    Ok(())
}

#[tokio::test]
async fn while_a_cancelled_command_takes_its_time_to_end_its_target_is_nobody_elses() -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    let slow = Slow::add(&mut plan, true)?;
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    let pid = slow.begun().await?;
    // Before the cancel: ten seconds after it the command is killed.
    second_waits(&world).await?;
    let path = cancel(&world).await?;
    ensure!(lives(pid) && world.get(&path).await?["run"]["state"] == "running", "it ended at once, so nothing is shown");
    slow.gone(pid).await?;
    run_is(&world, "restart-service", "cancelled").await?;
    run_is(&world, "second", "succeeded").await?;
    assert_eq!(slow.lines(), ["slow", "second"]);
    Ok(())
}

/// A request that was sent and not answered: nobody knows whether the other side acts on it, cancelled or not.
#[tokio::test]
async fn a_cancel_in_the_middle_of_what_cannot_be_taken_back_leaves_a_question() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    let slow = Slow::add(&mut plan, false)?;
    let url = format!("http://{}/", listener.local_addr()?);
    let step = json!({ "id": "slow", "uses": "http.request", "with": { "method": "POST", "url": url, "timeout": "10m", "target": "api" }, "timeout": "11m" });
    plan.merge(json!({ "runbooks": { "restart-service": { "steps": [step] } } }));
    std::fs::write(&slow.pid, "999999999")?;
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    let (_asked, _) = tokio::time::timeout(SOON, listener.accept()).await??;
    let path = cancel(&world).await?;
    let run = run_is(&world, "restart-service", "unknown").await?;
    ensure!(run["reason"].as_str().is_some_and(|why| why.contains("ann cancelled") && why.contains("api stays locked")), "{run}");
    second_waits(&world).await?;
    let settle = async |how: &str| {
        let said = json!({ "how": how, "reason": "the other side says so" });
        world.call("ben", Method::POST, &format!("{path}/settle"), Some(&said)).await
    };
    let again = settle("again").await?;
    ensure!(!again.status.is_success() && again.json.to_string().contains("ann cancelled this run"), "{again:?}");
    let ran = settle("ran").await?;
    ensure!(ran.status.is_success(), "{ran:?}");
    run_is(&world, "restart-service", "cancelled").await?;
    run_is(&world, "second", "succeeded").await?;
    assert_eq!(slow.lines(), ["second"]);
    Ok(())
}
