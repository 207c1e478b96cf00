//! Who has a job: claims that are renewed for as long as the work takes, processes that are stopped, cut off or gone past their lease, replicas that
//! race, and clocks that are set.

use std::collections::{BTreeSet, HashMap};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use domain::job::{Job, NewJob, Urgency};
use harness::fake::discord::{Config, FakeDiscord};
use harness::peers::Postgres;
use harness::world::{Alert, Ledger, Plan, SOON, World};
use harness::{Proxy, Signal, eventually, temp_dir};
use jiff::SignedDuration;
use reqwest::Method;
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use store::Store;

use crate::clocks::with_faketime;
use crate::replicas::replica;
use crate::workers::open;

/// Longer than a lease.
const PAST_LEASE: Duration = Duration::from_secs(17);

/// Longer than a claim is trusted without renewal, and shorter than anybody else waits before they take it.
const PAST_TRUST: Duration = Duration::from_secs(11);

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

/// A remedy that is carried out by itself, for the alerts of its name.
pub(crate) fn with_remedy(plan: &mut Plan, name: &str, steps: &Value) {
    let route = json!({
        "name": name, "match": [format!("alertname={name:?}")], "incident": {}, "remedy": { "runbook": name, "mode": "auto" },
    });
    plan.config["routes"].as_array_mut().unwrap().push(route);
    plan.merge(json!({ "runbooks": { name: { "approval": { "roles": ["sre"] }, "steps": steps } } }));
}

/// The only run of a runbook, with its attempts.
pub(crate) async fn run_of(world: &World, runbook: &str) -> anyhow::Result<Value> {
    let runs = world.runs().await?;
    let mut all = runs.iter().filter(|run| run["runbook"] == runbook);
    let (Some(run), None) = (all.next(), all.next()) else { anyhow::bail!("there is not one run of {runbook}: {runs:#?}") };
    world.get(&format!("/runs/{}", run["id"].as_str().unwrap_or_default())).await
}

/// The same, once it is in this state.
pub(crate) async fn run_is(world: &World, runbook: &str, state: &str) -> anyhow::Result<Value> {
    eventually(SOON, async || {
        let run = run_of(world, runbook).await?;
        ensure!(run["run"]["state"] == state, "{runbook} is {}", run["run"]);
        Ok(run)
    })
    .await
}

/// The attempts of a step: who made each, and what came of it.
pub(crate) fn tried(run: &Value, step: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_step = run["attempts"].as_array().into_iter().flatten().filter(|one| one["step"] == step);
    of_step.map(|one| (text(&one["place"]["instance"]), text(&one["state"]))).collect()
}

/// Waits until so many lines are in the ledger; gives them sorted.
pub(crate) async fn lines(ledger: &Ledger, count: usize) -> anyhow::Result<Vec<String>> {
    eventually(SOON, async || {
        let mut lines = ledger.lines();
        ensure!(lines.len() == count, "{lines:?}");
        lines.sort();
        Ok(lines)
    })
    .await
}

/// Waits until so many runs are no longer in the hands of who had them first.
async fn taken_over(postgres: &Postgres, database: &str, count: usize) -> anyhow::Result<()> {
    eventually(SOON, async || {
        let taken = postgres.psql(database, "select count(*) from jobs where kind = 'run.advance' and claim > 1").await?;
        ensure!(taken == count.to_string(), "{taken} of {count} runs were taken over");
        Ok(())
    })
    .await
}

/// The address of a database by another port.
fn through(database: &str, postgres: &Postgres, wire: &Proxy) -> String {
    database.replace(&format!(":{}/", postgres.port()), &format!(":{}/", wire.port()))
}

/// Two replicas with a command that takes longer than a lease, and the one socket that only one may hold: both stay where they are, because claims and
/// leases are renewed.
#[tokio::test]
async fn what_takes_longer_than_a_lease_is_renewed() -> anyhow::Result<()> {
    let seconds = if harness::long() { "70" } else { "22" };
    let postgres = Postgres::shared().await?;
    let database = postgres.create_database().await?;
    let discord = FakeDiscord::start(Config::default()).await?;
    let (mut a, mut b) = (replica("a", &database)?.discord(&discord, true)?, replica("b", &database)?.discord(&discord, true)?);
    let ledger = a.ledger()?;
    for plan in [&mut a, &mut b] {
        plan.merge(json!({ "programs": [ledger.program] }));
        let command = json!({ "program": ledger.program, "args": ["sleep", seconds] });
        with_remedy(plan, "slow", &json!([{ "id": "slow", "uses": "command", "with": command, "timeout": "2m" }]));
    }
    let (a, b) = (a.start().await?, b.start().await?);
    let socket = async || {
        let sql = "select instance, start_id, n, lease_until from leases where name = 'discord.gateway' and lease_until > 0";
        let held = postgres.psql(&database, sql).await?;
        let (holder, until) = held.rsplit_once('|').context("nobody holds the socket")?;
        anyhow::Ok((holder.to_owned(), until.to_owned()))
    };
    let (socket_of, _) = eventually(SOON, socket).await?;
    a.send(&[Alert::new("slow")]).await?;
    lines(&ledger, 1).await?;
    let mut claims = BTreeSet::new();
    let (mut renewals, mut leases) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let sql = "select instance, start_id, claim, lease_until from jobs where kind = 'run.advance' and state = 'claimed'";
        let claim = postgres.psql(&database, sql).await?;
        let (holder, until) = socket().await?;
        // Asked afterwards: if it goes on now, somebody had it then.
        let run = the_run(&a).await?;
        if run["run"]["state"] != "running" {
            break;
        }
        let (owner, lease) = claim.rsplit_once('|').context("nobody has a run that goes on")?;
        claims.insert(owner.to_owned());
        renewals.insert(lease.to_owned());
        leases.insert(until);
        ensure!(claims.len() == 1 && holder == socket_of, "the run changed hands: {claims:?}, or the socket: {socket_of}, {holder}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let run = a.run_in("succeeded", SOON).await?;
    ensure!(tried(&run, "slow").len() == 1 && tried(&run, "slow")[0].1 == "succeeded", "{run}");
    assert_eq!(ledger.lines(), [format!("sleep {seconds}")]);
    ensure!(renewals.len() >= 3 && leases.len() >= 3, "not renewed: {renewals:?}, {leases:?}");
    assert_eq!(discord.sessions(), 1);
    for world in [&a, &b] {
        for never in ["watchkeeper_claims_lapsed_total", "watchkeeper_claims_lost_total"] {
            ensure!(world.count(never).await? == 0.0, "{never} was counted");
        }
    }
    Ok(())
}

/// The host of two commands is gone, one of them with its shim. Nobody else takes them over: they are unknown, and their targets locked. When the host
/// is back, what its shim left tells of one; of the other a person does.
#[tokio::test]
async fn commands_whose_host_is_gone_are_left_alone_until_it_is_back() -> anyhow::Result<()> {
    harness::rounds("replica killed, also with a shim, while its commands run", 1, async |tally| {
        let postgres = Postgres::start().await?;
        let database = postgres.create_database().await?;
        let (mut a, mut b) = (replica("a", &database)?, replica("b", &database)?);
        let (ledger, go) = (a.ledger()?, a.dir().join("go"));
        let text = format!("#!/bin/sh\n'{}' \"$1\"\nwhile [ ! -e '{}' ]; do sleep 0.1; done\n", ledger.program.display(), go.display());
        let work = a.script("work", &text)?;
        for plan in [&mut a, &mut b] {
            let place = json!({ "kind": "http", "url": "http://127.0.0.1:9/" });
            plan.merge(json!({ "programs": [work, ledger.program], "targets": { "left": place, "lost": place } }));
            let step = |program: &Path, word: &str, target: &str| {
                let with = json!({ "program": program, "args": [word], "target": target });
                json!([{ "id": "work", "uses": "command", "with": with, "timeout": "20s" }])
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

/// Who has two runs is cut off from PostgreSQL. It begins nothing new, neither while it is cut off nor when the wire is back, and what it then says of
/// its claims is refused. The other replica goes on without it.
#[tokio::test]
async fn a_holder_that_is_cut_off_begins_nothing_more() -> anyhow::Result<()> {
    harness::rounds("holder of a claim cut off from PostgreSQL", 1, async |tally| {
        let postgres = Postgres::start().await?;
        let database = postgres.create_database().await?;
        let wire = Proxy::start(postgres.port()).await?;
        let (mut a, mut b) = (replica("a", &through(&database, &postgres, &wire))?, replica("b", &database)?);
        let (ledger, dir) = (a.ledger()?, a.dir().to_owned());
        // Only the first one who asks waits.
        let text = "#!/bin/sh\nmkdir \"$1\" 2>/dev/null || exit 0\nwhile [ ! -e \"$1/go\" ]; do sleep 0.1; done\n";
        let gate = a.script("gate", text)?;
        for plan in [&mut a, &mut b] {
            plan.merge(json!({ "programs": [gate, ledger.program] }));
            for name in ["early", "late"] {
                let write = |step: &str| {
                    let with = json!({ "program": ledger.program, "args": [format!("{step} {name}")] });
                    json!({ "id": step, "uses": "command", "with": with })
                };
                let look = json!({
                    "id": "gate", "uses": "command", "with": { "program": gate, "args": [name], "cwd": dir }, "effect": "read_only", "timeout": "50s",
                });
                with_remedy(plan, name, &json!([write("1"), look, write("2")]));
            }
        }
        let a = a.allow("the store").allow("after_connect").start().await?;
        a.send(&[Alert::new("early"), Alert::new("late")]).await?;
        eventually(SOON, async || {
            ensure!(["early", "late"].iter().all(|name| dir.join(name).exists()), "they do not wait yet: {:?}", ledger.lines());
            Ok(())
        })
        .await?;
        let b = b.start().await?;
        wire.go_dead();
        tally.faults += 1;
        // One comes to its next step when its claim is not trusted any more, and nobody else has it yet.
        tokio::time::sleep(PAST_TRUST).await;
        std::fs::write(dir.join("early/go"), "")?;
        taken_over(&postgres, &database, 2).await?;
        // The steps that were begun are silent for long past their time. They change nothing, so they are repeated.
        postgres.turn_clock(Duration::from_secs(120)).await?;
        for name in ["early", "late"] {
            let run = run_is(&b, name, "succeeded").await?;
            ensure!(tried(&run, "2") == [("b".to_owned(), "succeeded".to_owned())], "{run}");
        }
        let wanted = ["1 early", "1 late", "2 early", "2 late"];
        assert_eq!(lines(&ledger, 4).await?, wanted);

        wire.come_back();
        eventually(SOON, async || {
            ensure!(a.count("watchkeeper_claims_lost_total").await? >= 1.0, "it has not noticed");
            Ok(())
        })
        .await?;
        std::fs::write(dir.join("late/go"), "")?;
        eventually(SOON, async || {
            ensure!(a.log().contains("that is not ours any more was refused"), "its late word is not heard");
            Ok(())
        })
        .await?;
        // Time in which it could begin the next step, if it did.
        tokio::time::sleep(Duration::from_secs(3)).await;
        for name in ["early", "late"] {
            let run = run_is(&a, name, "succeeded").await?;
            ensure!(tried(&run, "2") == [("b".to_owned(), "succeeded".to_owned())], "{run}");
        }
        let mut told = ledger.lines();
        told.sort();
        tally.ledger(&told, &wanted)
    })
    .await
}

/// A replica's renewals do not get through, everything else does. The intent of a command is stored while the claim is trusted, and the answer comes when
/// two thirds of the lease are over: nobody else can have the run yet, but the command may not begin. Under another claim it is done.
#[tokio::test]
async fn a_claim_that_is_not_renewed_is_not_trusted_to_its_end() -> anyhow::Result<()> {
    for _ in 0..3 {
        if not_trusted().await? {
            return Ok(());
        }
    }
    anyhow::bail!("this machine is too slow: what takes seconds takes a lease")
}

/// Whether it came to that; on a busy machine the moment may be missed.
async fn not_trusted() -> anyhow::Result<bool> {
    let postgres = Postgres::shared().await?;
    let database = postgres.create_database().await?;
    let wire = Proxy::start(postgres.port()).await?;
    let mut plan = replica("a", &through(&database, postgres, &wire))?;
    let (ledger, dir) = (plan.ledger()?, plan.dir().to_owned());
    let gate = plan.script("gate", "#!/bin/sh\ntouch waits\nwhile [ ! -e go ]; do sleep 0.1; done\n")?;
    let write = |word: &str| json!({ "id": word, "uses": "command", "with": { "program": ledger.program, "args": [word] } });
    let look = json!({ "id": "gate", "uses": "command", "with": { "program": gate, "cwd": dir }, "effect": "read_only", "timeout": "30s" });
    plan.merge(json!({ "programs": [gate, ledger.program] }));
    with_remedy(&mut plan, "unsure", &json!([write("one"), look, write("two")]));
    let world = plan.allow("the store").start().await?;
    world.send(&[Alert::new("unsure")]).await?;
    eventually(SOON, async || {
        ensure!(dir.join("waits").exists(), "it does not wait yet");
        Ok(())
    })
    .await?;
    wire.lose("update jobs set lease_until");
    // Since the last renewal, by the database.
    let age = async |seconds: f64| {
        eventually(SOON, async || {
            let sql = "select extract(epoch from clock_timestamp()) - lease_until / 1e6 + 15 from jobs where kind = 'run.advance'";
            let age: f64 = postgres.psql(&database, sql).await?.parse()?;
            ensure!(age >= seconds, "it was renewed {age} s ago");
            Ok(age)
        })
        .await
    };
    age(6.0).await?;
    wire.hold_the_answer(&["\"step\":\"two\"", "commit"]);
    std::fs::write(dir.join("go"), "")?;
    wire.answer_is_held(SOON).await?;
    if age(0.0).await? > 9.5 {
        return Ok(false);
    }
    let late = age(10.5).await?;
    wire.let_the_answer_go();
    if late > 13.0 {
        return Ok(false);
    }
    let run = run_is(&world, "unsure", "succeeded").await?;
    let (all, why) = (tried(&run, "two"), run["attempts"][2]["error"].as_str().unwrap_or_default());
    ensure!(all.iter().map(|(_, state)| state.as_str()).eq(["failed", "succeeded"]), "it began under a claim of {late} s: {run}");
    ensure!(why.contains("another server had the run before it began"), "{why}");
    assert_eq!(ledger.lines(), ["one", "two"]);
    Ok(true)
}

#[tokio::test]
async fn a_stopped_holder_loses_its_run_and_begins_nothing_when_it_goes_on() -> anyhow::Result<()> {
    harness::rounds("holder of a claim stopped past its lease", 1, async |tally| {
        let postgres = Postgres::start().await?;
        let (a, b, ledger) = pair(&postgres, "6s").await?;
        let database = a.config["store"]["url"].as_str().context("no address")?.to_owned();
        let (a, b) = (a.allow("the store").start().await?, b.allow("the store").start().await?);
        a.send(&[Alert::service_down()]).await?;
        let name = holder(&a, &postgres, &database).await?;
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

/// One replica's machine is an hour ahead, then the database's clock is: neither makes a second owner of a run that is under way.
#[tokio::test]
async fn clocks_that_are_set_make_no_second_owner() -> anyhow::Result<()> {
    harness::rounds("clocks set an hour ahead", 1, async |tally| {
        let postgres = Postgres::start().await?;
        let (a, b, ledger) = pair(&postgres, "9s").await?;
        let database = a.config["store"]["url"].as_str().context("no address")?.to_owned();
        let b = with_faketime(b)?.env("FAKETIME", "+1h");
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

/// How long a claim of the race holds.
const RACE: SignedDuration = SignedDuration::from_secs(3);
/// Jobs that are claimed at once in it.
const HANDFUL: i64 = 16;

/// A thousand jobs and two replicas that grab for them. Two more do so as well and are gone in the middle, again and again: what they had claimed
/// and not carried out is taken over when their claims run out. Each job is carried out once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_race_carry_every_job_out_once() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let postgres = Postgres::shared().await?;
    let url = postgres.create_database().await?;
    let dir = temp_dir("race")?;
    let stores = [open(&url, "a").await?, open(&url, "b").await?];
    harness::rounds("two replicas race for 1,000 jobs", if harness::long() { 50 } else { 2 }, async |tally| {
        let round = tally.rounds;
        let path = dir.path().join(format!("ledger-{round}"));
        let ledger = Arc::new(OpenOptions::new().create(true).append(true).open(&path)?);
        let jobs: Vec<NewJob> = (0..1_000).map(|n| job(&format!("{round}/{n}"))).collect();
        let mut tx = stores[0].begin().await?;
        tx.enqueue(&jobs).await?;
        tx.commit().await?;
        let quitters = [open(&url, "c").await?, open(&url, "d").await?];
        let quitters = quitters.map(|store| tokio::spawn(quit(store, Arc::clone(&ledger))));
        let workers = stores.iter().chain(&stores).cloned().map(|store| tokio::spawn(work(store, Arc::clone(&ledger))));
        for worker in futures::future::join_all(workers).await {
            worker??;
        }
        let mut left = 0;
        for quitter in quitters {
            left += quitter.await??;
        }
        ensure!(left > 0, "nobody was interrupted");
        tally.faults += left;
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

/// Claims and carries out until nothing is left. The effect is a line in a file that no database knows of, so it begins only while the claim is trusted.
async fn work(store: Store, ledger: Arc<std::fs::File>) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        ensure!(began.elapsed() < SOON, "jobs are left that nobody gets");
        let asked = Instant::now();
        let claimed = store.claim_jobs(HANDFUL, RACE).await?;
        if claimed.is_empty() {
            if store.read().await?.depths().await?.jobs_waiting == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for job in claimed {
            if asked.elapsed() < RACE.unsigned_abs() * 2 / 3 {
                carry_out(&store, &ledger, &job).await?;
            }
        }
    }
}

/// Claims three handfuls, carries out a half of each, and is gone without a word in the middle of the next: between the claim and the effect, with a
/// transaction open. How many jobs it leaves behind.
async fn quit(store: Store, ledger: Arc<std::fs::File>) -> anyhow::Result<u64> {
    let mut left = 0;
    for _ in 0..3 {
        let claimed = store.claim_jobs(HANDFUL, RACE).await?;
        let (done, rest) = claimed.split_at(claimed.len() / 2);
        for job in done {
            carry_out(&store, &ledger, job).await?;
        }
        if let Some(job) = rest.first() {
            let mut tx = store.begin().await?;
            tx.hold_claim(job.id, job.claim).await?;
        }
        left += rest.len() as u64;
    }
    Ok(left)
}

async fn carry_out(store: &Store, mut ledger: &std::fs::File, job: &Job) -> anyhow::Result<()> {
    // In one call, so that no other line gets into it.
    ledger.write_all(format!("{}\n", job.key).as_bytes())?;
    Ok(store.end_job(job, None).await?)
}

fn job(key: &str) -> NewJob {
    NewJob { kind: "race", key: key.to_owned(), due_at: jiff::Timestamp::UNIX_EPOCH, urgency: Urgency::Tell, payload: Value::Null }
}

/// Runs that two servers race for.
const RUNS: usize = 200;

/// Two servers and some hundred runs that go by themselves. One is killed in the middle of it and started again: each command is carried out once, and
/// nobody has to be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_race_carry_every_run_out_once() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("two servers race for runs, one is killed", 1, async |tally| {
        let postgres = Postgres::shared().await?;
        let database = postgres.create_database().await?;
        let (mut a, mut b) = (replica("a", &database)?, replica("b", &database)?);
        let ledger = a.ledger()?;
        for plan in [&mut a, &mut b] {
            let write = json!({ "id": "write", "uses": "command", "with": { "program": ledger.program, "args": ["{{ params.n }}"] } });
            with_remedy(plan, "each", &json!([write]));
            plan.merge(json!({ "programs": [ledger.program], "runbooks": { "each": { "params": { "n": { "type": "text" } } } } }));
            let route = plan.config["routes"].as_array_mut().unwrap().last_mut().unwrap();
            route["incident"] = json!({ "group_by": ["n"] });
            route["remedy"]["with"] = json!({ "n": "{{ labels.n }}" });
        }
        let (mut a, b) = (a.allow("the store").start().await?, b.allow("the store").start().await?);
        let names: Vec<String> = (0..RUNS).map(|n| format!("{n:03}")).collect();
        let alerts: Vec<Alert> = names.iter().map(|name| Alert::new("each").label("n", name)).collect();
        for (n, part) in alerts.chunks(20).enumerate() {
            if n % 2 == 0 { &a } else { &b }.send(part).await?;
        }
        eventually(SOON, async || {
            ensure!(ledger.lines().len() >= RUNS / 4, "{} commands", ledger.lines().len());
            Ok(())
        })
        .await?;
        a.kill9()?;
        tally.faults += 1;
        ensure!(ledger.lines().len() < RUNS, "all was over before it was killed");
        a.start().await?;
        eventually(SOON, async || {
            let runs = b.runs().await?;
            let open: Vec<&Value> = runs.iter().filter(|run| run["state"] != "succeeded").collect();
            ensure!(runs.len() == RUNS && open.is_empty(), "{} runs, {} not over: {:?}", runs.len(), open.len(), open.first());
            Ok(())
        })
        .await?;
        let mut told = ledger.lines();
        told.sort();
        tally.ledger(&told, &names)?;
        let hosts = "select count(distinct cast(doc as json) -> 'place' ->> 'instance') from attempts";
        assert_eq!(postgres.psql(&database, hosts).await?, "2", "both carry out");
        Ok(())
    })
    .await
}
