//! Tests of the actions against real processes, a real HTTP server on loopback, and stand-ins for programs that need an engine.

mod command;
mod egress;
mod http;
mod library;
mod server;
mod service;
mod shim;
mod shims;
mod stuck;
mod supervisor;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::action::{Action, ActionCatalogue, ActionCx, ActionError, ActionOutput, Effect, RunHost};
use domain::duration::Dur;
use domain::id::RunId;
use domain::plan::Target;
use domain::redact::Redactor;
use domain::run::Execution;
use domain::time::{Clock, SystemClock};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::proc::Stat;
use crate::{Executions, Library, Settings, Supervisor};

/// A secret that the redactor knows.
const SECRET: &str = "hunter2-but-longer";

/// A library over a folder of its own.
struct World {
    dir: TempDir,
    library: Library,
    supervisor: Arc<Supervisor>,
    notes: Arc<Notes>,
}

/// What actions told their run.
#[derive(Default)]
struct Notes {
    told: Mutex<Vec<(String, String)>>,
    intended: Mutex<Vec<Execution>>,
    /// The intent cannot be stored.
    forgetful: AtomicBool,
    /// What becomes of the shims that are stored, one after the other; nothing when there is no more.
    fates: Mutex<Vec<Fate>>,
    cancel: Notify,
}

/// What happens between the moment at which a shim is stored and its order.
enum Fate {
    /// Somebody kills it.
    Killed,
    /// The server gets no further.
    Forsaken,
    /// Somebody stops it.
    Stopped,
    /// Both.
    StoppedAndForsaken,
}

#[async_trait]
impl RunHost for Notes {
    async fn notify(&self, channel: &str, text: &str) -> Result<(), String> {
        if channel != "ops" {
            return Err(format!("there is no channel {channel:?}"));
        }
        self.told.lock().unwrap().push((channel.to_owned(), text.to_owned()));
        Ok(())
    }

    async fn intend(&self, execution: &Execution) -> Result<(), String> {
        if self.forgetful.load(Ordering::SeqCst) {
            return Err("the store is away".to_owned());
        }
        self.intended.lock().unwrap().push(execution.clone());
        let fate = self.fates.lock().unwrap().pop();
        match fate {
            Some(Fate::Killed) => Stat::of(execution.pid).unwrap().signal(rustix::process::Signal::KILL),
            Some(Fate::Forsaken) => std::future::pending().await,
            Some(Fate::Stopped) => stop(execution.pid).await,
            Some(Fate::StoppedAndForsaken) => {
                stop(execution.pid).await;
                std::future::pending().await
            }
            None => {}
        }
        Ok(())
    }

    async fn cancelled(&self) {
        self.cancel.notified().await;
    }
}

/// Stops a shim, and waits until each of its threads stands still. Our stand-in says something before it is a shim, for which somebody must be there.
async fn stop(pid: i32) {
    until("it is a shim", || Stat::of(pid).is_some_and(|shim| shim.session == pid)).await;
    Stat::of(pid).unwrap().signal(rustix::process::Signal::STOP);
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|thread| thread.path().join("stat"));
    let stands = |stat: PathBuf| std::fs::read_to_string(stat).is_ok_and(|line| line.contains(") T "));
    until("it stands still", || threads().all(stands)).await;
}

impl World {
    async fn new() -> World {
        World::with(|_, _| {}).await
    }

    async fn with(change: impl FnOnce(&Path, &mut Settings)) -> World {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Arc::new(Supervisor::open(&dir.path().join("children")).await.unwrap());
        let mut settings = Settings {
            programs: ["/bin/sh", "/bin/sleep", "/usr/bin/printf", "/usr/bin/env", "/bin/cat"].map(PathBuf::from).into(),
            systemctl: dir.path().join("systemctl"),
            docker: dir.path().join("docker"),
            egress: vec!["127.0.0.1:*".parse().unwrap()],
            supervisor: supervisor.clone(),
            executions: Arc::new(Executions::open(&dir.path().join("executions"), shim::stand_in()).unwrap()),
            clock: Arc::new(SystemClock),
            redactor: Arc::new(Redactor::new([SECRET]).unwrap()),
        };
        change(dir.path(), &mut settings);
        World { library: Library::new(settings), dir, supervisor, notes: Arc::default() }
    }

    fn action(&self, name: &str) -> &dyn Action {
        self.library.get(name).unwrap()
    }

    fn cx(&self, target: Option<&Target>, timeout: Duration) -> ActionCx {
        ActionCx {
            run: RunId::new(SystemClock.now()),
            step: "it".to_owned(),
            attempt: 1,
            idempotency_key: "key-1".to_owned(),
            execution: format!("{}-0-1", RunId::new(SystemClock.now())),
            effect: Effect::AtMostOnce,
            fence: None,
            resume: None,
            target: target.cloned(),
            deadline: SystemClock.now() + Dur::from_std(timeout),
            host: self.notes.clone(),
        }
    }

    async fn run(&self, name: &str, with: Value) -> Result<ActionOutput, ActionError> {
        self.run_on(name, with, None, Duration::from_secs(30)).await
    }

    async fn run_on(&self, name: &str, with: Value, target: Option<&Target>, timeout: Duration) -> Result<ActionOutput, ActionError> {
        self.action(name).run(&self.cx(target, timeout), &with).await
    }
}

fn target(name: &str, kind: &str, fields: Value) -> Target {
    let fields: BTreeMap<String, Value> = fields.as_object().unwrap().clone().into_iter().collect();
    Target { name: name.to_owned(), kind: kind.to_owned(), fields }
}

/// Writes an executable script.
fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    // Renamed into place: a file that is open for writing, even in a process that was forked meanwhile, cannot be run.
    let new = dir.join(format!("{name}.new"));
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, &path).unwrap();
    path
}

/// Polls until it holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    // Long, because other tests share the machine; no test waits for it to be over.
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not so after a minute: {what}");
}

/// How many processes live that were started with this in their environment.
fn living(entry: &str) -> usize {
    crate::proc::all().iter().filter(|process| crate::proc::has_env(process.pid, entry)).count()
}

/// The problem of a failed outcome.
#[track_caller]
fn failed(outcome: Result<ActionOutput, ActionError>) -> String {
    match outcome {
        Err(ActionError::Failed(problem)) => problem,
        other => panic!("not Failed: {other:?}"),
    }
}

#[track_caller]
fn refused(outcome: Result<ActionOutput, ActionError>) -> String {
    match outcome {
        Err(ActionError::Refused(problem)) => problem,
        other => panic!("not Refused: {other:?}"),
    }
}

#[track_caller]
fn unknown(outcome: Result<ActionOutput, ActionError>) -> String {
    match outcome {
        Err(ActionError::Unknown(problem)) => problem,
        other => panic!("not Unknown: {other:?}"),
    }
}

fn nothing() -> Value {
    json!({})
}
