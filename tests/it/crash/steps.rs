//! Runs that go on at the step where they were, or at the one that a check says did not happen.

use std::time::Instant;

use anyhow::ensure;
use harness::eventually;
use harness::world::{Alert, SOON, World};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::{automatic, plan, shim_of};

#[tokio::test]
async fn a_killed_server_goes_on_at_the_step_where_it_was() -> anyhow::Result<()> {
    let mut plan = plan()?;
    let ledger = plan.ledger()?;
    let write = |word: &str| json!({ "id": word, "uses": "command", "with": { "program": ledger.program, "args": [word] } });
    let look = json!({
        "id": "gate", "uses": "http.check", "with": { "target": "demo" }, "retry": { "attempts": 20, "delay": "3s", "max_delay": "3s" },
    });
    let pause = json!({ "id": "pause", "uses": "wait", "with": { "for": "3s" } });
    automatic(&mut plan, &json!([write("one"), look, write("two"), pause, write("three")]));
    let mut world = plan.start().await?;
    world.service_is(true).await?;
    // Now, because it takes a while, and the gate is looked at from its beginning.
    world.token("ann").await?;
    // The gate is closed for as long as the service is down, and a server that starts starts the service too.
    world.kill_service()?;
    world.send(&[Alert::service_down()]).await?;
    wait_for(&world, "gate", 2).await?;
    world.kill9()?;
    assert_eq!(ledger.lines(), ["one"]);

    world.start().await?;
    let ready = Instant::now();
    eventually(SOON, async || {
        ensure!(ledger.lines().iter().take(2).eq(["one", "two"]), "{:?}", ledger.lines());
        Ok(())
    })
    .await?;
    // Once more, in the middle of a step that only waits.
    wait_for(&world, "pause", 1).await?;
    world.kill9()?;
    world.start().await?;
    let run = world.run_in("succeeded", SOON).await?;
    assert_eq!(ledger.lines(), ["one", "two", "three"], "after {:?}", ready.elapsed());
    for step in ["one", "two", "three"] {
        let tried = run["attempts"].as_array().unwrap().iter().filter(|attempt| attempt["step"] == step);
        assert_eq!(tried.count(), 1, "{step} was carried out again");
    }
    assert_eq!(world.service_pids().len(), 1);
    Ok(())
}

/// Waits until a step was attempted so often.
async fn wait_for(world: &World, step: &str, times: usize) -> anyhow::Result<()> {
    eventually(SOON, async || {
        let runs = world.runs().await?;
        ensure!(runs.len() == 1, "there are {} runs", runs.len());
        let run = world.get(&format!("/runs/{}", runs[0]["id"].as_str().unwrap_or_default())).await?;
        let tried = run["attempts"].as_array().into_iter().flatten().filter(|attempt| attempt["step"] == step).count();
        ensure!(tried >= times, "{step} was tried {tried} times");
        Ok(())
    })
    .await
}

/// Server and shim die in the middle; the step's check tells that it did not happen, so it is done, once.
#[tokio::test]
async fn a_check_tells_whether_a_lost_step_happened() -> anyhow::Result<()> {
    let mut plan = plan()?;
    let dir = plan.dir().to_owned();
    let (mark, ledger) = (dir.join("mark"), dir.join("ledger"));
    let text =
        format!("#!/bin/sh\nif [ -e {0} ]; then echo done >> {1}; else touch {0}; exec sleep 300; fi\n", mark.display(), ledger.display());
    let work = plan.script("work", &text)?;
    let asked = plan.script("asked", &format!("#!/bin/sh\n[ -e {} ] || exit 10\n", ledger.display()))?;
    plan.merge(json!({ "programs": [work, asked] }));
    let step = json!({ "id": "work", "uses": "command", "with": { "program": work }, "effect": "checkable", "check": { "program": asked }, "timeout": "10m" });
    automatic(&mut plan, &json!([step]));
    let mut world = plan.start().await?;
    world.service_is(true).await?;
    world.send(&[Alert::service_down()]).await?;
    let shim = shim_of(&world).await?;
    eventually(SOON, async || {
        ensure!(mark.exists(), "it has not begun");
        Ok(())
    })
    .await?;
    world.kill9()?;
    kill_process(shim, Signal::KILL)?;
    world.start().await?;
    let run = world.run_in("succeeded", SOON).await?;
    let attempts: Vec<&Value> = run["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["state"]).collect();
    assert_eq!(attempts, ["failed", "succeeded"]);
    let why = run["attempts"][0]["error"].as_str().unwrap_or_default();
    ensure!(why.ends_with("the check says that it did not happen"), "{why}");
    assert_eq!(std::fs::read_to_string(&ledger)?, "done\n");
    Ok(())
}
