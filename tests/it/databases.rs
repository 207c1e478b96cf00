//! PostgreSQL that fails in every way that a machine shows: stopped at once under load, silent, replaced by its standby; and replicas that are
//! restarted one after the other.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::peers::{Postgres, Stop};
use harness::world::{Alert, SOON, World, body};
use harness::{Proxy, eventually};

use crate::load::{Load, all_there};
use crate::replicas::replica;

/// Within this time a sender hears that there is no database.
const GONE: Duration = Duration::from_secs(1);
/// Within this time every request has its answer, though the database says nothing.
const SILENT: Duration = Duration::from_secs(3);
/// What the promise does not cover: how long this process, its server and a dozen of other tests wait for two cores, which hits single answers.
const BUSY: Duration = Duration::from_secs(2);
/// Within this time it goes on once the database is there again.
const BACK: Duration = Duration::from_secs(10);

/// Half of the answers and more came within what is promised, and each within that and what a busy machine adds.
fn within(promised: Duration, what: &str, mut took: Vec<Duration>) -> anyhow::Result<()> {
    took.sort();
    ensure!(!took.is_empty(), "{what}: nobody was answered");
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{what}: {} answers, median {median:?}, slowest {slowest:?}", took.len());
    ensure!(median <= promised && slowest <= promised + BUSY, "{what}: {promised:?} are promised, and it took {took:?}");
    Ok(())
}

async fn alive(world: &World) -> anyhow::Result<()> {
    let answer = world.http().get(format!("{}/livez", world.url())).send().await?;
    ensure!(answer.status().as_u16() == 200, "/livez says {}", answer.status());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_restarted_one_by_one_under_load_without_a_failed_post() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let database = Postgres::shared().await?.create_database().await?;
    let mut worlds = Vec::new();
    for name in ["a", "b", "c"] {
        worlds.push(replica(name, &database)?.allow("the store").allow("after_connect").start().await?);
    }
    let load = Load::start(&worlds.iter().collect::<Vec<_>>(), 50);
    load.keeps(50, SOON).await?;
    for world in &mut worlds {
        world.stop().await?;
        load.keeps(20, SOON).await?;
        world.start().await?;
        load.keeps(30, SOON).await?;
    }
    let told = load.stop().await?;
    ensure!(told.failed.is_empty() && told.again.is_empty(), "{:?}, told to come again: {:?}", told.failed, told.again);
    all_there(&worlds[0], &told.kept).await?;
    eventually(SOON, async || {
        let incidents = worlds[1].incidents().await?;
        ensure!(incidents.len() == 1 && incidents[0]["alerts_active"] == told.kept.len(), "{incidents:?} of {}", told.kept.len());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_stopped_at_once_loses_nothing_that_was_answered() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("PostgreSQL stopped at once under load", 1, async |tally| {
        let mut postgres = Postgres::start().await?;
        let database = postgres.create_database().await?;
        let a = replica("a", &database)?.allow("store").allow("after_connect").start().await?;
        let b = replica("b", &database)?.allow("store").allow("after_connect").start().await?;
        let load = Load::start(&[&a, &b], 50);
        let (mut took, mut back) = (Vec::new(), Vec::new());
        for _ in 0..if harness::long() { 20 } else { 3 } {
            load.keeps(30, SOON).await?;
            postgres.stop(Stop::Immediate).await?;
            tally.faults += 1;
            for _ in 0..3 {
                let began = Instant::now();
                let answer = a.post(body(&[Alert::new("Meanwhile")]).to_string()).await?;
                took.push(began.elapsed());
                ensure!(answer.status.as_u16() == 503, "{answer:?}");
            }
            alive(&a).await?;
            postgres.resume().await?;
            let resumed = Instant::now();
            load.keeps(10, SOON).await?;
            back.push(resumed.elapsed());
        }
        let told = load.stop().await?;
        ensure!(told.failed.is_empty(), "{:?}", told.failed);
        within(GONE, "one at a time", took)?;
        within(GONE, "under load", told.again)?;
        within(BACK, "back", back)?;
        tally.lines += told.kept.len() as u64;
        all_there(&b, &told.kept).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_is_given_up_and_found_again() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("PostgreSQL silent", 1, async |tally| {
        let postgres = Postgres::shared().await?;
        let database = postgres.create_database().await?;
        let wire = Proxy::start(postgres.port()).await?;
        let through = database.replace(&postgres.port().to_string(), &wire.port().to_string());
        let world = replica("a", &through)?.allow("store").allow("after_connect").start().await?;
        // Signed in while that can be asked.
        world.incidents().await?;
        let load = Load::start(&[&world], 20);
        load.keeps(20, SOON).await?;
        wire.go_dead();
        tally.faults += 1;
        let token = world.token("ann").await?;
        let post = async || Ok(world.post(body(&[Alert::new("Meanwhile")]).to_string()).await?.status.as_u16());
        let ready = async || Ok(world.http().get(format!("{}/readyz", world.url())).send().await?.status().as_u16());
        let list = async || {
            let list = world.http().get(format!("{}/api/v1/incidents", world.url())).bearer_auth(&token);
            Ok(list.send().await?.status().as_u16())
        };
        let lives = async || alive(&world).await.map(|()| 503);
        let silence = Duration::from_secs(8);
        let (post, ready, list, lives) =
            tokio::try_join!(ask(silence, post), ask(silence, ready), ask(silence, list), ask(silence, lives))?;
        let silent = load.so_far();
        wire.come_back();
        load.keeps(20, SOON / 2).await?;
        let told = load.stop().await?;
        ensure!(told.failed.is_empty() && !silent.again.is_empty(), "{:?}", told.failed);
        for (what, took) in [("a delivery", post), ("/readyz", ready), ("a list", list), ("under load", told.again)] {
            within(SILENT, what, took)?;
        }
        within(GONE, "/livez", lives)?;
        tally.lines += told.kept.len() as u64;
        all_there(&world, &told.kept).await
    })
    .await
}

/// Asks one thing after the other for so long, each of which must be answered with 503; how long each took.
async fn ask(time: Duration, question: impl AsyncFn() -> anyhow::Result<u16>) -> anyhow::Result<Vec<Duration>> {
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let asked = Instant::now();
        let status = question().await?;
        took.push(asked.elapsed());
        ensure!(status == 503, "{status} after {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(took)
}

/// The primary dies, its standby is promoted: the address names both, and everybody goes on there with all that was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_is_found_and_has_everything() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("PostgreSQL killed, its standby promoted", 1, async |tally| {
        let mut primary = Postgres::start().await?;
        let database = primary.create_database().await?;
        let standby = primary.standby().await?;
        let both = database.replace(&format!(":{}/", primary.port()), &format!(":{},127.0.0.1:{}/", primary.port(), standby.port()));
        let a = replica("a", &both)?.allow("store").allow("after_connect").start().await?;
        let b = replica("b", &both)?.allow("store").allow("after_connect").start().await?;
        let load = Load::start(&[&a, &b], 50);
        load.keeps(50, SOON).await?;
        primary.stop(Stop::Kill).await?;
        tally.faults += 1;
        standby.promote().await?;
        let promoted = Instant::now();
        load.keeps(20, SOON).await?;
        let took = promoted.elapsed();
        load.keeps(50, SOON).await?;
        let told = load.stop().await?;
        ensure!(told.failed.is_empty(), "{:?}", told.failed);
        ensure!(took < SOON / 2, "it took {took:?} to go on");
        tally.lines += told.kept.len() as u64;
        all_there(&b, &told.kept).await?;
        eventually(SOON, async || {
            let incidents = a.incidents().await?;
            let active = incidents.first().and_then(|one| one["alerts_active"].as_u64()).unwrap_or(0);
            ensure!(incidents.len() == 1 && active >= told.kept.len() as u64, "{active} of {} in {}", told.kept.len(), incidents.len());
            Ok(())
        })
        .await
    })
    .await
}
