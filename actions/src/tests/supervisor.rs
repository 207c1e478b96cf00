//! Supervised children: real processes, and servers that die by `kill -9`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use domain::plan::Target;
use serde_json::{Value, json};

use super::{failed, living, target, until};
use crate::supervisor::{ChildState, Exit, Supervisor, SupervisorError};

/// A target whose processes can be counted by their environment.
fn counted(name: &str, count: &str, program: &str, args: Value) -> Target {
    target(name, "process", json!({"program": program, "args": args, "env": {"COUNTED": count}, "grace": "2s"}))
}

fn sleeper(count: &str) -> Target {
    counted("api", count, "/bin/sleep", json!(["300"]))
}

/// Different for every test of every run, as two runs may share a machine.
fn count(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

fn alive(count: &str) -> usize {
    living(&format!("COUNTED={count}"))
}

#[tokio::test]
async fn a_child_is_started_seen_restarted_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::open(dir.path()).await.unwrap();
    let (count, api) = (count("life"), sleeper(&count("life")));
    assert_eq!(supervisor.status(&api).await.unwrap().state, ChildState::Stopped);
    let first = supervisor.ensure(&api).await.unwrap();
    assert_eq!((first.state, first.adopted, alive(&count)), (ChildState::Running, false, 1));
    assert_eq!(supervisor.ensure(&api).await.unwrap().pid, first.pid);
    let second = supervisor.restart(&api).await.unwrap();
    assert!(second.pid != first.pid && second.restarts == 1 && alive(&count) == 1);
    assert_eq!(supervisor.stop(&api).await.unwrap().state, ChildState::Stopped);
    assert_eq!(alive(&count), 0);
    // Stopping what is stopped is no failure, and a restart starts it.
    supervisor.stop(&api).await.unwrap();
    supervisor.restart(&api).await.unwrap();
    assert_eq!(alive(&count), 1);
    supervisor.stop_all().await.unwrap();
    assert_eq!(alive(&count), 0);
}

#[tokio::test]
async fn its_own_end_is_seen_and_left_to_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::open(dir.path()).await.unwrap();
    let count = count("end");
    let api = counted("api", &count, "/bin/sh", json!(["-c", "sleep 0.5; echo goodbye; exit 7"]));
    supervisor.ensure(&api).await.unwrap();
    until("it has ended", || alive(&count) == 0).await;
    let mut status = supervisor.status(&api).await.unwrap();
    while status.state == ChildState::Running {
        status = supervisor.status(&api).await.unwrap();
    }
    assert_eq!((status.state, status.exit, status.pid), (ChildState::Exited, Some(Exit::Code(7)), None));
    assert_eq!(fs::read_to_string(supervisor.log_file(&api).unwrap()).unwrap(), "goodbye\n");
    let pid = supervisor.restart(&api).await.unwrap().pid.unwrap();
    crate::proc::Stat::of(pid).unwrap().signal(rustix::process::Signal::KILL);
    until("it is killed", || alive(&count) == 0).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((supervisor.status(&api).await.unwrap().exit, alive(&count)), (Some(Exit::Signal(9)), 0));
}

#[tokio::test]
async fn a_respawning_child_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::open(dir.path()).await.unwrap();
    let (count, mut api) = (count("respawn"), sleeper(&count("respawn")));
    api.fields.insert("respawn".to_owned(), json!(true));
    let pid = supervisor.ensure(&api).await.unwrap().pid.unwrap();
    crate::proc::Stat::of(pid).unwrap().signal(rustix::process::Signal::KILL);
    until("it is dead", || alive(&count) == 0).await;
    until("it is back", || alive(&count) == 1).await;
    let status = supervisor.status(&api).await.unwrap();
    assert!(status.state == ChildState::Running && status.restarts == 1 && status.pid != Some(pid));
    supervisor.stop(&api).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(alive(&count), 0, "it was respawned after a stop");
}

#[tokio::test]
async fn a_child_that_ends_at_once_has_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::open(dir.path()).await.unwrap();
    let api = counted("api", "x", "/bin/sh", json!(["-c", "echo no config >&2; exit 2"]));
    let error = supervisor.restart(&api).await.unwrap_err().to_string();
    assert_eq!(error, "target \"api\" did not start: it ended at once (exited with 2). Its log ends with:\nno config");
    let missing = counted("api", "x", "/no/such/program", json!([]));
    assert!(supervisor.restart(&missing).await.unwrap_err().to_string().contains("/no/such/program"));
    assert_eq!(supervisor.status(&missing).await.unwrap().state, ChildState::Stopped);
}

#[tokio::test]
async fn the_deaf_are_killed_and_descendants_go_too() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::open(dir.path()).await.unwrap();
    let count = count("deaf");
    let deaf = counted("api", &count, "/bin/sh", json!(["-c", "trap '' TERM; setsid sleep 300 & sleep 300 & while :; do sleep 1; done"]));
    supervisor.ensure(&deaf).await.unwrap();
    until("all are there", || alive(&count) >= 3).await;
    let began = Instant::now();
    supervisor.stop(&deaf).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2) && began.elapsed() < Duration::from_secs(8));
    assert_eq!(alive(&count), 0);
}

#[tokio::test]
async fn impossible_targets_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::open(dir.path()).await.unwrap();
    let refused = async |target: Target| matches!(supervisor.ensure(&target).await, Err(SupervisorError::Spec { .. }));
    for name in ["", "../x", ".hidden", "a b", "a/b", "é", &"x".repeat(101)] {
        assert!(refused(target(name, "process", json!({"program": "/bin/sleep"}))).await, "{name}");
    }
    for fields in [
        json!({}),
        json!({"program": "sleep"}),
        json!({"program": "/bin/sleep", "cwd": "x"}),
        json!({"program": "/bin/sleep", "args": ["a\0"]}),
    ] {
        assert!(refused(target("api", "process", fields.clone())).await, "{fields}");
    }
    assert!(refused(target("api", "systemd", json!({"program": "/bin/sleep"}))).await);
}

#[tokio::test]
async fn a_folder_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let first = Supervisor::open(dir.path()).await.unwrap();
    assert!(matches!(Supervisor::open(dir.path()).await, Err(SupervisorError::InUse(_))));
    drop(first);
    Supervisor::open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn the_next_server_adopts_and_still_sees_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (count, api) = (count("adopt"), sleeper(&count("adopt")));
    let first = Supervisor::open(dir.path()).await.unwrap();
    let pid = first.ensure(&api).await.unwrap().pid;
    drop(first);
    let second = Supervisor::open(dir.path()).await.unwrap();
    let status = second.ensure(&api).await.unwrap();
    assert_eq!((status.pid, status.adopted, alive(&count)), (pid, true, 1));
    crate::proc::Stat::of(pid.unwrap()).unwrap().signal(rustix::process::Signal::KILL);
    until("it is dead", || alive(&count) == 0).await;
    let mut status = second.status(&api).await.unwrap();
    while status.state == ChildState::Running {
        tokio::time::sleep(Duration::from_millis(20)).await;
        status = second.status(&api).await.unwrap();
    }
    assert_eq!((status.state, status.exit), (ChildState::Exited, Some(Exit::Unseen)));
}

/// Died between spawn and record: the child lives, nothing is written of it.
#[tokio::test]
async fn an_unrecorded_child_ends_before_another_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (count, api) = (count("stray"), sleeper(&count("stray")));
    let first = Supervisor::open(dir.path()).await.unwrap();
    let pid = first.ensure(&api).await.unwrap().pid;
    fs::remove_file(dir.path().join("api.json")).unwrap();
    drop(first);
    let second = Supervisor::open(dir.path()).await.unwrap();
    let status = second.ensure(&api).await.unwrap();
    assert!(status.pid != pid && !status.adopted);
    assert_eq!(alive(&count), 1);
    second.stop(&api).await.unwrap();
}

/// A record that speaks of somebody else's process, as after a reboot or when ids have come round: nobody is adopted, nobody is hurt.
#[tokio::test]
async fn a_strangers_process_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut stranger = start(program("/bin/sleep").arg("300"));
    let stat = crate::proc::Stat::of(stranger.id() as i32).unwrap();
    let boot = crate::proc::boot_id().unwrap();
    for (start, boot) in [(stat.start + 1, boot.as_str()), (stat.start, "00000000-0000-0000-0000-000000000000"), (0, &boot)] {
        let record = json!({"target": "api", "pid": stat.pid, "start": start, "session": stat.session, "boot": boot});
        fs::write(dir.path().join("api.json"), record.to_string()).unwrap();
        let supervisor = Supervisor::open(dir.path()).await.unwrap();
        let api = sleeper(&count("stranger"));
        let status = supervisor.ensure(&api).await.unwrap();
        assert!(!status.adopted && status.pid != Some(stat.pid));
        supervisor.stop(&api).await.unwrap();
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
    }
    fs::write(dir.path().join("api.json"), "{ half a rec").unwrap();
    let supervisor = Supervisor::open(dir.path()).await.unwrap();
    assert_eq!(supervisor.status(&sleeper("x")).await.unwrap().state, ChildState::Stopped);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_log_does_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::open(dir.path()).await.unwrap();
    let api = sleeper(&count("log"));
    let file = supervisor.log_file(&api).unwrap();
    fs::write(&file, vec![b'x'; 9 * 1024 * 1024]).unwrap();
    supervisor.ensure(&api).await.unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), 0);
    assert_eq!(fs::metadata(dir.path().join("api.log.1")).unwrap().len(), 9 * 1024 * 1024);
    supervisor.stop(&api).await.unwrap();
}

/// The server dies by `kill -9` while it restarts the child over and over. Whatever the moment, the next server ends up with exactly one.
#[tokio::test]
async fn kill_9_of_the_server_never_leads_to_two() {
    let dir = tempfile::tempdir().unwrap();
    let count = count("crash");
    let mut adopted = 0;
    for round in 0..20 {
        let mut server = server(dir.path(), &count);
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().contains("supervising")).unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(37 * round % 450)).await;
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(alive(&count) <= 1, "round {round}: {} at the crash", alive(&count));
        let next = Supervisor::open(dir.path()).await.unwrap();
        let status = next.ensure(&sleeper(&count)).await.unwrap();
        adopted += u32::from(status.adopted);
        assert_eq!(alive(&count), 1, "round {round}");
        if round % 2 == 0 {
            next.restart(&sleeper(&count)).await.unwrap();
            assert_eq!(alive(&count), 1, "round {round}, restarted");
        }
    }
    assert!(adopted >= 5, "only {adopted} of 20 were adopted");
    Supervisor::open(dir.path()).await.unwrap().stop(&sleeper(&count)).await.unwrap();
    assert_eq!(alive(&count), 0);
}

/// This test program once more, as a server that supervises and is killed.
fn server(folder: &Path, count: &str) -> Child {
    let mut command = program(std::env::current_exe().unwrap());
    command.args(["--exact", "tests::supervisor::a_server_for_the_crash_test", "--nocapture"]);
    start(command.env("SERVER_FOLDER", folder).env("SERVER_COUNT", count).stdout(Stdio::piped()))
}

/// Not a test by itself: what `server` starts. Without its folder it has nothing to do.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how the test above tells its own copy what to do")]
async fn a_server_for_the_crash_test() {
    let (Ok(folder), Ok(count)) = (std::env::var("SERVER_FOLDER"), std::env::var("SERVER_COUNT")) else { return };
    let supervisor = Supervisor::open(Path::new(&folder)).await.unwrap();
    let api = sleeper(&count);
    supervisor.ensure(&api).await.unwrap();
    println!("supervising");
    loop {
        supervisor.restart(&api).await.unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "processes that no supervisor knows of")]
fn program(path: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(path)
}

fn start(command: &mut std::process::Command) -> Child {
    command.spawn().unwrap()
}

#[tokio::test]
async fn a_restart_is_carried_through_when_nobody_waits() {
    let world = super::World::new().await;
    let count = count("through");
    let api = counted("api", &count, "/bin/sh", json!(["-c", "trap 'sleep 0.4; exit 0' TERM; while :; do sleep 0.1; done"]));
    world.supervisor.ensure(&api).await.unwrap();
    let before = world.supervisor.status(&api).await.unwrap().pid;
    let outcome = world.run_on("service.restart", json!({}), Some(&api), Duration::from_millis(100)).await;
    assert!(super::unknown(outcome).contains("it goes on"));
    let after = world.supervisor.status(&api).await.unwrap();
    assert!(after.state == ChildState::Running && after.pid != before);
    let gone = counted("api", &count, "/no/such/program", json!([]));
    assert!(failed(world.run_on("service.restart", json!({}), Some(&gone), Duration::from_secs(9)).await).contains("did not start"));
    assert_eq!(alive(&count), 0);
}
