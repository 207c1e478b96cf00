//! Shims that stand still between their start and their command, and shims that cannot leave their control group.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::action::ActionError;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::shim::{intended, lines, mark, slow, stand_in, take_up};
use super::{Fate, World, living, script, unknown, until};
use crate::Executions;
use crate::cgroup::{self, Cgroup};
use crate::proc::Stat;

/// What becomes of a shim that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoesOn,
    Dies,
}

/// Whether an order waits to be read by this process.
fn has_order(pid: i32) -> bool {
    let orders = File::open(format!("/proc/{pid}/fd/0")).ok();
    orders.is_some_and(|orders| rustix::io::ioctl_fionread(orders).is_ok_and(|waiting| waiting > 8))
}

#[tokio::test]
async fn of_a_shim_that_stands_still_nobody_says_that_it_never_began_before_that_is_so() {
    for (told, then) in [(false, Then::GoesOn), (false, Then::Dies), (true, Then::GoesOn), (true, Then::Dies)] {
        let world = World::new().await;
        let (cx, with) = (world.cx(None, Duration::from_secs(30)), slow(&world, "0"));
        world.notes.fates.lock().unwrap().push(if told { Fate::Stopped } else { Fate::StoppedAndForsaken });
        let action = world.action("command");
        let stands = || {
            let stored = world.notes.intended.lock().unwrap().last().and_then(|known| Stat::of(known.pid));
            stored.is_some_and(|shim| shim.state == 'T' && has_order(shim.pid) == told)
        };
        tokio::select! {
            outcome = action.run(&cx, &with) => panic!("ended: {outcome:?}"),
            () = until("it stands still", stands) => {}
        }
        // The server is gone, and another one asks.
        let early = tokio::time::timeout(Duration::from_millis(300), take_up(&world, &cx, &with)).await;
        assert!(early.is_err(), "{told} {then:?}: {early:?}");
        assert_eq!(lines(&world), Vec::<String>::new());
        let shim = Stat::of(intended(&world).pid).unwrap();
        shim.signal(if then == Then::GoesOn { Signal::CONT } else { Signal::KILL });
        let outcome = take_up(&world, &cx, &with).await;
        if told && then == Then::GoesOn {
            assert_eq!(outcome.unwrap().data["stdout"], "said");
            assert_eq!(lines(&world), ["begun", "ended"]);
        } else {
            assert!(matches!(&outcome, Err(ActionError::NeverBegan(_))), "{told} {then:?}: {outcome:?}");
            until("its shim is gone", || Stat::of(shim.pid).is_none_or(|one| !one.alive())).await;
            assert_eq!(lines(&world), Vec::<String>::new());
        }
    }
}

/// Starts a shim in this control group, from which nobody gets out: what one writes to move goes nowhere.
fn locked_in(group: &Path) -> Vec<OsString> {
    let text = "echo 0 > \"$1/cgroup.procs\" && mount --bind /dev/full \"$1/cgroup.procs\" && shift && exec \"$@\"";
    let start = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", text, "sh"].map(OsString::from);
    start.into_iter().chain([group.into()]).chain(stand_in()).collect()
}

#[tokio::test]
async fn a_shim_that_cannot_leave_its_control_group_ends_its_command_and_not_itself() {
    if Cgroup::make("try-locked").is_none() {
        println!("no control groups for us on this host: not tried");
        return;
    }
    // Without the prefix of those that are tidied up.
    let outer = cgroup::home().unwrap().join(format!("locked-{}", std::process::id()));
    fs::create_dir(&outer).unwrap();
    let start = locked_in(&outer);
    let world = World::with(|dir, settings| {
        settings.executions = Arc::new(Executions::open(&dir.join("locked"), start).unwrap());
    })
    .await;
    let shown = world.run("command", json!({ "program": "/bin/cat", "args": ["/proc/self/cgroup"] })).await;
    let Ok(shown) = shown else {
        println!("no mounts of our own on this host: not tried ({shown:?})");
        return fs::remove_dir(&outer).unwrap();
    };
    let inner = |pid: i32| -> PathBuf { outer.join(format!("watchkeeper-{pid}")) };
    let shim = intended(&world).pid;
    assert!(shown.data["stdout"].as_str().unwrap().contains(&format!("/watchkeeper-{shim}")), "{}", shown.data["stdout"]);
    // Deaf to TERM, and away from its group: the control group would be killed, and the shim with it.
    let text = "#!/bin/sh\ntrap '' TERM\nsetsid sh -c \"trap '' TERM; sleep 60 & wait; sleep 60\" &\nsleep 60 & wait\nsleep 60\n";
    let with: Value =
        json!({ "program": "/bin/sh", "args": [script(world.dir.path(), "deaf", text)], "env": { "MARK": world.dir.path() } });
    let problem = unknown(world.run_on("command", with, None, Duration::from_secs(1)).await);
    assert!(problem.contains("timed out after"), "{problem}");
    assert_eq!(intended(&world).pid, shim, "it was to take both");
    assert_eq!(living(&mark(&world)), 0);
    assert!(inner(shim).is_dir(), "it got out");
    drop(world);
    let left = || fs::read_dir(&outer).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    until("nobody is left in it", || left().filter(|group| fs::remove_dir(group).is_err()).count() == 0).await;
    fs::remove_dir(&outer).unwrap();
}
