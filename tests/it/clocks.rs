//! Clocks that are set while things go on. With SQLite the machine's counts, with PostgreSQL its own.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::eventually;
use harness::peers::Postgres;
use harness::world::{Alert, Ledger, Plan, SOON};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::claims::{lines, pair, run_is, run_of, tried, under_way, with_remedy};
use crate::replicas::signs_of_life;

/// Almost an hour: a run that is held for longer does not begin any more.
const AHEAD: i64 = 55 * 60;

/// With a wall clock that variables of libfaketime move, and a monotonic one that nobody does.
pub(crate) fn with_faketime(plan: Plan) -> anyhow::Result<Plan> {
    let places = fs::read_dir("/usr/lib")?.flatten().map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
    let found = places.filter(|path| path.exists()).find_map(|path| path.to_str().map(str::to_owned));
    let library = found.context("no libfaketime; ./test installs it")?;
    Ok(plan.env("LD_PRELOAD", &library).env("FAKETIME_DONT_FAKE_MONOTONIC", "1"))
}

/// A server's wall clock.
struct WallClock(PathBuf);

impl WallClock {
    /// Of the server that this plan will start, and right at first.
    fn of(plan: Plan) -> anyhow::Result<(Plan, Self)> {
        let file = plan.dir().join("clock");
        let plan = with_faketime(plan)?.env("FAKETIME_TIMESTAMP_FILE", &file.display().to_string()).env("FAKETIME_NO_CACHE", "1");
        let clock = Self(file);
        clock.set(0)?;
        Ok((plan, clock))
    }

    /// From now on it is so many seconds ahead, or behind.
    fn set(&self, seconds: i64) -> anyhow::Result<()> {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        // Whole at every moment.
        Ok(fs::rename(&new, &self.0)?)
    }
}

/// Two runs that want one target, the first of which waits for the file `go`; one whose step fails until there is a file `heal`.
fn runs(plan: &mut Plan) -> anyhow::Result<Ledger> {
    let (ledger, dir) = (plan.ledger()?, plan.dir().to_owned());
    let writes = ledger.program.display();
    let wait = plan.script("wait", &format!("#!/bin/sh\n'{writes}' wait\nwhile [ ! -e '{}/go' ]; do sleep 0.1; done\n", dir.display()))?;
    let fail = plan.script("fail", &format!("#!/bin/sh\n[ -e '{}/heal' ] && exec '{writes}' healed\n", dir.display()))?;
    plan.merge(json!({ "programs": [ledger.program, wait, fail], "targets": { "box": { "kind": "http", "url": "http://127.0.0.1:9/" } } }));
    let write =
        |word: &str| json!({ "id": word, "uses": "command", "with": { "program": ledger.program, "args": [word], "target": "box" } });
    let waits = json!({ "id": "wait", "uses": "command", "with": { "program": wait, "target": "box" }, "timeout": "5m" });
    let fails = json!({
        "id": "fail", "uses": "command", "with": { "program": fail }, "retry": { "attempts": 20, "delay": "5s", "max_delay": "5s" },
    });
    with_remedy(plan, "first", &json!([write("one"), waits, write("two")]));
    with_remedy(plan, "second", &json!([write("second")]));
    with_remedy(plan, "failing", &json!([fails]));
    Ok(ledger)
}

/// The next sign of life.
async fn next(beats: &mut UnboundedReceiver<Instant>) -> anyhow::Result<()> {
    while beats.try_recv().is_ok() {}
    tokio::time::timeout(SOON, beats.recv()).await.ok().flatten().map(drop).context("no sign of life any more")
}

/// The machine's clock is set ahead and back, and back once more. What began goes on, what came in is decided, and nothing waits for the time by which the
/// clock was ahead: no retry, no look at a lock, no incident's end, no sign of life. In every other round the server does not run while it is set back.
#[tokio::test]
async fn a_clock_that_is_set_ahead_and_back_keeps_nothing_waiting() -> anyhow::Result<()> {
    harness::rounds("clock set ahead and back, with SQLite", 2, async |tally| {
        let (mut plan, clock) = WallClock::of(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?)?;
        let (ledger, dir) = (runs(&mut plan)?, plan.dir().to_owned());
        let (url, mut beats) = signs_of_life().await?;
        plan.merge(json!({ "heartbeat": { "url": url, "every": "5s" }, "incidents": { "resolve_after": "5s" } }));
        let route = json!({ "name": "others", "match": ["alertname=\"Other\""], "incident": { "group_by": ["n"] } });
        plan.config["routes"].as_array_mut().context("no routes")?.push(route);
        let mut world = plan.start().await?;
        let remedied = ["first", "second", "failing"].map(Alert::new);
        let others = ["1", "2", "3"].map(|n| Alert::new("Other").label("n", n));

        world.send(&remedied[..1]).await?;
        lines(&ledger, 2).await?;
        world.send(&remedied[1..2]).await?;
        run_is(&world, "second", "held").await?;
        next(&mut beats).await?;

        clock.set(AHEAD)?;
        tally.faults += 1;
        world.send(&remedied[2..]).await?;
        eventually(SOON, async || {
            let run = run_of(&world, "failing").await?;
            ensure!(!tried(&run, "fail").is_empty(), "{run}");
            Ok(())
        })
        .await?;
        next(&mut beats).await?;
        world.send(&others[..1]).await?;
        let opened =
            world.incident_in(4, "open", SOON).await?["incident"]["opened_at"].as_str().unwrap_or_default().parse::<Timestamp>()?;
        ensure!(opened > others[0].starts_at + SignedDuration::from_mins(50), "the clock is not ahead: {opened}");
        world.send(&[others[0].resolved()]).await?;
        eventually(SOON, async || {
            let incident = world.get("/incidents/4").await?;
            ensure!(incident["incident"]["alerts_active"] == 0, "{incident}");
            Ok(())
        })
        .await?;

        if tally.rounds % 2 == 0 {
            world.kill9()?;
            clock.set(0)?;
            world.start().await?;
        } else {
            clock.set(0)?;
        }
        tally.faults += 1;
        world.send(&others[1..2]).await?;
        world.incident_in(4, "closed", SOON).await?;
        next(&mut beats).await?;
        fs::write(dir.join("heal"), "")?;
        run_is(&world, "failing", "succeeded").await?;

        clock.set(-600)?;
        tally.faults += 1;
        world.send(&others[2..]).await?;
        next(&mut beats).await?;
        fs::write(dir.join("go"), "")?;
        let first = run_is(&world, "first", "succeeded").await?;
        ensure!(tried(&first, "wait").len() == 1, "{first}");
        run_is(&world, "second", "succeeded").await?;
        tally.ledger(&ledger.lines(), &["one", "wait", "healed", "two", "second"])?;

        let ended: Vec<Alert> = remedied.iter().chain(&others).map(Alert::resolved).collect();
        world.send(&ended).await?;
        for number in 1..=6 {
            world.incident_in(number, "closed", SOON).await?;
        }
        ensure!(world.log().contains("the clock was set back"), "nobody is told");
        Ok(())
    })
    .await
}

/// The machine's clock is set ahead by more than anything is kept, and back. Retention looks at once, by its own schedule, and takes nothing.
#[tokio::test]
async fn a_clock_that_is_set_ahead_makes_nothing_old() -> anyhow::Result<()> {
    harness::rounds("clock set ahead by two years, with SQLite", 1, async |tally| {
        let (plan, clock) = WallClock::of(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?)?;
        let world = plan.with(json!({ "incidents": { "resolve_after": "1s" } })).start().await?;
        let alert = Alert::new("Past");
        world.send(std::slice::from_ref(&alert)).await?;
        world.send(&[alert.resolved()]).await?;
        world.incident_in(1, "closed", SOON).await?;
        let audit = world.audit().await?.len();
        let looked = async |after: f64| {
            eventually(SOON, async || {
                let looked = world.metric("watchkeeper_prune_last_success_timestamp_seconds").await?;
                ensure!(looked > after, "no round of retention since {after}: {looked}");
                Ok(looked)
            })
            .await
        };
        let before = looked(0.0).await?;
        clock.set(730 * 24 * 3600)?;
        tally.faults += 1;
        looked(before + 700.0 * 24.0 * 3600.0).await?;
        ensure!(world.count("watchkeeper_pruned_rows_total").await? == 0.0, "something went");
        ensure!(world.metric("watchkeeper_retention_clock_behind_seconds").await? > 700.0 * 24.0 * 3600.0, "it is not told");
        clock.set(0)?;
        world.incident_in(1, "closed", SOON).await?;
        ensure!(world.audit().await?.len() >= audit, "rows of the audit log went");
        ensure!(world.log().contains("nothing more goes for its age"), "nobody is told");
        Ok(())
    })
    .await
}

/// One replica's machine is an hour ahead, then the database's clock is: neither makes a second owner of a run that is under way.
#[tokio::test]
async fn clocks_that_are_set_make_no_second_owner() -> anyhow::Result<()> {
    harness::rounds("clocks set an hour ahead", 1, async |tally| {
        let postgres = Postgres::start().await?;
        let (a, b, ledger, database) = pair(&postgres, "15s").await?;
        let b = with_faketime(b)?.env("FAKETIME", "+1h");
        let (a, b, first) = under_way(a, b, &postgres, &database).await?;
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
