//! A disk that is full, a disk that fails, a folder that is in use already: told, never hidden, and over when the cause is.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::world::{Alert, Plan, SOON, World, body};
use harness::{Cmd, eventually};
use serde_json::{Value, json};

/// The small disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// ext4 in a file, by a loop device.
    Loop,
    /// In memory, where nobody lets us have loop devices: it is as full, but what is synced costs it nothing.
    Memory,
}

impl Kind {
    /// What mounts it on a folder. It is gone with the last process that sees it.
    fn mount(self, image: &Path, on: &Path) -> String {
        match self {
            Self::Loop => format!("mount -o loop '{0}' '{1}' && chmod 700 '{1}'", image.display(), on.display()),
            Self::Memory => format!("mount -t tmpfs -o size={MEBIBYTES}m,mode=700 tmpfs '{}'", on.display()),
        }
    }

    /// What starts it in a mount namespace: as root, or as somebody who is root in there.
    fn namespace(self) -> &'static str {
        match self {
            Self::Loop => "unshare -m",
            Self::Memory => "unshare -rm",
        }
    }

    /// The best that this host lets us have.
    async fn here(dir: &Path) -> anyhow::Result<Self> {
        let (image, on) = (dir.join("image"), dir.join("try"));
        fs::create_dir(&on)?;
        fs::File::create(&image)?.set_len(u64::from(MEBIBYTES) << 20)?;
        let made = Cmd::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).run(SOON).await;
        let text = format!("exec {} sh -c \"{}\"", Self::Loop.namespace(), Self::Loop.mount(&image, &on));
        let mounted = Cmd::new("sh").args(["-c", &text]).run(SOON).await?;
        if made.is_ok_and(|done| done.status.success()) && mounted.status.success() {
            return Ok(Self::Loop);
        }
        // Past the test runner, which shows nothing of a test that passes.
        writeln!(std::io::stderr(), "no loop devices for us on this host, so a tmpfs is the small disk: {}", mounted.stderr.trim())?;
        Ok(Self::Memory)
    }
}

/// How much fits on it.
const MEBIBYTES: u32 = 32;

/// A server, not started yet, whose data folder is a small file system of its own, in a mount namespace of its own; and that folder.
async fn on_a_small_disk() -> anyhow::Result<(Plan, PathBuf)> {
    let program = env!("CARGO_BIN_EXE_watchkeeper");
    let dir = harness::temp_dir("small")?;
    let data = dir.path().join("data");
    fs::create_dir(&data)?;
    let kind = Kind::here(dir.path()).await?;
    let inner = format!("{} && exec '{program}' \"$@\"", kind.mount(&dir.path().join("image"), &data));
    let script = dir.path().join("watchkeeper");
    fs::write(&script, format!("#!/bin/sh\nexec {} sh -c \"$(cat <<'END'\n{inner}\nEND\n)\" sh \"$@\"\n", kind.namespace()))?;
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
    Ok((plan, data))
}

/// The data folder of a server on a small disk, as seen from here.
fn seen(world: &mut World, data: &Path) -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(format!("/proc/{}/root{}", world.proc()?.pid(), data.display())))
}

async fn post(world: &World, name: &str) -> anyhow::Result<u16> {
    let alert = Alert::new("Flood").label("delivery", name).annotation("text", &"x".repeat(20_000));
    Ok(world.post(body(&[alert]).to_string()).await?.status.as_u16())
}

/// Every delivery that was answered is there once, and the file is whole.
async fn whole(world: &World, database: &Path, kept: &[String]) -> anyhow::Result<()> {
    crate::load::all_there(world, kept).await?;
    // Of a copy: SQLite follows the path into its own namespace, where the file is not.
    let copy = world.dir().join("copy.db");
    let beside = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
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
        let (plan, data) = on_a_small_disk().await?;
        let mut world = plan.start().await?;
        let data = seen(&mut world, &data)?;
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
            eventually(SOON, async || {
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

/// Writes until nothing more fits, not even when all of it is on the disk: a file system keeps some room back for what it has yet to place.
fn fill(file: &Path) -> anyhow::Result<()> {
    let mut out = fs::File::create(file)?;
    let mut before = None;
    while before != Some(out.metadata()?.blocks()) {
        before = Some(out.metadata()?.blocks());
        for size in [1 << 20, 1 << 12] {
            while out.write_all(&vec![0; size]).is_ok() {}
        }
        out.sync_all()?;
    }
    Ok(())
}

/// A command is under way when the disk gets full, and ends before there is room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outcome_of_a_command_that_ends_while_the_disk_is_full_is_taken_when_there_is_room() -> anyhow::Result<()> {
    harness::rounds("a command ends while the disk is full", 1, async |tally| {
        let (mut plan, data) = on_a_small_disk().await?;
        let [ledger, gate] = ["ledger", "gate"].map(|name| plan.dir().join(name));
        let text = format!(
            "#!/bin/sh\necho begun >> '{0}'\nwhile [ ! -e '{1}' ]; do sleep 0.1; done\necho ended >> '{0}'\necho said\n",
            ledger.display(),
            gate.display()
        );
        let work = plan.script("work", &text)?;
        plan.config["routes"][0]["remedy"] = json!({ "runbook": "restart-service", "mode": "auto" });
        let step = json!({ "id": "work", "uses": "command", "with": { "program": work }, "timeout": "10m" });
        plan.merge(json!({ "programs": [work], "runbooks": { "restart-service": { "params": null, "steps": [step], "verify": null } } }));
        let mut world = plan.start().await?;
        let data = seen(&mut world, &data)?;
        let lines = || fs::read_to_string(&ledger).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
        world.send(&[Alert::service_down()]).await?;
        eventually(SOON, async || {
            ensure!(lines() == ["begun"], "{:?}", lines());
            Ok(())
        })
        .await?;
        fill(&data.join("filler"))?;
        tally.faults += 1;
        let mut refused = 0;
        for n in 0..200 {
            refused += usize::from(post(&world, &format!("during-{n}")).await? == 503);
            if refused >= 5 {
                break;
            }
        }
        ensure!(refused >= 5, "the disk was never full");
        fs::write(&gate, "")?;
        eventually(SOON, async || {
            ensure!(lines() == ["begun", "ended"], "{:?}", lines());
            Ok(())
        })
        .await?;
        // Time in which it could be begun once more.
        tokio::time::sleep(Duration::from_secs(3)).await;
        fs::remove_file(data.join("filler"))?;
        let run = world.run_in("succeeded", SOON).await?;
        let attempts: Vec<&Value> = run["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["state"]).collect();
        assert_eq!(attempts, ["succeeded"]);
        ensure!(run["attempts"][0]["output"].to_string().contains("said"), "{run:#}");
        tally.ledger(&lines(), &["begun", "ended"])
    })
    .await
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
        eventually(SOON, async || {
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
    ensure!(sum / count < 0.250, "{pruned} rows in {count} steps held writers for {:.1} ms each", 1000.0 * sum / count);
    crate::load::all_there(&world, &first.kept).await.context("events are kept longer than bodies")
}
