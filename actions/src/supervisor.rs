//! Watchkeeper's own supervised children, the targets of kind `process`: started, watched, restarted and stopped, and never two of one.
//!
//! A child lives in its own process group and writes to a log file, so it outlives a server that is killed. What is known of it stands in
//! three places, so that the next server finds it whatever the moment of death:
//! - a record in the folder: its pid and start time on this boot. It is written right after the spawn, without fsync: what loses the
//!   page cache loses the children too;
//! - a mark in its environment, which its descendants inherit: it covers the moment between spawn and record;
//! - the lock on the folder: a process that is forked but has not yet become the program holds it too, so once the lock is ours, every
//!   child of an earlier server carries its mark.
//!
//! The recorded child that still lives is adopted. Everything else that is marked ends before a new one starts.

mod child;
mod life;
mod log;
mod record;
mod spec;

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::plan::Target;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use life::Slot;
pub(crate) use log::tail;
pub use spec::Spec;

/// How long another server may take to let go of the folder.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Starts and watches the children of one folder. Dropping it ends nothing: the next one adopts.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// What all children share.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// Tells this folder apart from every other on this kernel, also from the same path in a container.
    id: String,
    /// Held as long as anybody works on the folder.
    _lock: File,
}

/// What is known of a child.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChildStatus {
    /// Where it is in its life.
    pub state: ChildState,
    /// Its process, where it runs.
    pub pid: Option<i32>,
    /// Since when, in seconds.
    pub uptime_s: Option<u64>,
    /// How it ended, where that is known.
    pub exit: Option<Exit>,
    /// How often this server has started it again.
    pub restarts: u32,
    /// Whether an earlier server started it.
    pub adopted: bool,
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// Never started, or stopped on request.
    Stopped,
    /// Alive.
    Running,
    /// It ended by itself.
    Exited,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// An adopted child ended: only its parent could have been told how.
    Unseen,
}

/// What went wrong with a child.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Another server works on this folder.
    #[error("{0} is in use by another Watchkeeper: stop it first, or give this one a folder of its own")]
    InUse(PathBuf),
    /// The target says something impossible.
    #[error("target {target:?}: {problem}")]
    Spec {
        /// Its name.
        target: String,
        /// What is wrong.
        problem: String,
    },
    /// It did not start, or ended at once. It does not run.
    #[error("{0}")]
    NotStarted(String),
    /// Something of it does not end, not even by SIGKILL.
    #[error("{0}")]
    NotStopped(String),
    /// The folder cannot be read or written.
    #[error("{0}: {1}")]
    Folder(PathBuf, std::io::Error),
}

impl Supervisor {
    /// Takes a folder, which is made if need be, and locks it for this process.
    ///
    /// # Errors
    /// If the folder cannot be written or another server holds it.
    pub async fn open(folder: &Path) -> Result<Supervisor, SupervisorError> {
        let fail = |error| SupervisorError::Folder(folder.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
        let folder = folder.canonicalize().map_err(fail)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock")).map_err(fail)?;
        let give_up = Instant::now() + LOCK_WAIT;
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(fail(error.into()));
            }
            if Instant::now() >= give_up {
                return Err(SupervisorError::InUse(folder));
            }
            sleep(Duration::from_millis(20)).await;
        }
        let about = lock.metadata().map_err(fail)?;
        let id = format!("{:x}-{:x}", about.dev(), about.ino());
        Ok(Supervisor { shared: Arc::new(Shared { folder, id, _lock: lock }), slots: Mutex::default() })
    }

    /// Makes sure that it runs: adopts what an earlier server left, or starts it. For every such target when the server starts.
    ///
    /// # Errors
    /// See [`SupervisorError`].
    pub async fn ensure(&self, target: &Target) -> Result<ChildStatus, SupervisorError> {
        let (slot, spec) = self.slot(target)?;
        whole(async move { slot.ensure(spec).await }).await
    }

    /// Stops it (TERM, and KILL after its grace) and starts it again; starts it if it does not run. Success means that it lived on for a moment.
    ///
    /// It is carried through even if nobody waits for it any more: half a restart is an outage.
    ///
    /// # Errors
    /// See [`SupervisorError`].
    pub async fn restart(&self, target: &Target) -> Result<ChildStatus, SupervisorError> {
        let (slot, spec) = self.slot(target)?;
        whole(async move { slot.restart(spec).await }).await
    }

    /// Stops it, with everything that it started.
    ///
    /// # Errors
    /// See [`SupervisorError`].
    pub async fn stop(&self, target: &Target) -> Result<ChildStatus, SupervisorError> {
        let (slot, spec) = self.slot(target)?;
        whole(async move { slot.stop(spec.grace()).await }).await
    }

    /// What is known of it. It starts nothing.
    ///
    /// # Errors
    /// See [`SupervisorError`].
    pub async fn status(&self, target: &Target) -> Result<ChildStatus, SupervisorError> {
        let (slot, spec) = self.slot(target)?;
        Ok(slot.status(spec).await)
    }

    /// Stops all children that this server has seen, each within its grace: for a demo or a host that goes down. A server that is only
    /// restarted leaves them running.
    ///
    /// # Errors
    /// The first that did not end.
    pub async fn stop_all(&self) -> Result<(), SupervisorError> {
        let slots: Vec<Arc<Slot>> = self.slots.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let ends: Vec<_> = slots.into_iter().map(|slot| tokio::spawn(async move { slot.stop_as_known().await })).collect();
        let mut first = Ok(());
        for end in ends {
            let end = end.await.unwrap_or_else(|error| Err(SupervisorError::NotStopped(error.to_string())));
            first = first.and(end.map(drop));
        }
        first
    }

    /// Where a target's output goes; the part before the last cut has `.1` behind its name.
    ///
    /// # Errors
    /// If the target's name cannot be a file name.
    pub fn log_file(&self, target: &Target) -> Result<PathBuf, SupervisorError> {
        Ok(self.slot(target)?.0.log_file())
    }

    /// Whether a target can be supervised: its kind, its name as a file name, its fields. For checks before anything runs.
    ///
    /// # Errors
    /// Always [`SupervisorError::Spec`], which says what is wrong.
    pub fn check(target: &Target) -> Result<Spec, SupervisorError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if target.name.is_empty() || target.name.len() > 100 || target.name.starts_with('.') || !target.name.chars().all(fits) {
            let problem = "a process is named with letters, digits, `.`, `_` and `-`, at most 100 of them".to_owned();
            return Err(SupervisorError::Spec { target: target.name.clone(), problem });
        }
        Spec::of(target).map_err(|problem| SupervisorError::Spec { target: target.name.clone(), problem })
    }

    fn slot(&self, target: &Target) -> Result<(Arc<Slot>, Spec), SupervisorError> {
        let spec = Supervisor::check(target)?;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(target.name.clone()).or_insert_with(|| Arc::new(Slot::new(self.shared.clone(), &target.name)));
        Ok((slot.clone(), spec))
    }
}

/// Runs to its end even if the caller is dropped.
async fn whole<T: Send + 'static>(work: impl Future<Output = Result<T, SupervisorError>> + Send + 'static) -> Result<T, SupervisorError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(SupervisorError::NotStarted(format!("the supervisor failed: {error}"))))
}
