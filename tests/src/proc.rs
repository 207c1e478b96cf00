//! Starting programs: each in a session of its own, its output in a log file, ended with everything it started.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    future::Future,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
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
    /// Its session has been killed; the pid may by now be somebody else's.
    swept: bool,
    files: TempDir,
}

impl Proc {
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
        let kib = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .with_context(|| format!("{} has ended", self.name))?;
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
            Ok(false) => bail!("{} ended while starting (is it installed? ./test does that). Its log ends with:\n{}", self.name, self.log_tail()),
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

    /// `kill -9` to the process and to everything in its session; returns when they are gone.
    ///
    /// A descendant that made a session of its own lives on, as it would after a crash.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        if self.swept {
            return Ok(());
        }
        if self.exit.is_none() {
            self.signal(Signal::KILL).ok();
        }
        self.reap()?;
        for _ in 0..SWEEPS {
            let members = session(self.pid());
            if members.is_empty() {
                break;
            }
            for pid in members {
                kill_process(pid, Signal::KILL).ok();
            }
            std::thread::yield_now();
        }
        self.swept = true;
        reaper::forget(self.pid())
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
    }
}

/// A program to start.
#[derive(Debug)]
pub struct Cmd {
    name: String,
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    user: Option<(u32, u32)>,
    stdin: Vec<u8>,
}

impl Cmd {
    /// A program by path or by name in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        let name = Path::new(&program)
            .file_name()
            .unwrap_or(&program)
            .to_string_lossy()
            .into_owned();
        Self {
            name,
            program,
            args: vec![],
            envs: vec![],
            dir: None,
            user: None,
            stdin: vec![],
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable on top of the inherited ones.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// What the program reads from stdin; nothing by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs as this user id and group id; needs root.
    #[must_use]
    pub fn user(mut self, ids: Option<(u32, u32)>) -> Self {
        self.user = ids;
        self
    }

    /// Starts it and returns at once; stdout and stderr go to the log.
    pub fn spawn(self) -> anyhow::Result<Proc> {
        self.start(false)
    }

    /// Runs it to its end, at most `within`, and returns what it wrote. A failing exit status is not an error here.
    pub async fn run(self, within: Duration) -> anyhow::Result<Done> {
        let name = self.name.clone();
        let started = Instant::now();
        let mut proc = self.start(true)?;
        let status = proc.wait(within).await?;
        Ok(Done {
            name,
            status,
            took: started.elapsed(),
            stdout: read_lossy(&proc.files.path().join("out")),
            stderr: proc.log(),
        })
    }

    fn start(self, split: bool) -> anyhow::Result<Proc> {
        let files = reaper::temp_dir(&self.name)?;
        let at = |file: &str| files.path().join(file);
        fs::write(at("in"), &self.stdin)?;
        let log = File::create(at("log"))?;
        let out = if split { File::create(at("out"))? } else { log.try_clone()? };
        let mut command = self.command();
        command
            .stdin(Stdio::from(File::open(at("in"))?))
            .stdout(out)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        reaper::add(child.id())?;
        Ok(Proc {
            name: self.name,
            child,
            exit: None,
            swept: false,
            files,
        })
    }

    /// setsid(1) calls setsid(2) and execs, so that the pid stays the child's; `unsafe` is forbidden here, so no `pre_exec`.
    #[expect(clippy::disallowed_methods, reason = "the harness's one home for starting programs")]
    fn command(&self) -> Command {
        let mut command = Command::new("setsid");
        command
            .arg(&self.program)
            .args(&self.args)
            .envs(self.envs.iter().map(|(key, value)| (key, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// What a program that ran to its end left behind.
#[derive(Debug)]
pub struct Done {
    name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// How long it ran.
    pub took: Duration,
    /// What it wrote to stdout, invalid UTF-8 replaced.
    pub stdout: String,
    /// What it wrote to stderr, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Done {
    /// Its stdout; an error with its stderr when it failed.
    pub fn ok(self) -> anyhow::Result<String> {
        if !self.status.success() {
            bail!("{} ended with {}:\n{}{}", self.name, self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

fn read_lossy(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The fields of /proc/PID/stat after the name: state, parent, group, session.
fn stat(pid: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').take(4).map(str::to_owned).collect())
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
