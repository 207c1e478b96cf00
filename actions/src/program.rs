//! Starts programs and sees them end: the one home for that, besides the supervisor's children and the shims.
//!
//! No shell; an environment of our making; a process group of its own that ends with the call, however the call ends.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use domain::action::RunHost;
use domain::printed::Source;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::cgroup::Cgroup;
use crate::live::{self, Tap};
use crate::output::Capture;
use crate::proc;

/// Between TERM and KILL.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// How long output is awaited after the group has ended: somebody outside the group may still hold the pipe.
const DRAIN: Duration = Duration::from_millis(500);

/// What every program finds in its environment besides what it is given. Nothing of the server's own gets there.
pub const ENVIRONMENT: [(&str, &str); 2] = [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];

/// A program to run to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invocation {
    /// Absolute.
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Besides [`ENVIRONMENT`].
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    /// Nothing to read by default.
    pub(crate) stdin: Option<String>,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) how: How,
    pub(crate) stdout: Capture,
    pub(crate) stderr: Capture,
    pub(crate) took: Duration,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By itself or by somebody's signal.
    Ended(ExitStatus),
    /// Killed at its time limit, with its whole group: nothing of it is left.
    TimedOut,
    /// Killed because it was asked for, with its whole group.
    Stopped,
}

/// What ends a program before it ends by itself.
pub(crate) struct Bounds<S> {
    pub(crate) limit: Duration,
    /// When it returns the program is ended.
    pub(crate) stop: S,
    /// What is ended with it then.
    pub(crate) reach: Reach,
    /// Where this process is and its program begins, if they have a control group of their own.
    pub(crate) cgroup: Option<Arc<Cgroup>>,
    /// Gets a copy of what is printed.
    pub(crate) tap: Tap,
}

/// Whom a limit or a stop reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Its process group.
    Group,
    /// Its group, its control group, and every descendant of this process, those who left the group too: for a shim, which has no other children and
    /// adopts orphans.
    Descendants,
}

/// Why there is no [`Finished`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// It never began.
    #[error("cannot start {program}: {error}")]
    NotStarted { program: String, error: std::io::Error },
    /// What was to be taken up never began, and by now it will not.
    #[error("it was stopped before it began")]
    NeverBegan,
    /// It could not be ended, or nobody can tell how it ended.
    #[error("{0}")]
    Lost(String),
}

/// Runs a program. Dropping the future ends its group: TERM, and KILL after 10 s.
pub(crate) async fn run(what: Invocation, limit: Duration) -> Result<Finished, ProgramError> {
    run_within(what, Bounds { limit, stop: std::future::pending(), reach: Reach::Group, cgroup: None, tap: Tap::default() }).await
}

/// The same; what it prints is passed on while it runs.
pub(crate) async fn run_watched(what: Invocation, limit: Duration, host: &dyn RunHost) -> Result<Finished, ProgramError> {
    let tap = Tap::default();
    let bounds = Bounds { limit, stop: std::future::pending(), reach: Reach::Group, cgroup: None, tap: tap.clone() };
    tokio::select! {
        ended = run_within(what, bounds) => ended,
        never = live::tell(&tap, host) => match never {},
    }
}

/// The same, ended by more than the time.
pub(crate) async fn run_within(what: Invocation, bounds: Bounds<impl Future<Output = ()>>) -> Result<Finished, ProgramError> {
    let began = Instant::now();
    let mut group = Group::start(&what).map_err(|error| ProgramError::NotStarted { program: what.program.display().to_string(), error })?;
    let (mut stdout, mut stderr) = (Capture::default(), Capture::default());
    let tap = bounds.tap.clone();
    let how = {
        let (input, out, err) = group.pipes();
        let feed = async {
            if let (Some(mut pipe), Some(bytes)) = (input, &what.stdin) {
                // Who does not read it has closed the pipe, which is no failure.
                let _ = pipe.write_all(bytes.as_bytes()).await;
            }
        };
        let read_out = async {
            if let Some(pipe) = out {
                stdout.fill(pipe, |bytes| tap.push(Source::Stdout, bytes)).await
            }
        };
        let read_err = async {
            if let Some(pipe) = err {
                stderr.fill(pipe, |bytes| tap.push(Source::Stderr, bytes)).await
            }
        };
        let mut talk = Box::pin(async { tokio::join!(feed, read_out, read_err) });
        let mut end = Box::pin(group.end(bounds));
        let mut talking = true;
        let how = loop {
            tokio::select! {
                how = &mut end => break how,
                _ = &mut talk, if talking => talking = false,
            }
        };
        if talking {
            let _ = timeout(DRAIN, talk).await;
        }
        how?
    };
    Ok(Finished { how, stdout, stderr, took: began.elapsed() })
}

/// A program that leads a process group. It is not reaped before the group is empty, so that nobody else can get the group's number.
struct Group {
    child: Option<Child>,
    leader: i32,
}

impl Group {
    fn start(what: &Invocation) -> std::io::Result<Group> {
        #[expect(clippy::disallowed_methods, reason = "the one home of running programs: checked path, no shell, own environment")]
        let mut command = Command::new(&what.program);
        command.args(&what.args).env_clear().envs(ENVIRONMENT).envs(what.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&what.cwd).process_group(0);
        command.stdin(if what.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Without an id it has been reaped, which only `wait` does.
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(Group { child: Some(child), leader })
    }

    fn pipes(&mut self) -> (Option<tokio::process::ChildStdin>, Option<tokio::process::ChildStdout>, Option<tokio::process::ChildStderr>) {
        match &mut self.child {
            Some(child) => (child.stdin.take(), child.stdout.take(), child.stderr.take()),
            None => (None, None, None),
        }
    }

    /// Waits for its end within the bounds; what it left behind in its group ends too.
    async fn end(&mut self, bounds: Bounds<impl Future<Output = ()>>) -> Result<How, ProgramError> {
        let cut = tokio::select! {
            biased;
            ended = proc::ended(self.leader) => match ended {
                Ok(()) => None,
                Err(error) => return Err(ProgramError::Lost(format!("cannot watch process {}: {error}", self.leader))),
            },
            () = tokio::time::sleep(bounds.limit) => Some(How::TimedOut),
            () = bounds.stop => Some(How::Stopped),
        };
        // What ended by itself may have left a service behind that left the group: that one stays.
        let reach = if cut.is_some() { bounds.reach } else { Reach::Group };
        // What its parent left behind becomes a child of a process that adopts: without any there is nobody, and no need to look at all of /proc.
        let alone = cut.is_none() && bounds.reach == Reach::Descendants && proc::only_child(self.leader);
        let cgroup = bounds.cgroup.filter(|_| cut.is_some());
        if let Some(cgroup) = &cgroup {
            cgroup.leave();
        }
        if !alone && !end_group(self.leader, reach, cgroup).await {
            let leader = self.leader;
            return Err(ProgramError::Lost(format!("process group {leader} does not end, not even by SIGKILL: look at it on the host")));
        }
        let status = match self.child.take() {
            Some(mut child) => child.wait().await,
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        match (cut, status) {
            (Some(how), _) => Ok(how),
            (None, Ok(status)) => Ok(How::Ended(status)),
            (None, Err(error)) => Err(ProgramError::Lost(format!("nobody can tell how process {} ended: {error}", self.leader))),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else { return };
        let last = LastResort { leader: self.leader, child };
        if let Ok(runtime) = Handle::try_current() {
            signal_group(self.leader, Signal::TERM);
            runtime.spawn(async move {
                let mut last = last;
                end_group(last.leader, Reach::Group, None).await;
                // What is still there now withstood SIGKILL.
                let _ = last.child.wait().await;
            });
        }
    }
}

/// Kills the group when even the task that ends it in order is dropped, as when the runtime stops.
struct LastResort {
    leader: i32,
    child: Child,
}

impl Drop for LastResort {
    fn drop(&mut self) {
        // With an id it is not reaped, so the group's number is still its own.
        if self.child.id().is_some() {
            signal_group(self.leader, Signal::KILL);
        }
    }
}

async fn end_group(leader: i32, reach: Reach, cgroup: Option<Arc<Cgroup>>) -> bool {
    let whose = (reach == Reach::Descendants).then(|| i32::try_from(std::process::id()).unwrap_or(0));
    let inside = cgroup.clone();
    let ended = proc::end_all(GRACE, move || {
        let all = proc::all();
        let mut family = whose.map(|pid| proc::descendants(&all, pid)).unwrap_or_default();
        family.extend(inside.iter().flat_map(|cgroup| cgroup.members()).map(|process| process.pid));
        all.into_iter().filter(|process| process.group == leader || family.contains(&process.pid)).collect()
    });
    let kill = async {
        tokio::time::sleep(GRACE).await;
        if let Some(cgroup) = &cgroup {
            cgroup.kill();
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        ended = ended => ended,
        never = kill => match never {},
    }
}

fn signal_group(leader: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(leader) {
        // It may be gone already.
        let _ = kill_process_group(group, signal);
    }
}
