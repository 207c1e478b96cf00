//! What `/proc` says about processes, and signals that cannot hit a stranger who got a dead process's id.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

/// How often a group is looked at while it ends.
const LOOK: Duration = Duration::from_millis(25);
/// How often a child is looked at while no signal tells of an end.
const LOOK_ANYWAY: Duration = Duration::from_millis(250);
/// How long the kernel may take to remove what was killed.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// What the kernel counts process times in, per second: fixed at 100 for user space on every Linux port.
pub(crate) const TICKS: u64 = 100;

/// One process, as `/proc/PID/stat` shows it. With [`Stat::start`] it is told apart from a later one of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) threads: u64,
    /// `R`, `S`, `D`, `Z`, ...
    pub(crate) state: char,
    /// Ticks after boot at which it began.
    pub(crate) start: u64,
}

impl Stat {
    /// The process of this id, dead but not yet reaped ones included.
    pub(crate) fn of(pid: i32) -> Option<Stat> {
        parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether it still runs.
    pub(crate) fn alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Whether it is the process that was `(pid, start)` and still runs.
    pub(crate) fn is(&self, pid: i32, start: u64) -> bool {
        self.pid == pid && self.start == start && self.alive()
    }

    /// How long it has been running.
    pub(crate) fn age(&self) -> Option<Duration> {
        let text = fs::read_to_string("/proc/uptime").ok()?;
        let up: f64 = text.split(' ').next()?.parse().ok()?;
        let age = up - self.start as f64 / TICKS as f64;
        Duration::try_from_secs_f64(age.max(0.0)).ok()
    }

    /// Sends a signal to exactly this process; nothing happens if it is gone.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // The descriptor is opened first, so that the check below holds for what the signal reaches.
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if Stat::of(self.pid).is_some_and(|now| now.is(self.pid, self.start)) {
            // It may have ended meanwhile, which is what was wanted.
            let _ = pidfd_send_signal(&fd, signal);
        }
    }
}

/// Every process that has not ended.
pub(crate) fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Stat::of).filter(Stat::alive).collect()
}

/// The ids of all children of `pid`, and theirs, among `all`.
pub(crate) fn descendants(all: &[Stat], pid: i32) -> BTreeSet<i32> {
    let mut family = BTreeSet::new();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|one| (one.parent == pid || family.contains(&one.parent)) && !family.contains(&one.pid))
            .map(|one| one.pid)
            .collect();
        if more.is_empty() {
            return family;
        }
        family.extend(more);
    }
}

/// Whether this process has no child but this one. Says no where the kernel does not tell.
pub(crate) fn only_child(pid: i32) -> bool {
    let others = || -> io::Result<bool> {
        // Each thread has its own children; those that a process adopts come to its first.
        for thread in fs::read_dir("/proc/self/task")? {
            let children = fs::read_to_string(thread?.path().join("children"))?;
            if children.split_whitespace().any(|child| child.parse() != Ok(pid)) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    others().is_ok_and(|others| !others)
}

/// Reaps what has ended, and says whether this process has no child at all. Nobody else may be waiting for one.
pub(crate) fn childless() -> bool {
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(errno) => return errno == rustix::io::Errno::CHILD,
        }
    }
}

/// Whether the process was started with exactly this `NAME=value`. Readable for processes of the same user.
pub(crate) fn has_env(pid: i32, entry: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|have| have == entry.as_bytes())
}

/// Tells this boot of the machine apart from every other.
pub(crate) fn boot_id() -> io::Result<String> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT.get() {
        return Ok(known.clone());
    }
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(BOOT.get_or_init(|| read).clone())
}

/// Returns when a child of ours has ended, without reaping it: until that is done, its id belongs to nobody else.
pub(crate) async fn ended(pid: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let mut told = signal(SignalKind::child())?;
    while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG)?.is_none() {
        // Signals of several ends become one, so every one is a reason to look; looking now and then costs nothing.
        let _ = timeout(LOOK_ANYWAY, told.recv()).await;
    }
    Ok(())
}

/// Ends all processes that `find` gives: TERM, then KILL for what is left after `grace`. Whether nothing is left.
pub(crate) async fn end_all(grace: Duration, find: impl Fn() -> Vec<Stat> + Clone + Send + 'static) -> bool {
    let kill_at = Instant::now() + grace;
    let mut asked: Vec<Stat> = vec![];
    loop {
        let find = find.clone();
        // Reading all of /proc takes milliseconds: not on a thread that serves others.
        let Ok(left) = tokio::task::spawn_blocking(find).await else { return false };
        if left.is_empty() {
            return true;
        }
        let now = Instant::now();
        if now >= kill_at + AFTER_KILL {
            return false;
        }
        for process in &left {
            if now >= kill_at {
                process.signal(Signal::KILL);
            } else if !asked.iter().any(|one| one.is(process.pid, process.start)) {
                // TERM once each: a second one makes some programs give up their orderly end. CONT, so that a stopped one hears it.
                process.signal(Signal::TERM);
                process.signal(Signal::CONT);
                asked.push(*process);
            }
        }
        sleep(LOOK).await;
    }
}

/// The name in the second field may hold spaces and parentheses, so fields are counted from its last `)`.
fn parse(pid: i32, line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // `man 5 proc_pid_stat` numbers the state 3.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        pid,
        state: field(3)?.chars().next()?,
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        threads: field(20)?.parse().ok()?,
        start: field(22)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_traps_does_not_shift_the_fields() {
        let line = "7 (a) R 1 (b)) S 1 42 43 0 -1 4194560 1 0 0 0 9 8 0 0 20 0 3 0 123456 1 2 3";
        let stat = parse(7, line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.group, stat.session, stat.threads, stat.start), ('S', 1, 42, 43, 3, 123_456));
        assert_eq!(parse(7, "7 (x) S 1"), None);
    }

    #[test]
    fn this_process_is_found_and_told_apart_from_another_of_its_id() {
        let me = Stat::of(std::process::id() as i32).unwrap();
        assert!(me.alive() && me.is(me.pid, me.start));
        assert!(!me.is(me.pid, me.start + 1));
        assert!(all().iter().any(|process| process.pid == me.pid));
        assert!(me.age().unwrap() < Duration::from_secs(3600));
        // A signal for somebody who had our id before us must not reach us: KILL would end the tests.
        Stat { start: me.start + 1, ..me }.signal(Signal::KILL);
    }

    #[test]
    fn the_boot_has_an_id() {
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
