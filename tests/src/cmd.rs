//! Starting programs, to keep them running or to run them to their end.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{Proc, proc::read_lossy, reaper};

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
        let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        Self { name, program, args: vec![], envs: vec![], dir: None, user: None, stdin: vec![] }
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
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable on top of the inherited ones.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
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
        Ok(Done { name, status, took: started.elapsed(), stdout: read_lossy(&proc.files().join("out")), stderr: proc.log() })
    }

    fn start(self, split: bool) -> anyhow::Result<Proc> {
        let files = reaper::temp_dir(&self.name)?;
        let at = |file: &str| files.path().join(file);
        fs::write(at("in"), &self.stdin)?;
        let log = File::create(at("log"))?;
        let out = if split { File::create(at("out"))? } else { log.try_clone()? };
        let mut command = self.command();
        command.stdin(Stdio::from(File::open(at("in"))?)).stdout(out).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        Proc::adopt(self.name, child, files)
    }

    /// setsid(1) calls setsid(2) and execs, so that the pid stays the child's; `unsafe` is forbidden here, so no `pre_exec`.
    #[expect(clippy::disallowed_methods, reason = "the harness's one home for starting programs")]
    fn command(&self) -> Command {
        let mut command = Command::new("setsid");
        command.arg(&self.program).args(&self.args).envs(self.envs.iter().map(|(key, value)| (key, value)));
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
