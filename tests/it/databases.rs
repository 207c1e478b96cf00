//! PostgreSQL that fails in every way that a machine shows: stopped at once under load, silent, replaced by its standby; and replicas that are
//! restarted one after the other.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::peers::{Postgres, Stop};
use harness::world::{Alert, SOON, World, body};
use harness::{Proxy, eventually};

use crate::load::{Load, all_there};
use crate::replicas::replica;

/// Every answer comes within this time, whatever the database does: what the design promises, and what a busy machine adds.
const ANSWERED: Duration = Duration::from_millis(3_500);

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
        for _ in 0..if harness::long() { 20 } else { 3 } {
            load.keeps(30, SOON).await?;
            postgres.stop(Stop::Immediate).await?;
            tally.faults += 1;
            let began = Instant::now();
            let answer = a.post(body(&[Alert::new("Meanwhile")]).to_string()).await?;
            ensure!(
                answer.status.as_u16() == 503 && began.elapsed() < Duration::from_millis(1_500),
                "{} {:?}",
                answer.status,
                began.elapsed()
            );
            alive(&a).await?;
            postgres.resume().await?;
            let back = Instant::now();
            load.keeps(10, Duration::from_secs(10)).await?;
            ensure!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
        }
        let told = load.stop().await?;
        ensure!(told.failed.is_empty(), "{:?}", told.failed);
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
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(8) {
            let asked = Instant::now();
            let answer = world.post(body(&[Alert::new("Meanwhile")]).to_string()).await?;
            ensure!(answer.status.as_u16() == 503 && asked.elapsed() < ANSWERED, "{} after {:?}", answer.status, asked.elapsed());
            let asked = Instant::now();
            let ready = world.http().get(format!("{}/readyz", world.url())).send().await?;
            ensure!(ready.status().as_u16() == 503 && asked.elapsed() < ANSWERED, "{} after {:?}", ready.status(), asked.elapsed());
            let asked = Instant::now();
            let page = world.http().get(format!("{}/api/v1/incidents", world.url())).bearer_auth(world.token("ann").await?).send().await?;
            ensure!(!page.status().is_success() && asked.elapsed() < ANSWERED, "{} after {:?}", page.status(), asked.elapsed());
            alive(&world).await?;
        }
        let silent = load.so_far();
        wire.come_back();
        load.keeps(20, Duration::from_secs(10)).await?;
        let told = load.stop().await?;
        let slowest = told.again.iter().max().copied().unwrap_or_default();
        ensure!(told.failed.is_empty() && !silent.again.is_empty() && slowest < ANSWERED, "slowest {slowest:?}, {:?}", told.failed);
        tally.lines += told.kept.len() as u64;
        all_there(&world, &told.kept).await
    })
    .await
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
        ensure!(took < Duration::from_secs(10), "it took {took:?} to go on");
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
