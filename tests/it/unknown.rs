//! A command that is ended before it ends by itself may have done its work: it is repeated only where that does no harm.

use anyhow::ensure;
use harness::eventually;
use harness::world::{Alert, Ledger, Plan, SOON, World};
use serde_json::{Value, json};

/// A run for every `ServiceDown`, by itself, whose one step does `work` on the target `box` and has three seconds for it and three attempts. `$LEDGER` is the
/// ledger's file. A second runbook wants the same target.
pub(crate) fn with_work(plan: &mut Plan, work: &str, more: Value) -> anyhow::Result<Ledger> {
    let ledger = plan.ledger()?;
    let program = plan.script("work", &format!("#!/bin/sh\nLEDGER='{}'\n{work}\n", plan.dir().join("ledger").display()))?;
    let check = plan.script("check", &format!("#!/bin/sh\ngrep -q done '{}' || exit 10\n", plan.dir().join("ledger").display()))?;
    let mut step = json!({
        "id": "work", "uses": "command", "with": { "program": program, "target": "box" }, "timeout": "3s",
        "retry": { "attempts": 3, "delay": "100ms", "max_delay": "100ms" },
    });
    step.as_object_mut().into_iter().for_each(|step| step.extend(more.as_object().cloned().unwrap_or_default()));
    if step["effect"] == "checkable" {
        step["check"] = json!({ "program": check });
    }
    let other = json!({ "id": "other", "uses": "command", "with": { "program": ledger.program, "args": ["other"], "target": "box" } });
    plan.merge(json!({
        "programs": [ledger.program, program, check],
        "targets": { "demo": null, "box": { "kind": "systemd", "unit": "box.service" } },
        "runbooks": {
            "restart-service": { "params": null, "steps": [step], "verify": null },
            "second": { "approval": { "roles": ["sre"] }, "steps": [other] },
        },
    }));
    plan.config["routes"] = json!([
        { "match": ["alertname=\"ServiceDown\""], "incident": {}, "remedy": { "runbook": "restart-service", "mode": "auto" } },
        { "match": ["alertname=\"Second\""], "incident": {}, "remedy": { "runbook": "second", "mode": "auto" } },
    ]);
    Ok(ledger)
}

/// A world with such a run.
async fn world(work: &str, more: Value) -> anyhow::Result<(World, Ledger)> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    let ledger = with_work(&mut plan, work, more)?;
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    Ok((world, ledger))
}

pub(crate) fn states(run: &Value) -> Vec<&str> {
    run["attempts"].as_array().into_iter().flatten().filter_map(|attempt| attempt["state"].as_str()).collect()
}

#[tokio::test]
async fn a_step_that_its_time_ended_is_not_repeated_and_a_person_is_asked() -> anyhow::Result<()> {
    let (world, ledger) = world("echo once >> $LEDGER; exec sleep 60", json!({})).await?;
    let run = world.run_in("unknown", SOON).await?;
    let why = run["run"]["reason"].as_str().unwrap_or_default();
    ensure!(why.contains("timed out after ") && why.contains("box stays locked"), "{why}");
    assert_eq!((states(&run), ledger.lines()), (vec!["unknown"], vec!["once".to_owned()]));
    world.send(&[Alert::new("Second")]).await?;
    eventually(SOON, async || {
        let runs = world.runs().await?;
        let held = runs.iter().find(|run| run["runbook"] == "second" && run["state"] == "held");
        ensure!(held.is_some_and(|run| run["reason"].as_str().is_some_and(|why| why.contains("another run has box"))), "{runs:?}");
        Ok(())
    })
    .await?;
    assert_eq!(ledger.lines(), ["once"]);
    Ok(())
}

#[tokio::test]
async fn a_step_that_somebody_killed_is_not_repeated_either() -> anyhow::Result<()> {
    let (world, ledger) = world("echo once >> $LEDGER; kill -KILL $$", json!({})).await?;
    let run = world.run_in("unknown", SOON).await?;
    ensure!(run["run"]["reason"].as_str().is_some_and(|why| why.contains("killed by signal 9")), "{run}");
    assert_eq!((states(&run), ledger.lines()), (vec!["unknown"], vec!["once".to_owned()]));
    Ok(())
}

#[tokio::test]
async fn where_a_repeat_does_no_harm_the_time_limit_is_a_failure_like_any_other() -> anyhow::Result<()> {
    let (world, ledger) = world("echo tried >> $LEDGER; exec sleep 60", json!({ "effect": "idempotent" })).await?;
    let run = world.run_in("failed", SOON).await?;
    ensure!(run["run"]["reason"].as_str().is_some_and(|why| why.contains("timed out after ")), "{run}");
    assert_eq!((states(&run), ledger.lines()), (vec!["failed"; 3], vec!["tried".to_owned(); 3]));
    Ok(())
}

#[tokio::test]
async fn of_a_checkable_step_its_check_says_whether_it_happened() -> anyhow::Result<()> {
    let (done, ledger) = world("echo done >> $LEDGER; exec sleep 60", json!({ "effect": "checkable" })).await?;
    let run = done.run_in("succeeded", SOON).await?;
    assert_eq!((states(&run), ledger.lines()), (vec!["succeeded"], vec!["done".to_owned()]));
    // One that never comes to its work is not begun for ever: three times for the check's sake, then as its retries say.
    let (never, ledger) =
        world("echo tried >> $LEDGER; exec sleep 60", json!({ "effect": "checkable", "retry": { "attempts": 1 } })).await?;
    let run = never.run_in("failed", SOON).await?;
    ensure!(run["run"]["reason"].as_str().is_some_and(|why| why.contains("the check says that it did not happen")), "{run}");
    assert_eq!((states(&run), ledger.lines()), (vec!["failed"; 3], vec!["tried".to_owned(); 3]));
    Ok(())
}
