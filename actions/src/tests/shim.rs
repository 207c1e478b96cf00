//! Commands under their shims: the server's side is dropped, forgets, comes back; the command runs once.

use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

use domain::action::{ActionCx, ActionError, ActionOutput};
use domain::run::{Execution, Fence};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{World, failed, living, target, unknown, until};
use crate::proc::Stat;
use crate::program::GRACE;
use crate::shim;

/// This test program as a shim: see `is_a_shim`.
pub(super) fn stand_in() -> Vec<OsString> {
    let program = std::env::current_exe().unwrap().into_os_string();
    let args = ["--exact", "tests::shim::is_a_shim", "as-a-shim", "--nocapture", "--test-threads=1"].map(OsString::from);
    std::iter::once(program).chain(args).collect()
}

/// Started by hand, or with all tests, it does nothing.
#[test]
fn is_a_shim() {
    if std::env::args().any(|arg| arg == "as-a-shim") {
        let _code = shim::run();
        std::process::exit(0);
    }
}

fn ledger(world: &World) -> std::path::PathBuf {
    world.dir.path().join("ledger")
}

/// Writes a line when it begins and one when it ends.
pub(super) fn slow(world: &World, seconds: &str) -> Value {
    let script = super::script(world.dir.path(), "slow", "#!/bin/sh\necho begun >> $1; sleep $2; echo ended >> $1; echo said\n");
    json!({ "program": "/bin/sh", "args": [script, ledger(world), seconds], "env": { "MARK": world.dir.path() } })
}

pub(super) fn lines(world: &World) -> Vec<String> {
    fs::read_to_string(ledger(world)).unwrap_or_default().lines().map(str::to_owned).collect()
}

pub(super) fn mark(world: &World) -> String {
    format!("MARK={}", world.dir.path().display())
}

pub(super) fn intended(world: &World) -> Execution {
    world.notes.intended.lock().unwrap().last().unwrap().clone()
}

pub(super) fn again(cx: &ActionCx, known: &Execution) -> ActionCx {
    ActionCx { resume: Some(known.clone()), ..cx.clone() }
}

pub(super) async fn take_up(world: &World, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
    world.action("command").run(&again(cx, &intended(world)), with).await
}

/// Begins the command and leaves it as a killed server would.
pub(super) async fn begin_and_leave(world: &World, cx: &ActionCx, with: &Value) {
    let action = world.action("command");
    let begun = until("it began", || lines(world).len() == 1);
    tokio::select! {
        outcome = action.run(cx, with) => panic!("ended: {outcome:?}"),
        () = begun => {}
    }
}

#[tokio::test]
async fn a_command_goes_on_without_its_server_and_is_taken_up() {
    let world = World::new().await;
    let (cx, with) = (world.cx(None, Duration::from_secs(30)), slow(&world, "2"));
    begin_and_leave(&world, &cx, &with).await;
    let taken = take_up(&world, &cx, &with).await.unwrap();
    assert_eq!(taken.data["stdout"], "said");
    assert_eq!(lines(&world), ["begun", "ended"]);
    // Its result stays until it is stored elsewhere.
    assert_eq!(take_up(&world, &cx, &with).await.unwrap(), taken);
    assert_eq!(world.library.executions.kept(), std::slice::from_ref(&cx.execution));
    world.library.executions.forget(&cx.execution);
    assert_eq!(world.library.executions.kept(), Vec::<String>::new());
    unknown(take_up(&world, &cx, &with).await);
    assert_eq!(lines(&world), ["begun", "ended"]);
}

#[tokio::test]
async fn a_command_for_which_nobody_waits_is_ended_and_its_folder_stays_until_it_has() {
    let world = World::new().await;
    let (cx, with) = (world.cx(None, Duration::from_secs(30)), slow(&world, "20"));
    begin_and_leave(&world, &cx, &with).await;
    let shim = Stat::of(intended(&world).pid).unwrap();
    let executions = &world.library.executions;
    executions.give_up(&cx.execution);
    assert_eq!(executions.kept(), std::slice::from_ref(&cx.execution));
    until("its shim has ended", || !Stat::of(shim.pid).is_some_and(|now| now.is(shim.pid, shim.start))).await;
    assert!(shim::is_over(&world.dir.path().join("executions").join(&cx.execution)), "and said how");
    executions.give_up(&cx.execution);
    assert_eq!(executions.kept(), Vec::<String>::new());
    assert_eq!(lines(&world), ["begun"]);
}

#[tokio::test]
async fn without_a_stored_intent_nothing_runs() {
    let world = World::new().await;
    world.notes.forgetful.store(true, std::sync::atomic::Ordering::SeqCst);
    let problem = failed(world.run("command", slow(&world, "0")).await);
    assert!(problem.contains("the store is away"), "{problem}");
    let folders = fs::read_dir(world.dir.path().join("executions")).unwrap().map(|entry| entry.unwrap().path());
    let about: Value = folders.map(|folder| serde_json::from_slice(&fs::read(folder.join("about.json")).unwrap()).unwrap()).next().unwrap();
    let pid = about["pid"].as_i64().unwrap() as i32;
    until("its shim is gone", || Stat::of(pid).is_none_or(|one| !one.alive())).await;
    assert_eq!(lines(&world), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_shim_leaves_the_outcome_unknown_and_its_command_ends_before_another_begins() {
    let api = target("api", "process", json!({}));
    // Another step of the same run, another run on the same target by a command or by whoever runs the service, and somebody who has to do with neither.
    for next in ["step", "run", "process", "systemd", "other"] {
        let world = World::new().await;
        let fence = |n: i64| Some(Fence { epoch: 1, n });
        let first = world.cx(Some(&api), Duration::from_secs(30));
        let first = ActionCx { fence: fence(1), execution: format!("{}-0-1", first.run), ..first };
        let with = slow(&world, "20");
        begin_and_leave(&world, &first, &with).await;
        let shim = intended(&world);
        Stat::of(shim.pid).unwrap().signal(Signal::KILL);
        let problem = unknown(take_up(&world, &first, &with).await);
        assert!(problem.contains("without a result") && problem.contains("there still runs process"), "{problem}");
        assert_eq!(lines(&world), ["begun"]);
        let later = match next {
            "step" => ActionCx { target: None, fence: None, execution: format!("{}-1-1", first.run), ..first.clone() },
            "run" => ActionCx { fence: fence(2), ..world.cx(Some(&api), Duration::from_secs(30)) },
            "process" | "systemd" => {
                super::script(world.dir.path(), "systemctl", "#!/bin/sh\n");
                let service = target("api", next, json!({ "program": "/bin/sleep", "args": ["60"], "unit": "api" }));
                ActionCx { fence: fence(2), ..world.cx(Some(&service), Duration::from_secs(30)) }
            }
            _ => ActionCx { fence: fence(1), ..world.cx(Some(&target("db", "process", json!({}))), Duration::from_secs(30)) },
        };
        if matches!(next, "process" | "systemd") {
            world.action("service.restart").run(&later, &json!({})).await.unwrap();
        } else {
            let quick = json!({ "program": "/usr/bin/printf", "args": ["done"] });
            assert_eq!(world.action("command").run(&later, &quick).await.unwrap().data["stdout"], "done");
        }
        assert_eq!(living(&mark(&world)) == 0, next != "other", "{next}");
        if next == "process" {
            let late = failed(world.action("command").run(&first, &with).await);
            assert!(late.contains("a later run has api"), "{late}");
            world.supervisor.stop(later.target.as_ref().unwrap()).await.unwrap();
        }
        // One for which nobody waits any more is ended too.
        world.library.executions.give_up(&first.execution);
        until("it is gone", || living(&mark(&world)) == 0).await;
        assert_eq!(lines(&world), ["begun"]);
    }
}

/// A result for which the disk has no room; `/dev/full` is the disk.
#[tokio::test]
async fn a_result_waits_for_room_unless_its_shim_is_to_end() {
    for ended in [false, true] {
        let world = World::new().await;
        let (cx, with) = (world.cx(None, Duration::from_secs(30)), slow(&world, "2"));
        begin_and_leave(&world, &cx, &with).await;
        let file = world.dir.path().join("executions").join(&cx.execution).join("result.new");
        std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        until("it has ended", || lines(&world).len() == 2).await;
        let early = tokio::time::timeout(Duration::from_millis(500), take_up(&world, &cx, &with)).await;
        assert!(early.is_err(), "{early:?}");
        if ended {
            Stat::of(intended(&world).pid).unwrap().signal(Signal::TERM);
            unknown(take_up(&world, &cx, &with).await);
        } else {
            fs::remove_file(&file).unwrap();
            assert_eq!(take_up(&world, &cx, &with).await.unwrap().data["stdout"], "said");
        }
        assert_eq!(lines(&world), ["begun", "ended"]);
    }
}

#[tokio::test]
async fn another_boot_another_process_or_another_command_is_not_taken_for_it() {
    let world = World::new().await;
    let (cx, with) = (world.cx(None, Duration::from_secs(30)), slow(&world, "2"));
    begin_and_leave(&world, &cx, &with).await;
    let known = intended(&world);
    let action = world.action("command");
    let other_boot = Execution { boot: "00000000-0000-0000-0000-000000000000".to_owned(), ..known.clone() };
    assert!(unknown(action.run(&again(&cx, &other_boot), &with).await).contains("started anew"));
    let other_process = Execution { began: known.began + 1, ..known.clone() };
    unknown(action.run(&again(&cx, &other_process), &with).await);
    let other = json!({ "program": "/bin/sh", "args": ["/dev/null"] });
    assert!(unknown(action.run(&again(&cx, &known), &other).await).contains("not what the plan says"));
    // A result counts whatever became of the host.
    action.run(&again(&cx, &known), &with).await.unwrap();
    assert_eq!(action.run(&again(&cx, &other_boot), &with).await.unwrap().data["stdout"], "said");
    assert_eq!(lines(&world), ["begun", "ended"]);
}

#[tokio::test]
async fn a_time_limit_and_a_cancel_end_even_those_who_left_the_group() {
    for cancel in [false, true] {
        let world = World::new().await;
        let text = format!("#!/bin/sh\nsetsid sleep 60 &\necho begun >> {}\nsleep 60\n", ledger(&world).display());
        let script = super::script(world.dir.path(), "leaver", &text);
        let with = json!({ "program": "/bin/sh", "args": [script], "env": { "MARK": world.dir.path() } });
        let cx = world.cx(None, Duration::from_secs(if cancel { 60 } else { 3 }));
        let action = world.action("command");
        let stop = async {
            until("it began", || lines(&world).len() == 1).await;
            if cancel {
                world.notes.cancel.notify_one();
            }
        };
        let (outcome, ()) = tokio::join!(action.run(&cx, &with), stop);
        let problem = if cancel { failed(outcome) } else { unknown(outcome) };
        assert!(problem.contains(if cancel { "stopped after" } else { "timed out after" }), "{problem}");
        assert_eq!(living(&mark(&world)), 0);
    }
}

/// What ends a command before it ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    TimeLimit,
    Cancel,
    HigherFence,
}

#[tokio::test]
async fn who_ignores_term_is_killed_after_ten_seconds_whatever_ends_it() {
    // Side by side: each takes its ten seconds.
    tokio::join!(end_the_deaf(By::TimeLimit), end_the_deaf(By::Cancel), end_the_deaf(By::HigherFence));
}

/// TERM at once, once; then nothing for 10 s; then KILL. One of the two hears it and goes on, the other does not even hear it.
async fn end_the_deaf(by: By) {
    let world = World::new().await;
    let text = "#!/bin/sh\ntrap '' TERM\nsleep 120 &\ntrap 'echo term >> $1' TERM\necho begun >> $1\nwhile :; do sleep 1; done\n";
    let with = json!({
        "program": "/bin/sh", "args": [super::script(world.dir.path(), "deaf", text), ledger(&world)], "env": { "MARK": world.dir.path() },
    });
    let api = target("api", "process", json!({}));
    let (began, limit) = (Instant::now(), Duration::from_secs(if by == By::TimeLimit { 4 } else { 60 }));
    let fenced = |n: i64| ActionCx { fence: Some(Fence { epoch: 1, n }), ..world.cx(Some(&api), limit) };
    let (first, action) = (fenced(1), world.action("command"));
    let runs = async { (action.run(&first, &with).await, Instant::now()) };
    let is_ended = async {
        until("it began", || lines(&world) == ["begun"]).await;
        let asked = if by == By::TimeLimit { began + limit } else { Instant::now() };
        let heard = async {
            until("it hears TERM", || lines(&world).len() == 2).await;
            assert!(asked.elapsed() < Duration::from_secs(9), "{by:?}: TERM came after {:?}", asked.elapsed());
        };
        let later = async {
            match by {
                By::TimeLimit => {}
                By::Cancel => world.notes.cancel.notify_one(),
                By::HigherFence => {
                    let quick = json!({ "program": "/usr/bin/printf", "args": ["done"] });
                    let second = action.run(&fenced(2), &quick).await.unwrap();
                    assert_eq!(second.data["stdout"], "done");
                    assert_eq!(living(&mark(&world)), 0, "the second began beside it");
                }
            }
        };
        tokio::join!(heard, later);
        asked
    };
    let ((outcome, ended), asked) = tokio::join!(runs, is_ended);
    let problem = if by == By::TimeLimit { unknown(outcome) } else { failed(outcome) };
    assert!(problem.contains(if by == By::TimeLimit { "timed out after" } else { "stopped after" }), "{by:?}: {problem}");
    let took = ended.duration_since(asked);
    assert!(took >= Duration::from_millis(9_900) && took < GRACE * 3, "{by:?}: {took:?}");
    assert_eq!(lines(&world), ["begun", "term"], "{by:?}");
    assert_eq!(living(&mark(&world)), 0, "{by:?}");
}

/// The same for what a killed shim left behind, when nobody waits for it any more.
#[tokio::test]
async fn what_a_killed_shim_left_and_nobody_waits_for_is_killed_ten_seconds_after_term() {
    let world = World::new().await;
    // With its shim the reader of its output is gone: what it prints would end it.
    let text = "#!/bin/sh\nexec >/dev/null 2>&1\ntrap 'echo term >> $1' TERM\necho begun >> $1\nwhile :; do sleep 1; done\n";
    let with = json!({
        "program": "/bin/sh", "args": [super::script(world.dir.path(), "deaf", text), ledger(&world)], "env": { "MARK": world.dir.path() },
    });
    let cx = world.cx(None, Duration::from_secs(60));
    begin_and_leave(&world, &cx, &with).await;
    let shim = Stat::of(intended(&world).pid).unwrap();
    shim.signal(Signal::KILL);
    until("its shim is gone", || !Stat::of(shim.pid).is_some_and(|now| now.is(shim.pid, shim.start))).await;
    let asked = Instant::now();
    world.library.executions.give_up(&cx.execution);
    until("it hears TERM", || lines(&world).len() == 2).await;
    until("it is killed", || living(&mark(&world)) == 0).await;
    // The time that it has to end by itself.
    let took = asked.elapsed();
    assert!(took >= GRACE && took < GRACE * 3, "{took:?}");
    assert_eq!(lines(&world), ["begun", "term"]);
    world.library.executions.give_up(&cx.execution);
    assert_eq!(world.library.executions.kept(), Vec::<String>::new());
}

/// What forks faster than anybody reads `/proc`, deaf to TERM and away from its parents, is ended all the same, where control groups are ours to make.
#[tokio::test]
async fn what_forks_without_end_is_ended_with_its_control_group() {
    if crate::cgroup::Cgroup::make("try").is_none() {
        println!("no control groups for us on this host: not tried");
        return;
    }
    let world = World::new().await;
    let text = format!(
        "#!/bin/sh\ntrap '' TERM\necho begun >> {}\ncat /proc/self/cgroup\nn=0\nwhile :; do setsid sleep 0.03 & n=$((n+1)); [ $((n % 20)) = 0 ] && sleep 0.02; done\n",
        ledger(&world).display()
    );
    let script = super::script(world.dir.path(), "forks", &text);
    let with = json!({ "program": "/bin/sh", "args": [script], "env": { "MARK": world.dir.path() } });
    let cx = world.cx(None, Duration::from_secs(3));
    let problem = unknown(world.action("command").run(&cx, &with).await);
    assert!(problem.contains("timed out after") && problem.ends_with(&format!("/watchkeeper-{}", intended(&world).pid)), "{problem}");
    assert_eq!(living(&mark(&world)), 0);
    let left = crate::cgroup::Cgroup::make(&intended(&world).pid.to_string());
    assert!(left.is_some(), "its control group is still there");
}

#[tokio::test]
async fn a_service_that_a_command_starts_stays() {
    let world = World::new().await;
    let script = super::script(world.dir.path(), "starter", "#!/bin/sh\nsetsid sleep 60 >/dev/null 2>&1 &\nsleep 0.5\n");
    let with = json!({ "program": "/bin/sh", "args": [script], "env": { "MARK": world.dir.path() } });
    world.run("command", with).await.unwrap();
    until("the service is there", || living(&mark(&world)) == 1).await;
    for process in crate::proc::all().iter().filter(|one| crate::proc::has_env(one.pid, &mark(&world))) {
        process.signal(Signal::KILL);
    }
}

#[tokio::test]
async fn a_higher_fence_ends_what_a_lower_one_began_and_a_lower_one_begins_nothing() {
    let world = World::new().await;
    let api = target("api", "process", json!({}));
    let with = slow(&world, "60");
    let fenced = |n: i64| ActionCx { fence: Some(Fence { epoch: 1, n }), ..world.cx(Some(&api), Duration::from_secs(60)) };
    let first = fenced(1);
    begin_and_leave(&world, &first, &with).await;
    let known = intended(&world);
    let quick = json!({ "program": "/usr/bin/printf", "args": ["done"] });
    let second = world.action("command").run(&fenced(2), &quick).await.unwrap();
    assert_eq!(second.data["stdout"], "done");
    assert!(failed(world.action("command").run(&again(&first, &known), &with).await).contains("stopped after"));
    let late = failed(world.action("command").run(&fenced(1), &quick).await);
    assert!(late.contains("a later run has api: its fence is 1.2, this one's 1.1"), "{late}");
    assert_eq!(living(&mark(&world)), 0);
}
