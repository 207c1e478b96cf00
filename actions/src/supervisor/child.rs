//! Starting one child, and waiting for its end.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::{Exit, Spec, log};
use crate::proc::Stat;
use crate::program::ENVIRONMENT;

/// How often an adopted child is looked at: nobody signals its end to us.
const LOOK: Duration = Duration::from_millis(200);

/// A process to wait for.
#[derive(Debug)]
pub(super) enum Process {
    /// Ours: we are told how it ended.
    Own(Box<Child>),
    /// An earlier server's.
    Adopted(Stat),
}

impl Process {
    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> Exit {
        match self {
            Process::Own(child) => match child.wait().await {
                Ok(status) => status.code().map(Exit::Code).or(status.signal().map(Exit::Signal)).unwrap_or(Exit::Unseen),
                Err(_) => Exit::Unseen,
            },
            Process::Adopted(stat) => {
                while Stat::of(stat.pid).is_some_and(|now| now.is(stat.pid, stat.start)) {
                    sleep(LOOK).await;
                }
                Exit::Unseen
            }
        }
    }
}

/// Starts it in a group of its own, marked, with its output in the log.
pub(super) fn spawn(spec: &Spec, mark: (&str, &str), log_file: &Path) -> io::Result<(Child, Stat)> {
    let out = log::open(log_file)?;
    let err = out.try_clone()?;
    #[expect(clippy::disallowed_methods, reason = "the one home of supervised children: fixed program, no shell, own environment")]
    let mut command = Command::new(&spec.program);
    command.args(&spec.args).env_clear().envs(ENVIRONMENT).envs(&spec.env).env(mark.0, mark.1);
    command.current_dir(spec.cwd.as_deref().unwrap_or(Path::new("/"))).process_group(0);
    let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()?;
    // It is not reaped yet, so even if it has ended its entry stands.
    let stat = child
        .id()
        .and_then(|pid| Stat::of(i32::try_from(pid).ok()?))
        .ok_or_else(|| io::Error::other("its process cannot be found in /proc"))?;
    Ok((child, stat))
}
