//! The server killed at each of its syncs in turn, with a run under way: whatever was half done, the effects outside happen once.
//!
//! `strace` kills it in the middle of the system call that makes something durable (on PostgreSQL: in the middle of a send to it), so every arrow of
//! every state machine is hit from both sides: it happened and was not told, or was told and did not happen. The shims are killed like that too. The short
//! form takes strides; `./test --long` then fills the gaps, for as long as it may.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::peers::Postgres;
use harness::world::{Alert, Ledger, Plan, SOON, World};
use harness::{SWEEPS, Tally, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

const WORDS: [&str; 3] = ["one", "two", "three"];
/// Calls after which everything has happened, whatever else the server asks meanwhile.
const MOST: u64 = 300;
/// More alerts than are decided where they are stored.
const COMPANY: u64 = 70;

/// Says at which call the server is to be killed, and what the commands did.
struct Sweep {
    ledger: Ledger,
    armed: PathBuf,
    _dir: TempDir,
}

/// A plan whose server is killed at the nth of some system calls once a file says so.
fn armed(calls: &str) -> anyhow::Result<(Plan, Sweep)> {
    let dir = harness::temp_dir("sweep")?;
    let armed = dir.path().join("armed");
    let wrapper = dir.path().join("watchkeeper");
    let (program, file) = (env!("CARGO_BIN_EXE_watchkeeper"), armed.display());
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = serve ] && [ -s {file} ]; then\n  exec strace -D -f -qq -o /dev/null -e trace={calls} \
         -e inject={calls}:signal=SIGKILL:when=$(cat {file}) {program} \"$@\"\nfi\nexec {program} \"$@\"\n"
    );
    std::fs::write(&wrapper, text)?;
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    // What a dying server complains of is no fault.
    let mut plan = Plan::new(&wrapper)?.allow("");
    let ledger = plan.ledger()?;
    let step =
        |word: &&str| json!({ "id": word, "uses": "command", "with": { "program": ledger.program, "args": [word], "target": "demo" } });
    let steps: Vec<Value> = WORDS.iter().map(step).collect();
    plan.config["routes"][0]["remedy"]["mode"] = json!("auto");
    plan.merge(json!({ "runbooks": { "restart-service": { "steps": steps, "verify": null } } }));
    Ok((plan, Sweep { ledger, armed, _dir: dir }))
}

impl Sweep {
    /// One round: armed for the nth call, until the server dies or has done everything. Whether it died.
    async fn round(&self, world: &mut World, nth: u64, tally: &mut Tally) -> anyhow::Result<bool> {
        std::fs::write(&self.armed, nth.to_string())?;
        self.ledger.clear()?;
        let round = tally.rounds.to_string();
        let alert = Alert::service_down().label("round", &round);
        // A body alone is decided where it is stored; one with so many alerts is left unopened first.
        let company = if tally.rounds.is_multiple_of(2) { 0 } else { COMPANY };
        let mut all: Vec<Alert> =
            (0..company).map(|n| Alert::new("NobodyMinds").label("n", &n.to_string()).label("round", &round)).collect();
        all.push(alert.clone());
        let sent = match world.start().await {
            Ok(()) => world.send(&all).await.is_ok(),
            Err(_) => false,
        };
        let began = Instant::now();
        let died = loop {
            if !world.proc()?.is_running() {
                break true;
            }
            if sent && self.ledger.lines().len() == WORDS.len() && active(world).await.is_ok_and(|count| count == 0) {
                break false;
            }
            ensure!(began.elapsed() < SOON * 2, "round {nth} neither ends nor kills: {:?}", self.ledger.lines());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        std::fs::write(&self.armed, "")?;
        world.kill9()?;
        world.start().await.with_context(|| format!("the start after round {nth}"))?;
        // What was answered well is not sent again, what was not is: as Alertmanager does.
        if !sent {
            world.send(&all).await?;
        }
        tally.unknown += self.settle(world, &round).await.with_context(|| format!("round {nth}: {:?}", self.ledger.lines()))?;
        tally.ledger(&self.ledger.lines(), &WORDS).with_context(|| format!("round {nth}"))?;
        let over: Vec<Alert> = all.iter().map(Alert::resolved).collect();
        world.send(&over).await?;
        eventually(SOON, async || {
            ensure!(world.incidents().await?.iter().all(|incident| incident["state"] == "closed"), "it does not close");
            Ok(())
        })
        .await?;
        world.stop().await?;
        Ok(died)
    }

    /// Lets the run come to its end. Where nobody knows, a person looks at the ledger and says what it says. How often that was.
    async fn settle(&self, world: &World, round: &str) -> anyhow::Result<u64> {
        let asked = std::cell::Cell::new(0);
        eventually(SOON * 2, async || {
            let runs = world.runs().await?;
            let of_round = |run: &&Value| run["inputs"]["context"]["labels"]["round"] == round;
            let newest = runs.iter().find(of_round).context("there is no run")?;
            let (id, state) = (newest["id"].as_str().unwrap_or_default(), newest["state"].as_str().unwrap_or_default());
            if state == "unknown" {
                let run = world.get(&format!("/runs/{id}")).await?;
                let attempts = run["attempts"].as_array().cloned().unwrap_or_default();
                let step = attempts.last().and_then(|attempt| attempt["step"].as_str()).unwrap_or_default().to_owned();
                let how = if self.ledger.lines().contains(&step) { "ran" } else { "again" };
                let said = json!({ "how": how, "reason": "the ledger says so" });
                let answer = world.call("ben", Method::POST, &format!("/runs/{id}/settle"), Some(&said)).await?;
                asked.set(asked.get() + u64::from(answer.status.is_success()));
            }
            ensure!(state == "succeeded" && active(world).await? == 0, "the run is {state}: {}", newest["reason"]);
            Ok(())
        })
        .await?;
        Ok(asked.get())
    }
}

async fn active(world: &World) -> anyhow::Result<usize> {
    let states = ["succeeded", "failed", "cancelled", "refused", "superseded", "timed_out"];
    Ok(world.runs().await?.iter().filter(|run| !states.contains(&run["state"].as_str().unwrap_or_default())).count())
}

/// Rounds at the call `first` and every `step`th from there until a server lives through one, or is late: a slow machine's server looks around more often
/// meanwhile. At length then those in the middle between them and so on, until every single one was tried; then those that a server lived through, which
/// another may not; and while there is time, when that brings nothing new, from the start.
async fn sweep(fault: &str, plan: Plan, sweep: Sweep, shares: u32, (first, mut step): (u64, u64)) -> anyhow::Result<()> {
    let (mut tally, coarse) = (Tally::of_sweep(fault, shares), step);
    let mut world = plan.start().await?;
    world.service_is(true).await?;
    world.stop().await?;
    let (mut tried, mut struck) = (BTreeSet::new(), BTreeSet::new());
    let (mut nth, mut end, mut whole, mut before) = (first, MOST, false, 0);
    while !whole || tally.time_left() {
        if nth >= end {
            ensure!(tally.faults >= 3, "only {} rounds ended with a kill: the sweep sweeps nothing", tally.faults);
            whole = true;
            if step == 1 {
                tried.clear();
                if struck.len() > before {
                    tried.extend(&struck);
                }
                (before, step, end) = (struck.len(), coarse, MOST);
            } else {
                step /= 2;
            }
            nth = (first - 1) % step + 1;
        } else if tried.insert(nth) {
            tally.rounds += 1;
            if sweep.round(&mut world, nth, &mut tally).await? {
                tally.faults += 1;
                struck.insert(nth);
                nth += step;
            } else {
                end = nth;
            }
            tally.places = struck.last().map(|last| (struck.len() as u64, *last));
        } else {
            nth += step;
        }
    }
    tally.held = true;
    world.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_sync_on_sqlite() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let (plan, all) = armed("fdatasync,fsync")?;
    sweep("server killed at each of its syncs", plan, all, SWEEPS[0], (1, 4)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_talking_to_postgres() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let url = Postgres::shared().await?.create_database().await?;
    let (plan, all) = armed("sendto")?;
    sweep("server killed at each of its sends to PostgreSQL", plan.postgres(&url)?, all, SWEEPS[1], (20, 48)).await
}
