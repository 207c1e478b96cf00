//! Hosts that are gone, or stand still past their leases.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::peers::Postgres;
use harness::world::{Alert, Plan, SOON};
use harness::{Signal, eventually};
use reqwest::Method;
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};

use super::{lines, pair, replicas, run_is, run_of, taken_over, the_run, tried, under_way, with_remedy, with_run};

/// Longer than a lease.
const PAST_LEASE: Duration = Duration::from_secs(17);

/// The host of two commands is gone, one of them with its shim. Nobody else takes them over: they are unknown, and their targets locked. When the host
/// is back, what its shim left tells of one; of the other a person does.
#[tokio::test]
async fn commands_whose_host_is_gone_are_left_alone_until_it_is_back() -> anyhow::Result<()> {
    harness::rounds("replica killed, also with a shim, while its commands run", 1, async |tally| {
        let postgres = Postgres::start().await?;
        let database = postgres.create_database().await?;
        let (mut a, mut b, ledger) = replicas(&database, &database)?;
        let go = a.dir().join("go");
        let text = format!("#!/bin/sh\n'{}' \"$1\"\nwhile [ ! -e '{}' ]; do sleep 0.1; done\n", ledger.program.display(), go.display());
        let work = a.script("work", &text)?;
        for plan in [&mut a, &mut b] {
            let place = json!({ "kind": "http", "url": "http://127.0.0.1:9/" });
            plan.merge(json!({ "programs": [work, ledger.program], "targets": { "left": place, "lost": place } }));
            let step = |program: &Path, word: &str, target: &str| {
                let with = json!({ "program": program, "args": [word], "target": target });
                json!([{ "id": "work", "uses": "command", "with": with, "timeout": "60s" }])
            };
            with_remedy(plan, "left", &step(&work, "left", "left"));
            with_remedy(plan, "lost", &step(&work, "lost", "lost"));
            with_remedy(plan, "next", &step(&ledger.program, "next", "left"));
        }
        let locked = async || postgres.psql(&database, "select target from target_locks order by target").await;
        let mut a = a.start().await?;
        a.send(&[Alert::new("left"), Alert::new("lost")]).await?;
        lines(&ledger, 2).await?;
        let shim = eventually(SOON, async || {
            let run = run_of(&a, "lost").await?;
            let pid = run["attempts"][0]["place"]["execution"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
            pid.and_then(Pid::from_raw).context("no shim is in the journal")
        })
        .await?;
        let b = b.start().await?;
        a.kill9()?;
        kill_process(shim, Signal::KILL)?;
        tally.faults += 2;
        std::fs::write(&go, "")?;

        // The other one has the runs when the lease is over, and waits: their commands may go on where they are.
        taken_over(&postgres, &database, 2).await?;
        for word in ["left", "lost"] {
            let run = run_of(&b, word).await?;
            ensure!(run["run"]["state"] == "running" && tried(&run, "work") == [("a".to_owned(), "started".to_owned())], "{run}");
        }
        if !harness::long() {
            // Past the step's time and the silence after it.
            postgres.turn_clock(Duration::from_secs(120)).await?;
        }
        let unknown = |run: &Value| {
            let why = run["attempts"][0]["error"].as_str().unwrap_or_default();
            ensure!(run["run"]["state"] == "unknown" && why.contains("a carries it out and says nothing any more"), "{run}");
            Ok(())
        };
        for word in ["left", "lost"] {
            eventually(SOON * 2, async || unknown(&run_of(&b, word).await?)).await?;
        }
        assert_eq!(locked().await?, "left\nlost");
        b.send(&[Alert::new("next")]).await?;
        run_is(&b, "next", "held").await?;
        assert_eq!(lines(&ledger, 2).await?, ["left", "lost"]);

        a.start().await?;
        let run = run_is(&b, "left", "succeeded").await?;
        ensure!(tried(&run, "work") == [("a".to_owned(), "succeeded".to_owned())], "{run}");
        run_is(&b, "next", "succeeded").await?;
        let run = run_of(&a, "lost").await?;
        ensure!(run["run"]["state"] == "unknown" && locked().await? == "lost", "{run}");
        tally.unknown += 1;
        let id = run["run"]["id"].as_str().unwrap_or_default();
        let said = json!({ "how": "ran", "reason": "the ledger says so" });
        let answer = b.call("ben", Method::POST, &format!("/runs/{id}/settle"), Some(&said)).await?;
        ensure!(answer.status.is_success(), "{answer:?}");
        let run = run_is(&b, "lost", "succeeded").await?;
        ensure!(tried(&run, "work").len() == 1 && locked().await?.is_empty(), "{run}");
        tally.ledger(&lines(&ledger, 3).await?, &["left", "lost", "next"])
    })
    .await
}

#[tokio::test]
async fn a_stopped_holder_loses_its_run_and_begins_nothing_when_it_goes_on() -> anyhow::Result<()> {
    harness::rounds("holder of a claim stopped past its lease", 1, async |tally| {
        let postgres = Postgres::start().await?;
        let (a, b, ledger, database) = pair(&postgres, "12s").await?;
        let (a, b, name) = under_way(a, b, &postgres, &database).await?;
        let (mut stopped, other) = if name == "a" { (a, b) } else { (b, a) };
        stopped.proc()?.signal(Signal::STOP)?;
        tally.faults += 1;
        assert_eq!(ledger.lines(), ["one"]);

        // The other one takes the run when the lease is over; the step that was begun it leaves alone until that has been silent for long past its
        // time, and repeats it only because it changes nothing.
        taken_over(&postgres, &database, 1).await?;
        if !harness::long() {
            postgres.turn_clock(Duration::from_secs(120)).await?;
        }
        let run = other.run_in("succeeded", SOON * 5).await?;
        assert_eq!(ledger.lines(), ["one", "two"], "{run}");
        let freed = other.metric("watchkeeper_claims_lapsed_total").await?;
        ensure!(freed >= 1.0, "{freed} claims lapsed");
        stopped.proc()?.signal(Signal::CONT)?;
        // It hears so when it renews its claims, or when it reports an end that is refused, whichever comes first.
        eventually(SOON, async || {
            let log = stopped.log();
            ensure!(log.contains("a claim was lost") || log.contains("that is not ours any more was refused"), "it has not noticed");
            Ok(())
        })
        .await?;
        // Time in which it could begin the next step, if it did.
        tokio::time::sleep(Duration::from_secs(3)).await;
        tally.ledger(&ledger.lines(), &["one", "two"])?;
        let run = the_run(&other).await?;
        assert_eq!(run["run"]["state"], "succeeded");
        let twice = |step: &str| run["attempts"].as_array().into_iter().flatten().filter(|one| one["step"] == step).count();
        assert_eq!((twice("one"), twice("two")), (1, 1), "{run}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn on_sqlite_a_stopped_server_goes_on_with_what_it_has() -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    let ledger = plan.ledger()?;
    with_run(&mut plan, &ledger, "3s");
    let mut world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    eventually(SOON, async || {
        ensure!(ledger.lines() == ["one"], "{:?}", ledger.lines());
        Ok(())
    })
    .await?;
    world.proc()?.signal(Signal::STOP)?;
    // Nobody else is there to take it.
    tokio::time::sleep(PAST_LEASE).await;
    world.proc()?.signal(Signal::CONT)?;
    world.run_in("succeeded", SOON).await?;
    assert_eq!(ledger.lines(), ["one", "two"]);
    Ok(())
}
