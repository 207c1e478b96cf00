//! A service, whatever runs it: what `service.restart`, `service.status` and `collect.bundle` share.

mod compose;
mod systemd;

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::action::{ActionCx, ActionError};
use domain::plan::Target;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Tools;
use crate::output::last;
use crate::program::{self, Finished, How, Invocation, ProgramError};
use crate::supervisor::{ChildState, ChildStatus, Supervisor, SupervisorError};

/// The kinds of target that are services.
pub(crate) const KINDS: &[&str] = &["process", "systemd", "compose"];

/// A service of the inventory.
pub(crate) enum Service<'a> {
    Process(&'a Target),
    Systemd(systemd::Unit),
    Compose(compose::Service),
}

/// How it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    pub(crate) state: State,
    /// One line for people.
    pub(crate) summary: String,
    /// Its main process, where it is on this host and known.
    pub(crate) pid: Option<i32>,
    /// What the one who runs it says.
    pub(crate) detail: Value,
}

/// Where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Running,
    /// On its way, or in a loop of restarts.
    Starting,
    Stopped,
    /// It ended in a way that it should not, or runs and says that it is ill.
    Failed,
}

impl<'a> Service<'a> {
    /// Reads a target; refuses what is no service or lacks a field.
    pub(crate) fn of(target: &'a Target) -> Result<Service<'a>, String> {
        match target.kind.as_str() {
            "process" => Supervisor::check(target).map(|_| Service::Process(target)).map_err(|error| error.to_string()),
            "systemd" => systemd::Unit::of(target).map(Service::Systemd),
            "compose" => compose::Service::of(target).map(Service::Compose),
            other => Err(format!("target {:?} is a {other}; a service is one of {}", target.name, KINDS.join(", "))),
        }
    }

    /// Restarts it; returns a line for people.
    pub(crate) async fn restart(&self, tools: &Tools, cx: &ActionCx) -> Result<(String, Value), ActionError> {
        match self {
            Service::Process(target) => {
                // Those of the other kinds are told under a shim, which looks by itself.
                let free = tools.settings.executions.take_over(cx).await;
                free.map_err(|error| ActionError::Failed(format!("cannot restart {}: {error}", target.name)))?;
                let limit = tools.time_left(cx);
                if limit.is_zero() {
                    let late = format!("{} was not restarted: what an earlier command left there took all the time to end", target.name);
                    return Err(ActionError::Failed(late));
                }
                // The supervisor carries it through in any case, so what is not seen in time is not known.
                let restarted = tokio::time::timeout(limit, tools.settings.supervisor.restart(target)).await;
                let status =
                    restarted.map_err(|_| ActionError::Unknown(format!("{} is not up again after {limit:?}; it goes on", target.name)))?;
                let status = status.map_err(of_supervisor)?;
                let pid = status.pid.unwrap_or_default();
                Ok((format!("{} restarted as process {pid}", target.name), json!(status)))
            }
            Service::Systemd(unit) => unit.restart(tools, cx).await,
            Service::Compose(service) => service.restart(tools, cx).await,
        }
    }

    /// Asks how it is.
    pub(crate) async fn status(&self, tools: &Tools, limit: Duration) -> Result<Status, ActionError> {
        match self {
            Service::Process(target) => {
                tools.settings.supervisor.status(target).await.map(|status| of_child(&target.name, &status)).map_err(of_supervisor)
            }
            Service::Systemd(unit) => unit.status(tools, limit).await,
            Service::Compose(service) => service.status(tools, limit).await,
        }
    }
}

/// What a managing program wrote.
struct Said {
    ok: bool,
    stdout: String,
    /// How it ended and the end of what it wrote, for messages.
    problem: String,
}

/// Asks `systemctl` or `docker` something.
async fn ask(tools: &Tools, program: &Path, args: Vec<String>, limit: Duration) -> Result<Said, ActionError> {
    said(tools, program, args, |what| program::run(what, limit)).await
}

/// Tells `systemctl` or `docker` to do something, under a shim. Past its limit the manager may go on with what it was asked.
async fn tell(tools: &Tools, program: &Path, args: Vec<String>, cx: &ActionCx) -> Result<Said, ActionError> {
    said(tools, program, args, |what| tools.settings.executions.run(cx, what, tools.time_left(cx))).await
}

async fn said<F>(tools: &Tools, program: &Path, args: Vec<String>, run: impl FnOnce(Invocation) -> F) -> Result<Said, ActionError>
where
    F: Future<Output = Result<Finished, ProgramError>>,
{
    let what = Invocation { program: program.to_owned(), args, env: vec![], cwd: PathBuf::from("/"), stdin: None };
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let done = run(what).await.map_err(|error| match error {
        ProgramError::NotStarted { .. } => {
            ActionError::Failed(format!("{error}; is it installed, and is its path right in the configuration?"))
        }
        ProgramError::NeverBegan => ActionError::NeverBegan(error.to_string()),
        ProgramError::Lost(problem) => ActionError::Unknown(problem),
    })?;
    let (out, err) = (done.stdout.show(&tools.settings.redactor), done.stderr.show(&tools.settings.redactor));
    let status = match done.how {
        How::Ended(status) => status,
        How::TimedOut | How::Stopped => {
            let seconds = done.took.as_secs_f64();
            return Err(ActionError::Unknown(format!("{name} did not answer in {seconds:.1} s; what it was asked may still happen")));
        }
    };
    let quote = last(if err.text.trim().is_empty() { &out.text } else { &err.text }, 1000).trim();
    let code = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
    Ok(Said { ok: status.success(), problem: format!("{name}: {code}: {quote}"), stdout: out.text })
}

fn of_child(name: &str, status: &ChildStatus) -> Status {
    let (state, line) = match (status.state, status.exit) {
        (ChildState::Running, _) => {
            (State::Running, format!("running as process {} for {} s", status.pid.unwrap_or_default(), status.uptime_s.unwrap_or_default()))
        }
        (ChildState::Stopped, _) => (State::Stopped, "stopped".to_owned()),
        (ChildState::Exited, Some(exit)) => (State::Failed, format!("{exit}, and was not stopped by Watchkeeper")),
        (ChildState::Exited, None) => (State::Failed, "ended by itself".to_owned()),
    };
    Status { state, summary: format!("{name}: {line}"), pid: status.pid, detail: json!(status) }
}

fn of_supervisor(error: SupervisorError) -> ActionError {
    match error {
        SupervisorError::Spec { .. } => ActionError::Refused(error.to_string()),
        SupervisorError::NotStopped(_) => ActionError::Unknown(error.to_string()),
        SupervisorError::NotStarted(_) | SupervisorError::InUse(_) | SupervisorError::Folder(..) => ActionError::Failed(error.to_string()),
    }
}
