//! `kill -9` of the real server: nothing accepted is lost, runs go on at the right step, and what was under way is never done twice.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::eventually;
use harness::world::{Alert, Ledger, Plan, SOON, World, body};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

/// How often the server is killed under load. Twenty rounds of a second each, with their restarts, stay within a minute.
const ROUNDS: u64 = 20;
/// Deliveries a second while it is up.
const RATE: u64 = 200;
/// Every so many deliveries one has so many alerts, which is too much to be decided where it is stored.
const LARGE: (u64, u64) = (40, 70);

fn plan() -> anyhow::Result<Plan> {
    Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_every_kill() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("server killed under load", 1, async |tally| {
        let mut world = plan()?.start().await?;
        let mut kept = BTreeSet::new();
        for round in 0..ROUNDS {
            if round > 0 {
                world.start().await?;
            }
            let load = Load::start(&world, round);
            load.answered(20).await?;
            // At another moment of whatever it does in each round.
            tokio::time::sleep(Duration::from_millis(round * 137 % 600)).await;
            world.kill9()?;
            tally.faults += 1;
            kept.extend(load.stop().await?);
        }
        world.start().await?;
        // What was left unopened becomes events when it is decided.
        eventually(SOON, async || {
            let mut stored = BTreeSet::new();
            for event in world.all("/events", "after").await? {
                let twice = !stored.insert(event["payload"]["labels"]["delivery"].as_str().unwrap_or_default().to_owned());
                ensure!(!twice, "an event is there twice: {event:#}");
            }
            let lost: Vec<&String> = kept.difference(&stored).collect();
            ensure!(lost.is_empty(), "{} of {} alerts that were answered are lost: {lost:?}", lost.len(), kept.len());
            Ok(())
        })
        .await?;
        tally.lines += kept.len() as u64;
        // And each of them has been decided: it is an alert of its incident.
        eventually(SOON, async || {
            let incidents = world.incidents().await?;
            ensure!(incidents.len() == 1, "there are {} incidents", incidents.len());
            let (total, active) = (&incidents[0]["alerts_total"], &incidents[0]["alerts_active"]);
            let stored = world.all("/events", "after").await?.len();
            ensure!(total == stored && active == stored, "{total} alerts, {active} active, of {stored} events");
            Ok(())
        })
        .await
    })
    .await
}

/// Deliveries at a steady rate, each with an alert of its own.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(world: &World, round: u64) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let url = format!("{}/api/v1/webhooks/alertmanager/am", world.url());
        let (http, token) = (world.http().clone(), world.source_token());
        let (stopped, kept) = (Arc::clone(&stop), Arc::clone(&answered));
        let task = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
            let mut posts = tokio::task::JoinSet::new();
            let mut number = 0;
            while !stopped.load(Ordering::SeqCst) {
                every.tick().await;
                let name = format!("{round}-{number}");
                number += 1;
                let count = if number % LARGE.0 == 0 { LARGE.1 } else { 1 };
                let names: Vec<String> = (0..count).map(|n| format!("{name}.{n}")).collect();
                let alerts: Vec<Alert> = names.iter().map(|name| Alert::new("Flood").label("delivery", name)).collect();
                let post = http.post(&url).bearer_auth(token).json(&body(&alerts));
                let kept = Arc::clone(&kept);
                posts.spawn(async move {
                    if post.send().await.is_ok_and(|answer| answer.status().is_success()) {
                        kept.lock().unwrap().extend(names);
                    }
                });
            }
            posts.join_all().await;
        });
        Self { stop, answered, task }
    }

    /// Waits until so many were answered.
    async fn answered(&self, count: usize) -> anyhow::Result<()> {
        eventually(SOON, async || {
            let answered = self.answered.lock().unwrap().len();
            ensure!(answered >= count, "{answered} deliveries were answered");
            Ok(())
        })
        .await
    }

    async fn stop(self) -> anyhow::Result<Vec<String>> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await?;
        let answered = std::mem::take(&mut *self.answered.lock().unwrap());
        Ok(answered)
    }
}

/// A plan whose default runbook has these steps and runs by itself.
fn automatic(plan: &mut Plan, steps: &Value) {
    plan.config["routes"][0]["remedy"]["mode"] = json!("auto");
    plan.merge(json!({ "runbooks": { "restart-service": { "steps": steps, "verify": null } } }));
}

#[tokio::test]
async fn a_killed_server_goes_on_at_the_step_where_it_was() -> anyhow::Result<()> {
    let mut plan = plan()?;
    let ledger = plan.ledger()?;
    let write = |word: &str| json!({ "id": word, "uses": "command", "with": { "program": ledger.program, "args": [word] } });
    let look = json!({
        "id": "gate", "uses": "http.check", "with": { "target": "demo" }, "retry": { "attempts": 20, "delay": "500ms", "max_delay": "500ms" },
    });
    let pause = json!({ "id": "pause", "uses": "wait", "with": { "for": "3s" } });
    automatic(&mut plan, &json!([write("one"), look, write("two"), pause, write("three")]));
    let mut world = plan.start().await?;
    world.service_is(true).await?;
    // The gate is closed for as long as the service is down, and a server that starts starts the service too.
    world.kill_service()?;
    world.send(&[Alert::service_down()]).await?;
    wait_for(&world, "gate", 2).await?;
    world.kill9()?;
    assert_eq!(ledger.lines(), ["one"]);

    world.start().await?;
    let ready = Instant::now();
    eventually(Duration::from_secs(5), async || {
        ensure!(ledger.lines() == ["one", "two"], "{:?}", ledger.lines());
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

/// A runbook with one step of some seconds, and one that wants the same target.
fn slow(seconds: &str) -> anyhow::Result<(Plan, Ledger)> {
    let mut plan = plan()?;
    let ledger = plan.ledger()?;
    let command = |args: &[&str]| json!({ "program": ledger.program, "args": args, "target": "demo" });
    automatic(&mut plan, &json!([{ "id": "slow", "uses": "command", "with": command(&["sleep", seconds]) }]));
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

#[tokio::test]
async fn a_command_goes_on_while_its_server_is_away_and_its_result_is_taken() -> anyhow::Result<()> {
    harness::rounds("server killed or stopped while a command runs", 1, async |tally| {
        for killed in [true, false] {
            let (plan, ledger) = slow("3")?;
            let mut world = plan.start().await?;
            begun(&world, &ledger).await?;
            if killed {
                world.kill9()?;
            } else {
                // It does not wait for the command.
                let took = Unit::read("watchkeeper.service")?.stop(&mut world).await?;
                ensure!(took < Duration::from_secs(2), "the stop took {took:?}");
            }
            tally.faults += 1;
            world.start().await?;
            let run = world.run_in("succeeded", SOON).await?;
            let attempts: Vec<&Value> = run["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["state"]).collect();
            assert_eq!(attempts, ["succeeded"], "killed: {killed}");
            tally.ledger(&ledger.lines(), &["sleep 3"])?;
        }
        Ok(())
    })
    .await
}

/// systemd's stand-in: ends a server as `systemctl stop` and `restart` do with the unit that we ship.
///
/// Source: <https://www.freedesktop.org/software/systemd/man/latest/systemd.kill.html>.
struct Unit {
    mode: KillMode,
    /// Between TERM and KILL.
    patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KillMode {
    /// TERM to all of the unit's control group, and KILL to what is left.
    ControlGroup,
    /// TERM to the main process, and KILL to whatever else is left.
    Mixed,
    /// The main process alone.
    Process,
}

impl Unit {
    /// A unit in `deploy/`.
    fn read(name: &str) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(harness::repo().join("deploy").join(name))?;
        let value = |key: &str| text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).next_back().map(str::trim);
        let mode = match value("KillMode") {
            Some("process") => KillMode::Process,
            Some("mixed") => KillMode::Mixed,
            // As without a word about it.
            Some("control-group") | None => KillMode::ControlGroup,
            Some(other) => anyhow::bail!("{name} has KillMode={other}"),
        };
        ensure!(value("KillSignal").is_none() && value("SendSIGKILL").is_none(), "{name} ends with more than this knows of");
        let patience = value("TimeoutStopSec").unwrap_or("90").parse().context("TimeoutStopSec")?;
        Ok(Self { mode, patience: Duration::from_secs(patience) })
    }

    /// Ends the server, and of its control group what the unit says; how long the server took. Who descends from the server stands for the group:
    /// nobody leaves a control group by a session of his own, and a shim adopts what its command leaves behind.
    async fn stop(&self, world: &mut World) -> anyhow::Result<Duration> {
        let server = i32::try_from(world.proc()?.pid()).ok().and_then(Pid::from_raw).context("no pid")?;
        let group = descendants(server);
        let asked = Instant::now();
        if self.mode == KillMode::ControlGroup {
            signal_all(&group, Signal::TERM);
        }
        world.stop().await?;
        let took = asked.elapsed();
        ensure!(took < self.patience, "systemd would have killed it: the stop took {took:?}");
        if self.mode != KillMode::Process {
            if self.mode == KillMode::ControlGroup {
                // What heard TERM gets time to end by it.
                let gone = async || {
                    ensure!(!group.iter().any(|process| is_alive(*process)), "some are left");
                    Ok(())
                };
                eventually(self.patience.saturating_sub(took), gone).await.ok();
            }
            signal_all(&group, Signal::KILL);
        }
        Ok(took)
    }
}

#[tokio::test]
async fn when_the_shim_dies_too_nobody_knows_and_the_target_stays_locked_until_a_person_has_looked() -> anyhow::Result<()> {
    harness::rounds("server and shim killed while a command runs", 1, async |tally| {
        for command_too in [false, true] {
            let (plan, ledger) = slow("20")?;
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
            assert_eq!(ledger.lines(), ["sleep 20"]);
            let id = run["run"]["id"].as_str().unwrap();
            let settle = json!({ "how": "abort", "reason": "it hung, I killed it" });
            let answer = world.call("ben", Method::POST, &format!("/runs/{id}/settle"), Some(&settle)).await?;
            ensure!(answer.status.is_success(), "{answer:?}");
            state_of(&world, "second", "succeeded").await?;
            tally.ledger(&ledger.lines(), &["sleep 20", "second"])?;
            // What nobody looks after any more would outlive this test.
            kill_process_group(below[0], Signal::KILL).ok();
        }
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
        format!("#!/bin/sh\nif [ -e {0} ]; then echo done >> {1}; else touch {0}; exec sleep 20; fi\n", mark.display(), ledger.display());
    let work = plan.script("work", &text)?;
    let asked = plan.script("asked", &format!("#!/bin/sh\n[ -e {} ] || exit 10\n", ledger.display()))?;
    plan.merge(json!({ "programs": [work, asked] }));
    let step =
        json!({ "id": "work", "uses": "command", "with": { "program": work }, "effect": "checkable", "check": { "program": asked } });
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

/// Who is gone already hears nothing.
fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        kill_process(*pid, signal).ok();
    }
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
