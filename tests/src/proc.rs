//! A running program: its log, its memory, signals to it, and its end with everything it started.

use std::{
    fs,
    future::Future,
    path::Path,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{eventually, reaper};

/// How much of a log a failure shows.
const TAIL_LINES: usize = 30;
/// A killed process may fork once more before it dies, so a session is looked at until it is empty, at most so often.
const SWEEPS: usize = 1000;

/// A running program. Dropping it kills its whole session and removes its log.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    exit: Option<ExitStatus>,
    files: TempDir,
}

impl Proc {
    /// Takes over a program that leads a session of its own and writes to the file `log` in `files`.
    pub(crate) fn adopt(name: String, child: Child, files: TempDir) -> anyhow::Result<Self> {
        reaper::add(child.id())?;
        Ok(Self { name, child, exit: None, files })
    }

    /// The folder of its log.
    pub(crate) fn files(&self) -> &Path {
        self.files.path()
    }

    /// The process id; also the id of its session.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote to stdout and stderr, in order.
    pub fn log(&self) -> String {
        read_lossy(&self.files.path().join("log"))
    }

    /// The last lines of the log, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_ok_and(|exit| exit.is_none())
    }

    /// Resident memory of the process itself, in bytes. An error when it has ended.
    pub fn rss_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).with_context(|| format!("{} has ended", self.name))?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }

    /// Waits until `probe` gives `Ok`. Fails at once when the program ends, and then or at the deadline shows the end of its log.
    pub async fn until_ready<F, Fut>(&mut self, within: Duration, probe: F) -> anyhow::Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = anyhow::Result<()>>,
    {
        let pid = self.pid();
        let ready = async || {
            if is_zombie_or_gone(pid) {
                return Ok(false);
            }
            probe().await.map(|()| true)
        };
        match eventually(within, ready).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                bail!("{} ended while starting (is it installed? ./test does that). Its log ends with:\n{}", self.name, self.log_tail())
            }
            Err(error) => Err(error).with_context(|| format!("{} did not get ready. Its log ends with:\n{}", self.name, self.log_tail())),
        }
    }

    /// Sends a signal to the process itself, not to its children.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid() as i32).context("no pid")?;
        kill_process(pid, signal).with_context(|| format!("{signal:?} to {}", self.name))
    }

    /// Asks it to end (SIGTERM).
    pub fn term(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits for its end. An error, with the end of its log, when it still runs after `within`.
    pub async fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let pid = self.pid();
        let ended = eventually(within, async || {
            anyhow::ensure!(is_zombie_or_gone(pid), "it still runs");
            Ok(())
        });
        if let Err(error) = ended.await {
            return Err(error).with_context(|| format!("{}. Its log ends with:\n{}", self.name, self.log_tail()));
        }
        self.reap()
    }

    /// Waits for its end without a runtime, for `Drop`. Says whether it ended within that time.
    pub(crate) fn wait_blocking(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while !is_zombie_or_gone(self.pid()) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        true
    }

    /// `kill -9` of the process itself; returns when it is gone. What it started lives on, as after a crash, until this value is dropped.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        if self.poll()?.is_none() {
            self.signal(Signal::KILL)?;
        }
        self.reap().map(|_| ())
    }

    /// Kills what is left of the session.
    fn sweep(&self) {
        for _ in 0..SWEEPS {
            // The kernel gives the pid away again only when nobody is left in the session that bears its number.
            let members = if is_gone(self.pid()) { session(self.pid()) } else { vec![] };
            if members.is_empty() {
                break;
            }
            for pid in members {
                kill_process(pid, Signal::KILL).ok();
            }
            std::thread::yield_now();
        }
    }

    fn poll(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait()?;
        }
        Ok(self.exit)
    }

    fn reap(&mut self) -> anyhow::Result<ExitStatus> {
        let exit = match self.exit {
            Some(exit) => exit,
            None => *self.exit.insert(self.child.wait()?),
        };
        Ok(exit)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill9().ok();
        self.sweep();
        reaper::forget(self.pid()).ok();
    }
}

/// A file's text with invalid UTF-8 replaced; empty when there is none.
pub(crate) fn read_lossy(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The fields of /proc/PID/stat after the name: state, parent, group, session.
fn stat(pid: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').take(4).map(str::to_owned).collect())
}

fn is_gone(pid: u32) -> bool {
    stat(&pid.to_string()).is_none()
}

fn is_zombie_or_gone(pid: u32) -> bool {
    stat(&pid.to_string()).is_none_or(|fields| fields[0] == "Z")
}

/// The live members of a session.
fn session(leader: u32) -> Vec<Pid> {
    let leader = leader.to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| stat(pid).is_some_and(|fields| fields[3] == leader && fields[0] != "Z"))
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}
