//! Shims that carry out one command after the other: what is reused, what is not, and whom an end reaches.

use std::time::Duration;

use domain::action::{ActionCx, ActionError};
use domain::run::{Execution, Fence};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::shim::{again, begin_and_leave, intended, lines, mark, slow, take_up};
use super::{Fate, World, failed, living, script, target, unknown, until};
use crate::proc::{self, Stat};

fn quick() -> Value {
    json!({ "program": "/usr/bin/printf", "args": ["done"] })
}

/// Runs a command; the process id of its shim.
async fn shim_of(world: &World, with: Value) -> i32 {
    world.run("command", with).await.unwrap();
    intended(world).pid
}

fn gone(pid: i32) -> bool {
    Stat::of(pid).is_none_or(|one| !one.alive())
}

#[tokio::test]
async fn one_shim_carries_out_one_command_after_the_other_and_ends_with_its_server() {
    let world = World::new().await;
    let first = shim_of(&world, quick()).await;
    for _ in 0..5 {
        assert_eq!(shim_of(&world, quick()).await, first);
    }
    // A command that cannot be started leaves nothing either.
    let missing = json!({ "program": "/bin/sh", "args": [], "cwd": "/nowhere" });
    failed(world.run("command", missing).await);
    assert_eq!(shim_of(&world, quick()).await, first);
    let executions = world.library.executions.clone();
    drop(world);
    assert!(!gone(first));
    drop(executions);
    until("it is gone", || gone(first)).await;
}

#[tokio::test]
async fn a_command_finds_nothing_of_the_one_before() {
    let world = World::new().await;
    let text = "#!/bin/sh\necho $(cat /proc/self/stat | cut -d' ' -f5) $(ls /proc/self/fd | wc -l) $(pwd) $(umask) ${LEFT-none}\ncd /tmp; umask 077; kill -WINCH $PPID\n";
    let with = |env: Value| json!({ "program": "/bin/sh", "args": [script(world.dir.path(), "looks", text)], "env": env });
    let first = world.run("command", with(json!({ "LEFT": "this" }))).await.unwrap();
    let shim = intended(&world).pid;
    let second = world.run("command", with(json!({}))).await.unwrap();
    assert_eq!(intended(&world).pid, shim);
    let fields = |output: &Value| output["stdout"].as_str().unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (fields(&first.data), fields(&second.data));
    assert_ne!(first[0], second[0], "they share a process group");
    assert_eq!(first[1..4], second[1..4]);
    assert_eq!((first[4].as_str(), second[4].as_str()), ("this", "none"));
}

#[tokio::test]
async fn what_a_command_leaves_behind_stays_and_its_shim_takes_nothing_else() {
    let world = World::new().await;
    let starter = script(world.dir.path(), "starter", "#!/bin/sh\nsetsid sleep 60 >/dev/null 2>&1 &\nsleep 0.5\n");
    let with = json!({ "program": "/bin/sh", "args": [starter], "env": { "MARK": world.dir.path() } });
    let shim = shim_of(&world, with).await;
    assert_eq!(living(&mark(&world)), 1);
    let cx = world.cx(None, Duration::from_secs(2));
    let timed_out = world.action("command").run(&cx, &json!({ "program": "/bin/sleep", "args": [30] })).await;
    assert!(unknown(timed_out).contains("timed out"));
    assert_ne!(intended(&world).pid, shim);
    until("its shim is gone", || gone(shim)).await;
    assert_eq!(living(&mark(&world)), 1, "it was ended with a command that has nothing to do with it");
    for process in proc::all().iter().filter(|one| proc::has_env(one.pid, &mark(&world))) {
        process.signal(Signal::KILL);
    }
}

#[tokio::test]
async fn a_shim_that_is_killed_while_it_waits_or_before_it_hears_is_replaced() {
    let world = World::new().await;
    for signal in [Signal::KILL, Signal::TERM] {
        let shim = shim_of(&world, quick()).await;
        Stat::of(shim).unwrap().signal(signal);
        until("it is gone", || gone(shim)).await;
        assert_ne!(shim_of(&world, quick()).await, shim);
    }
    let before = world.notes.intended.lock().unwrap().len();
    world.notes.fates.lock().unwrap().push(Fate::Killed);
    world.run("command", slow(&world, "0")).await.unwrap();
    let stored = world.notes.intended.lock().unwrap().split_off(before);
    assert_eq!(stored.len(), 2);
    assert_ne!(stored[0].pid, stored[1].pid);
    assert_eq!(lines(&world), ["begun", "ended"]);
    // Not for ever.
    world.notes.fates.lock().unwrap().extend([Fate::Killed, Fate::Killed]);
    let problem = failed(world.run("command", quick()).await);
    assert!(problem.contains("ended before it began"), "{problem}");
}

#[tokio::test]
async fn what_was_stored_and_never_told_is_known_never_to_have_begun() {
    let world = World::new().await;
    let (cx, with) = (world.cx(None, Duration::from_secs(30)), slow(&world, "0"));
    world.notes.fates.lock().unwrap().push(Fate::Forsaken);
    let action = world.action("command");
    let stored = until("it is stored", || !world.notes.intended.lock().unwrap().is_empty());
    tokio::select! {
        outcome = action.run(&cx, &with) => panic!("ended: {outcome:?}"),
        () = stored => {}
    }
    let known = intended(&world);
    for _ in 0..2 {
        let told = take_up(&world, &cx, &with).await;
        assert!(matches!(&told, Err(ActionError::NeverBegan(_))), "{told:?}");
    }
    // After another boot nobody knows, nor where the folder is gone.
    let other_boot = Execution { boot: "00000000-0000-0000-0000-000000000000".to_owned(), ..known };
    unknown(action.run(&again(&cx, &other_boot), &with).await);
    world.library.executions.forget(&cx.execution);
    unknown(take_up(&world, &cx, &with).await);
    assert_eq!(lines(&world), Vec::<String>::new());
}

fn fenced(world: &World, name: &str, n: i64) -> ActionCx {
    let place = target(name, "process", json!({}));
    ActionCx { fence: Some(Fence { epoch: 1, n }), ..world.cx(Some(&place), Duration::from_secs(30)) }
}

#[tokio::test]
async fn a_higher_fence_does_not_end_what_the_shim_of_an_earlier_command_does_by_now() {
    let world = World::new().await;
    let action = world.action("command");
    let first = fenced(&world, "api", 1);
    action.run(&first, &quick()).await.unwrap();
    let shim = intended(&world);
    // The same shim, another target; and the result of the first is still kept.
    let (other, with) = (fenced(&world, "db", 1), slow(&world, "5"));
    let other_ends = action.run(&other, &with);
    let meanwhile = async {
        until("it began", || lines(&world).len() == 1).await;
        assert_eq!(intended(&world).pid, shim.pid);
        action.run(&fenced(&world, "api", 2), &quick()).await.unwrap();
        // Nor does whoever asks for the first once more wait for it, or end it.
        let asked = std::time::Instant::now();
        action.run(&again(&first, &shim), &quick()).await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(2));
        assert_eq!(lines(&world), ["begun"]);
    };
    let (ended, ()) = tokio::join!(other_ends, meanwhile);
    ended.unwrap();
    assert_eq!(lines(&world), ["begun", "ended"]);
}

#[tokio::test]
async fn who_is_to_stop_before_the_order_came_does_not_begin() {
    let world = World::new().await;
    let first = fenced(&world, "api", 1);
    world.notes.fates.lock().unwrap().push(Fate::Forsaken);
    let action = world.action("command");
    let with = slow(&world, "0");
    let later = async {
        until("it is stored", || !world.notes.intended.lock().unwrap().is_empty()).await;
        action.run(&fenced(&world, "api", 2), &quick()).await
    };
    // The first hangs while it is stored; it is given up, as by a server that ends, when the second wants its target.
    let hangs = tokio::time::timeout(Duration::from_secs(5), action.run(&first, &with));
    let (hung, later) = tokio::join!(hangs, later);
    assert!(hung.is_err());
    later.unwrap();
    let known = world.notes.intended.lock().unwrap()[0].clone();
    let late = action.run(&again(&first, &known), &with).await;
    assert!(matches!(&late, Err(ActionError::NeverBegan(_))), "{late:?}");
    assert!(failed(action.run(&first, &with).await).contains("a later run has api"));
    assert_eq!(lines(&world), Vec::<String>::new());
}

#[tokio::test]
async fn a_command_that_its_server_left_is_alone_with_its_shim() {
    let world = World::new().await;
    let (cx, with) = (world.cx(None, Duration::from_secs(30)), slow(&world, "2"));
    begin_and_leave(&world, &cx, &with).await;
    let left = intended(&world);
    assert_ne!(shim_of(&world, quick()).await, left.pid);
    world.action("command").run(&again(&cx, &left), &with).await.unwrap();
    until("its shim is gone", || gone(left.pid)).await;
}
