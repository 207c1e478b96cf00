//! Shims: killed along with their server, and those that wait for the next command.

use std::collections::BTreeSet;

use anyhow::ensure;
use harness::eventually;
use harness::world::{Alert, SOON, World};
use reqwest::Method;
use rustix::process::{Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

use super::{automatic, begun, descendants, is_alive, plan, shim_of, slow, waiting_shims};

#[tokio::test]
async fn when_the_shim_dies_too_nobody_knows_and_the_target_stays_locked_until_a_person_has_looked() -> anyhow::Result<()> {
    harness::rounds("server and shim killed while a command runs", 1, async |tally| {
        for command_too in [false, true] {
            let (plan, ledger) = slow(&["sleep", "300"])?;
            let mut world = plan.start().await?;
            begun(&world, &ledger).await?;
            let children = world.service_pids();
            let shim = shim_of(&world).await?;
            let below = descendants(shim);
            ensure!(below.len() == 1, "below the shim are {below:?}");
            world.kill9()?;
            // In this order: a shim that sees its command killed says so in its result.
            kill_process(shim, Signal::KILL)?;
            if command_too {
                kill_process_group(below[0], Signal::KILL)?;
            }
            tally.faults += 2 + u64::from(command_too);
            eventually(SOON, async || {
                ensure!(!is_alive(shim) && is_alive(below[0]) != command_too, "the shim, or what it began, is not as it was to be");
                Ok(())
            })
            .await?;
            world.start().await?;
            assert_eq!(world.service_pids(), children, "the supervised child is adopted");
            let run = world.run_in("unknown", SOON).await?;
            tally.unknown += 1;
            let attempts: Vec<&Value> = run["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["state"]).collect();
            assert_eq!(attempts, ["unknown"], "command killed: {command_too}");

            // Nothing else touches its target before a person has looked.
            world.send(&[Alert::new("Second")]).await?;
            let held = state_of(&world, "second", "held").await?;
            ensure!(held["reason"].as_str().is_some_and(|why| why.contains("demo")), "it is held because of {}", held["reason"]);
            assert_eq!(ledger.lines(), ["sleep 300"]);
            let id = run["run"]["id"].as_str().unwrap();
            let settle = json!({ "how": "abort", "reason": "it hung, I killed it" });
            let answer = world.call("ben", Method::POST, &format!("/runs/{id}/settle"), Some(&settle)).await?;
            ensure!(answer.status.is_success(), "{answer:?}");
            state_of(&world, "second", "succeeded").await?;
            tally.ledger(&ledger.lines(), &["sleep 300", "second"])?;
            // What nobody looks after any more would outlive this test.
            kill_process_group(below[0], Signal::KILL).ok();
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn shims_that_wait_serve_the_next_command_and_end_with_their_server() -> anyhow::Result<()> {
    let mut plan = plan()?;
    let ledger = plan.ledger()?;
    let write = |word: &str| json!({ "id": word, "uses": "command", "with": { "program": ledger.program, "args": [word] } });
    automatic(&mut plan, &json!([write("one"), write("two"), write("three")]));
    let mut world = plan.start().await?;
    world.service_is(true).await?;
    world.send(&[Alert::service_down()]).await?;
    let run = world.run_in("succeeded", SOON).await?;
    assert_eq!(ledger.lines(), ["one", "two", "three"]);
    let shims: BTreeSet<i64> =
        run["attempts"].as_array().unwrap().iter().filter_map(|attempt| attempt["place"]["execution"]["pid"].as_i64()).collect();
    // One, or also the spare that is started when the last one that waits is taken: on a busy machine it comes to wait behind the first one's end.
    ensure!(shims.len() < 3, "each step had a shim of its own: {shims:?}");
    let waiting = waiting_shims(world.proc()?.pid())?;
    ensure!(shims.iter().all(|pid| waiting.contains(pid)), "{shims:?} served and {waiting:?} wait");
    world.kill9()?;
    eventually(SOON, async || {
        let left: Vec<&i64> = waiting.iter().filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()).collect();
        ensure!(left.is_empty(), "{left:?} live on");
        Ok(())
    })
    .await
}

/// The run of a runbook, once it is in this state.
async fn state_of(world: &World, runbook: &str, state: &str) -> anyhow::Result<Value> {
    eventually(SOON, async || {
        let runs = world.runs().await?;
        let run = runs.iter().find(|run| run["runbook"] == runbook);
        let run = run.ok_or_else(|| anyhow::anyhow!("there is no run of {runbook}"))?;
        ensure!(run["state"] == state, "{runbook} is {}", run["state"]);
        Ok(run.clone())
    })
    .await
}
