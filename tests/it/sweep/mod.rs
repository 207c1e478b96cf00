//! The server killed at each of its syncs in turn, with runs of all kinds under way: whatever was half done, the effects outside happen once.
//!
//! `strace` kills it in the middle of the system call that makes something durable (on PostgreSQL: in the middle of a send to it), so every arrow of
//! every state machine is hit from both sides: it happened and was not told, or was told and did not happen. The shims are killed like that too. Each round
//! goes through some of the kinds of runs at once, and the next one through others; a first round goes through all of them and kills nobody, and must take every
//! turn in the life of a run that there is. After each round the invariants are checked.
//!
//! The short form takes strides; `./test --long` then fills the gaps, for as long as it may.

mod arrows;
mod invariants;
mod kinds;
mod lives;
mod stage;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::peers::Postgres;
use harness::world::{Plan, SOON, World};
use harness::{SWEEPS, Tally, eventually};
use tempfile::TempDir;

use invariants::SoFar;
use kinds::{KINDS, Kind};
use lives::Lives;
use stage::Stage;

/// Calls after which everything has happened, whatever else the server asks meanwhile.
const MOST: u64 = 3000;
/// How often it is looked at how runs stand.
const LOOK: Duration = Duration::from_millis(50);
/// So many kinds of runs go on at once in a round with a kill.
const AT_ONCE: usize = 9;
/// After so many rounds each kind had its turn.
const TURN: u64 = KINDS.len().div_ceil(AT_ONCE) as u64;

/// Says at which call the server is to be killed, and goes through the rounds.
struct Sweep {
    stage: Stage,
    so_far: SoFar,
    armed: PathBuf,
    _dir: TempDir,
}

/// A plan whose server is killed at the nth of some system calls once a file says so.
async fn armed(calls: &str, url: Option<&str>) -> anyhow::Result<(Plan, Sweep)> {
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
    if let Some(url) = url {
        plan = plan.postgres(url)?;
    }
    let stage = Stage::set(&mut plan).await?;
    Ok((plan, Sweep { stage, so_far: SoFar::default(), armed, _dir: dir }))
}

impl Sweep {
    /// One round: armed for the nth call, until the server dies or all runs are over; or not armed at all. Whether it died.
    async fn round(
        &mut self,
        world: &mut World,
        kinds: impl Iterator<Item = &'static Kind>,
        nth: Option<u64>,
        tally: &mut Tally,
    ) -> anyhow::Result<bool> {
        tally.rounds += 1;
        let mut lives = Lives::new(kinds, tally.rounds, tally.rounds.is_multiple_of(2));
        self.stage.clear(world, tally.rounds)?;
        std::fs::write(&self.armed, nth.map(|nth| nth.to_string()).unwrap_or_default())?;
        let begun = begin(world, &mut lives).await;
        let died = match nth {
            None => begun.map(|()| false)?,
            Some(_) => self.strike(world, &mut lives, begun.is_ok()).await?,
        };
        self.ends(world, &mut lives).await?;
        tally.unknown += lives.lives.iter().map(|life| life.settled).sum::<u64>();
        world.stop().await?;
        invariants::hold(&mut self.so_far, &self.stage, world, &lives, nth.is_none(), tally).await?;
        Ok(died)
    }

    /// Until the server dies, or all runs are over; then another one has its place. Whether it died.
    async fn strike(&mut self, world: &mut World, lives: &mut Lives, begun: bool) -> anyhow::Result<bool> {
        let began = Instant::now();
        let died = loop {
            if !world.proc()?.is_running() {
                break true;
            }
            let standing = lives.tend(&mut self.stage, world).await;
            if begun && standing.is_ok() {
                break false;
            }
            ensure!(began.elapsed() < SOON * 2, "nothing ends and nothing kills: {standing:?}");
            tokio::time::sleep(LOOK).await;
        };
        std::fs::write(&self.armed, "")?;
        world.kill9()?;
        world.start().await?;
        // What was answered well is not sent again, what was not is: as Alertmanager does.
        if !begun {
            lives.begin(world).await?;
        }
        Ok(died)
    }

    /// Lets all runs come to their ends, and then their incidents.
    async fn ends(&mut self, world: &World, lives: &mut Lives) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON * 2;
        while let Err(standing) = lives.tend(&mut self.stage, world).await {
            ensure!(Instant::now() < deadline, "not all runs end: {standing:#}");
            tokio::time::sleep(LOOK).await;
        }
        for life in &lives.lives {
            self.stage.open(life.kind)?;
            self.stage.hold_back(life.kind, false).await?;
        }
        lives.end(world).await?;
        eventually(SOON, async || {
            let open = world.get("/incidents?open=true").await?;
            ensure!(open["items"].as_array().is_some_and(Vec::is_empty), "incidents do not close: {open}");
            Ok(())
        })
        .await
    }
}

async fn begin(world: &mut World, lives: &mut Lives) -> anyhow::Result<()> {
    world.start().await?;
    lives.begin(world).await
}

/// First a round without a kill, through all kinds of runs. Then rounds at the call `first` and every `step`th from there until each kind had its turn and a
/// server lives through one (at length: through one with each kind), or is late: a slow machine's server looks around more often meanwhile. At length then
/// those in the middle between them and so on, until every single one was tried; then those that a server lived through, which another may not; and while
/// there is time, when that brings nothing new, from the start.
async fn sweep(fault: &str, (plan, mut sweep): (Plan, Sweep), shares: u32, (first, mut step): (u64, u64)) -> anyhow::Result<()> {
    let (mut tally, coarse) = (Tally::of_sweep(fault, shares), step);
    let mut world = plan.start().await?;
    world.service_is(true).await?;
    world.token("ann").await?;
    world.token("ben").await?;
    world.stop().await?;
    sweep.round(&mut world, KINDS.iter(), None, &mut tally).await.context("the round without a kill")?;
    sweep.so_far.taken.are_all()?;
    let (mut turn, enough) = (KINDS.iter().cycle(), if harness::long() { TURN } else { 1 });
    let (mut tried, mut struck) = (BTreeSet::new(), BTreeSet::new());
    let (mut nth, mut end, mut lived, mut whole, mut before) = (first, MOST, 0, false, 0);
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
            (nth, lived) = ((first - 1) % step + 1, 0);
        } else if tried.insert(nth) {
            let kinds: Vec<&Kind> = turn.by_ref().take(AT_ONCE).collect();
            let names = || kinds.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
            let died = sweep.round(&mut world, kinds.iter().copied(), Some(nth), &mut tally).await;
            if died.with_context(|| format!("round {}, killed at call {nth}: {}", tally.rounds, names()))? {
                tally.faults += 1;
                struck.insert(nth);
                lived = 0;
            } else {
                lived += 1;
                if lived >= enough && tally.rounds > TURN {
                    end = nth;
                }
            }
            tally.places = struck.last().map(|last| (struck.len() as u64, *last));
            nth += step;
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
    let all = armed("fdatasync,fsync", None).await?;
    sweep("server killed at each of its syncs", all, SWEEPS[0], (3, 20)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_talking_to_postgres() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let url = Postgres::shared().await?.create_database().await?;
    let all = armed("sendto", Some(&url)).await?;
    sweep("server killed at each of its sends to PostgreSQL", all, SWEEPS[1], (64, 448)).await
}
