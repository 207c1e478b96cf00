//! A disk that is full, a disk that fails, a folder that is in use already: told, never hidden, and over when the cause is.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::world::{Alert, Plan, SOON, World, body};
use harness::{Cmd, eventually};
use serde_json::json;

/// A server whose data folder is a small file system of its own, in a mount namespace of its own; and that folder, as seen from here.
async fn on_a_small_disk(mebibytes: u32) -> anyhow::Result<(World, PathBuf)> {
    let program = env!("CARGO_BIN_EXE_watchkeeper");
    let dir = harness::temp_dir("small")?;
    let data = dir.path().join("data");
    fs::create_dir(&data)?;
    let inner = format!("mount -t tmpfs -o size={mebibytes}m,mode=700 tmpfs '{}' && exec '{program}' \"$@\"", data.display());
    let script = dir.path().join("watchkeeper");
    fs::write(&script, format!("#!/bin/sh\nexec unshare -rm sh -c \"$(cat <<'END'\n{inner}\nEND\n)\" sh \"$@\"\n"))?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut plan = Plan::new(&script)?.allow("store").allow("database or disk is full").allow("event");
    plan.merge(json!({ "targets": null, "data_dir": data }));
    // Kept outside: another command of the program sees a folder of its own there.
    for name in ["button", "session", "audit"] {
        let file = plan.secret(&format!("{name}.key"), &format!("{name:0<64}"))?;
        plan.merge(json!({ "keys": { name: [file] } }));
    }
    // It lasts as long as the test process: the world needs it to its end.
    let _kept = dir.keep();
    let mut world = plan.start().await?;
    let seen = PathBuf::from(format!("/proc/{}/root{}", world.proc()?.pid(), data.display()));
    Ok((world, seen))
}

async fn post(world: &World, name: &str) -> anyhow::Result<u16> {
    let alert = Alert::new("Flood").label("delivery", name).annotation("text", &"x".repeat(20_000));
    Ok(world.post(body(&[alert]).to_string()).await?.status.as_u16())
}

/// Every delivery that was answered is there once, and the file is whole.
async fn whole(world: &World, database: &std::path::Path, kept: &[String]) -> anyhow::Result<()> {
    crate::load::all_there(world, kept).await?;
    // Of a copy: SQLite follows the path into its own namespace, where the file is not.
    let copy = world.dir().join("copy.db");
    let beside = |path: &std::path::Path| PathBuf::from(format!("{}-wal", path.display()));
    fs::copy(database, &copy)?;
    if beside(database).exists() {
        fs::copy(beside(database), beside(&copy))?;
    }
    let now = domain::time::Clock::now(&domain::time::SystemClock);
    store::backup::create(&format!("sqlite:{}", copy.display()), &world.dir().join("copy.backup"), now).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_forgotten_when_there_is_room_again() -> anyhow::Result<()> {
    harness::rounds("disk full", 1, async |tally| {
        let (world, data) = on_a_small_disk(32).await?;
        let mut kept = Vec::new();
        for round in 0..2 {
            let name = format!("{round}-before");
            ensure!(post(&world, &name).await? == 200, "{name} was not accepted");
            kept.push(name);
            let filler = data.join("filler");
            fill(&filler)?;
            tally.faults += 1;
            let mut refused = 0;
            for n in 0..200 {
                let name = format!("{round}-{n}");
                match post(&world, &name).await? {
                    200 => kept.push(name),
                    503 => refused += 1,
                    other => anyhow::bail!("answered {other}"),
                }
                if refused >= 5 {
                    break;
                }
            }
            ensure!(refused >= 5, "the disk was never full");
            let alive = world.http().get(format!("{}/livez", world.url())).send().await?.status().as_u16();
            ensure!(alive == 200, "/livez says {alive}");
            fs::remove_file(&filler)?;
            let name = format!("{round}-after");
            eventually(Duration::from_secs(10), async || {
                let status = post(&world, &name).await?;
                ensure!(status == 200, "{status}");
                Ok(())
            })
            .await?;
            kept.push(name);
        }
        eventually(SOON, async || {
            let incidents = world.incidents().await?;
            ensure!(incidents.len() == 1 && incidents[0]["alerts_active"].as_u64() >= Some(kept.len() as u64), "{incidents:?}");
            Ok(())
        })
        .await?;
        tally.lines += kept.len() as u64;
        whole(&world, &data.join("watchkeeper.db"), &kept).await
    })
    .await
}

/// Writes until nothing more fits.
fn fill(file: &std::path::Path) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = fs::File::create(file)?;
    for size in [1 << 20, 1 << 12] {
        while out.write_all(&vec![0; size]).is_ok() {}
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_is_never_a_yes() -> anyhow::Result<()> {
    harness::rounds("syncs fail with EIO", 1, async |tally| {
        let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.allow("store").allow("event");
        plan.merge(json!({ "targets": null }));
        let mut world = plan.start().await?;
        let pid = world.proc()?.pid();
        let mut kept = vec!["before".to_owned()];
        ensure!(post(&world, "before").await? == 200, "not accepted");
        let inject = ["-f", "-q", "-p", &pid.to_string(), "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"];
        let mut strace = Cmd::new("strace").args(inject).spawn()?;
        eventually(SOON, async || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
            for task in tasks {
                let status = fs::read_to_string(task.path().join("status"))?;
                ensure!(!status.contains("TracerPid:\t0\n"), "not every thread is traced");
            }
            Ok(())
        })
        .await?;
        for n in 0..10 {
            let status = post(&world, &format!("during-{n}")).await?;
            tally.faults += 1;
            ensure!(status == 503, "a delivery whose sync failed was answered with {status}");
        }
        strace.term()?;
        strace.wait(SOON).await?;
        eventually(Duration::from_secs(10), async || {
            let status = post(&world, "after").await?;
            ensure!(status == 200, "{status}");
            Ok(())
        })
        .await?;
        kept.push("after".to_owned());
        tally.lines += kept.len() as u64;
        let database = world.dir().join("data/watchkeeper.db");
        whole(&world, &database, &kept).await
    })
    .await
}

#[tokio::test]
async fn a_second_server_on_the_folder_is_refused_and_a_killed_one_leaves_no_lock() -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    plan.merge(json!({ "targets": null }));
    let mut world = plan.start().await?;
    let second = world.command(&["serve", "--config"]).arg(world.config()).run(SOON).await?;
    ensure!(!second.status.success() && second.stderr.contains("another Watchkeeper has"), "{}", second.stderr);
    ensure!(second.stderr.contains("PostgreSQL"), "it does not say what to do: {}", second.stderr);
    for _ in 0..3 {
        world.kill9()?;
        world.start().await?;
    }
    Ok(())
}

/// Old bodies go while others arrive; how long writers were kept waiting is measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_goes_while_the_server_works() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.allow("store");
    plan.merge(json!({ "targets": null, "retention": { "deliveries": "2s" } }));
    let mut world = plan.start().await?;
    let load = crate::load::Load::start(&[&world], 200);
    load.keeps(1_500, SOON * 2).await?;
    let first = load.stop().await?;
    // What is undecided does not go, however old.
    eventually(SOON * 2, async || {
        let incidents = world.incidents().await?;
        let total = incidents.first().map_or(0, |incident| incident["alerts_total"].as_u64().unwrap_or_default());
        ensure!(total >= first.kept.len() as u64, "{total} of {} alerts are decided", first.kept.len());
        Ok(())
    })
    .await?;
    world.stop().await?;
    // Until the last of it is as old as what goes.
    tokio::time::sleep(Duration::from_secs(2)).await;
    // A start begins a round; the next one comes minutes later.
    world.start().await?;
    let load = crate::load::Load::start(&[&world], 50);
    let pruned = eventually(SOON, async || {
        let rows = world.metric("watchkeeper_pruned_rows_total").await?;
        ensure!(rows >= first.kept.len() as f64, "{rows} of {} are gone", first.kept.len());
        Ok(rows)
    })
    .await?;
    let told = load.stop().await?;
    ensure!(told.failed.is_empty() && told.again.is_empty(), "{:?} {:?}", told.failed, told.again);
    let (sum, count) =
        (world.metric("watchkeeper_prune_held_seconds_sum").await?, world.metric("watchkeeper_prune_held_seconds_count").await?);
    // Steps aim at 15 ms; a busy disk makes single ones longer.
    ensure!(sum / count < 0.100, "{pruned} rows in {count} steps held writers for {:.1} ms each", 1000.0 * sum / count);
    crate::load::all_there(&world, &first.kept).await.context("events are kept longer than bodies")
}
