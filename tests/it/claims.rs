//! Who has a job: processes that are stopped past their lease, replicas that race, and clocks that are set.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use domain::job::{NewJob, Urgency};
use harness::peers::Postgres;
use harness::world::{Alert, Ledger, Plan, SOON, World};
use harness::{Signal, eventually, temp_dir};
use jiff::SignedDuration;
use serde_json::{Value, json};
use store::Store;

use crate::replicas::replica;
use crate::workers::open;

/// Longer than a lease.
const PAST_LEASE: Duration = Duration::from_secs(17);

/// A run that writes `one`, waits, and writes `two`, by itself.
fn with_run(plan: &mut Plan, ledger: &Ledger, wait: &str) {
    let write = |word: &str| json!({ "id": word, "uses": "command", "with": { "program": ledger.program, "args": [word] } });
    let pause = json!({ "id": "pause", "uses": "wait", "with": { "for": wait }, "timeout": "10s" });
    plan.config["routes"][0]["remedy"]["mode"] = json!("auto");
    plan.config["routes"][0]["remedy"]["with"] = json!({});
    plan.merge(json!({
        "programs": [ledger.program],
        "runbooks": { "restart-service": { "params": null, "steps": [write("one"), pause, write("two")], "verify": null } },
    }));
}

/// Two replicas, `a` and `b`, with the same rules and one ledger.
async fn pair(postgres: &Postgres, wait: &str) -> anyhow::Result<(Plan, Plan, Ledger)> {
    let database = postgres.create_database().await?;
    let (mut a, mut b) = (replica("a", &database)?, replica("b", &database)?);
    let ledger = a.ledger()?;
    with_run(&mut a, &ledger, wait);
    with_run(&mut b, &ledger, wait);
    Ok((a, b, ledger))
}

/// Who carries the run out, once its second step is under way.
async fn holder(world: &World, postgres: &Postgres, database: &str) -> anyhow::Result<String> {
    eventually(SOON, async || {
        let run = the_run(world).await?;
        ensure!(run["attempts"].as_array().is_some_and(|all| all.iter().any(|one| one["step"] == "pause")), "it does not wait yet: {run}");
        let name = postgres.psql(database, "select instance from jobs where kind = 'run.advance' and state = 'claimed'").await?;
        ensure!(!name.is_empty(), "nobody has it");
        Ok(name)
    })
    .await
}

async fn the_run(world: &World) -> anyhow::Result<Value> {
    let runs = world.runs().await?;
    ensure!(runs.len() == 1, "there are {} runs", runs.len());
    world.get(&format!("/runs/{}", runs[0]["id"].as_str().unwrap_or_default())).await
}

#[tokio::test]
async fn a_stopped_holder_loses_its_run_and_begins_nothing_when_it_goes_on() -> anyhow::Result<()> {
    harness::rounds("holder of a claim stopped past its lease", 1, async |tally| {
        let postgres = Postgres::shared().await?;
        let (a, b, ledger) = pair(postgres, "6s").await?;
        let database = a.config["store"]["url"].as_str().context("no address")?.to_owned();
        let (a, b) = (a.allow("the store").start().await?, b.allow("the store").start().await?);
        a.send(&[Alert::service_down()]).await?;
        let name = holder(&a, postgres, &database).await?;
        let (mut stopped, other) = if name == "a" { (a, b) } else { (b, a) };
        stopped.proc()?.signal(Signal::STOP)?;
        tally.faults += 1;
        assert_eq!(ledger.lines(), ["one"]);

        // The other one takes the run when the lease is over; the step that was begun it leaves alone until that has been silent for long past its
        // time, and repeats it only because it changes nothing.
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

/// One replica's machine is an hour ahead, then the database's clock is: neither makes a second owner of a run that is under way.
#[tokio::test]
async fn clocks_that_are_set_make_no_second_owner() -> anyhow::Result<()> {
    harness::rounds("clocks set an hour ahead", 1, async |tally| {
        let postgres = Postgres::start().await?;
        let (a, b, ledger) = pair(&postgres, "9s").await?;
        let database = a.config["store"]["url"].as_str().context("no address")?.to_owned();
        let faketime = std::fs::read_dir("/usr/lib")?.flatten().map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
        let faketime = faketime.filter(|path| path.exists()).find_map(|path| path.to_str().map(str::to_owned));
        let faketime = faketime.context("no libfaketime; ./test installs it")?;
        let b = b.env("LD_PRELOAD", &faketime).env("FAKETIME", "+1h").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let (a, b) = (a.allow("the store").start().await?, b.allow("the store").start().await?);
        a.send(&[Alert::service_down()]).await?;
        let first = holder(&a, &postgres, &database).await?;
        postgres.turn_clock(Duration::from_secs(3600)).await?;
        tally.faults += 2;
        let run = a.run_in("succeeded", SOON).await?;
        tally.ledger(&ledger.lines(), &["one", "two"])?;
        assert_eq!(run["attempts"].as_array().map(Vec::len), Some(3), "no step was tried twice: {run}");
        for world in [&a, &b] {
            ensure!(!world.log().contains("it is free again"), "a claim of {first} was taken");
        }
        // The timers of both follow the one clock: what comes next is decided, by whoever.
        b.send(&[Alert::new("Later")]).await?;
        eventually(SOON, async || {
            ensure!(b.incidents().await?.len() == 2, "it is not decided");
            Ok(())
        })
        .await
    })
    .await
}

/// A thousand jobs and two replicas that grab for them, some of which are interrupted: each is carried out once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_race_carry_every_job_out_once() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let postgres = Postgres::shared().await?;
    let url = postgres.create_database().await?;
    let dir = temp_dir("race")?;
    let stores = [open(&url, "a").await?, open(&url, "b").await?];
    harness::rounds("two replicas race for 1,000 jobs", if harness::long() { 50 } else { 3 }, async |tally| {
        let round = tally.rounds;
        let path = dir.path().join(format!("ledger-{round}"));
        let ledger = Arc::new(OpenOptions::new().create(true).append(true).open(&path)?);
        let jobs: Vec<NewJob> = (0..1_000).map(|n| job(&format!("{round}/{n}"))).collect();
        let mut tx = stores[0].begin().await?;
        tx.enqueue(&jobs).await?;
        tx.commit().await?;
        let workers = stores.iter().chain(&stores).cloned().map(|store| tokio::spawn(work(store, Arc::clone(&ledger))));
        for worker in futures::future::join_all(workers).await {
            worker??;
        }
        let mut lines: HashMap<String, usize> = HashMap::new();
        for line in std::fs::read_to_string(&path)?.lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
        let odd: Vec<_> = lines.iter().filter(|(_, times)| **times != 1).collect();
        ensure!(lines.len() == 1_000 && odd.is_empty(), "round {round}: {} jobs, not once: {odd:?}", lines.len());
        tally.lines += lines.len() as u64;
        Ok(())
    })
    .await
}

/// Claims and carries out until nothing is left. The effect is a line in a file that no database knows of.
async fn work(store: Store, ledger: Arc<std::fs::File>) -> anyhow::Result<()> {
    loop {
        let claimed = store.claim_jobs(16, SignedDuration::from_secs(15)).await?;
        if claimed.is_empty() && store.read().await?.depths().await?.jobs_waiting == 0 {
            return Ok(());
        }
        for job in claimed {
            // In one call, so that no other line gets into it.
            (&*ledger).write_all(format!("{}\n", job.key).as_bytes())?;
            store.end_job(&job, None).await?;
        }
    }
}

fn job(key: &str) -> NewJob {
    NewJob { kind: "race", key: key.to_owned(), due_at: jiff::Timestamp::UNIX_EPOCH, urgency: Urgency::Tell, payload: Value::Null }
}
