//! Commands that outlive the server. Each is carried out by a [shim](crate::shim) of its own in a folder of its own; a server that starts again takes
//! up what is under way and what ended meanwhile.
//!
//! The order of things is the promise: the shim is started and waits; its process id is stored with the attempt; only then it is told what to do. So
//! an attempt without a stored process never began, and one with it is found again by process id and start time, or by its result.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::action::ActionCx;
use domain::canonical::digest;
use domain::run::{Execution, Fence};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::proc::{Stat, boot_id};
use crate::program::{ENVIRONMENT, Finished, Invocation, ProgramError};
use crate::shim::{self, Order};

/// The highest fence that was seen of each target.
const FENCES: &str = "fences.json";
/// Who an execution is, in its folder.
const ABOUT: &str = "about.json";
/// How often a shim of an earlier start is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long the shims of earlier runs on a target get to end: the command's own grace, and some.
const OLDER_END: Duration = Duration::from_secs(20);

/// Starts shims, finds them again, keeps their results.
#[derive(Debug)]
pub struct Executions {
    folder: PathBuf,
    shim: Vec<OsString>,
    fences: Mutex<()>,
}

/// What is known of an execution besides its result.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    target: Option<String>,
    fence: Option<Fence>,
    pid: i32,
    began: u64,
}

impl Executions {
    /// Keeps executions in this folder. `shim` is the program, and its arguments, that calls [`crate::shim::run`].
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: &Path, shim: Vec<OsString>) -> io::Result<Executions> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Executions { folder: folder.to_owned(), shim, fences: Mutex::default() })
    }

    /// Runs a command to its end, or takes up the one that `cx` says to resume. Dropping the future leaves the command alone; when the run is
    /// cancelled it is ended.
    pub(crate) async fn run(&self, cx: &ActionCx, what: Invocation, limit: Duration) -> Result<Finished, ProgramError> {
        match &cx.resume {
            Some(known) => self.take_up(cx, known, &what).await,
            None => self.begin(cx, what, limit).await,
        }
    }

    /// The names of all executions whose folders are there.
    pub(crate) fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes an execution's folder.
    pub(crate) fn forget(&self, id: &str) {
        if let Some(folder) = self.folder_of(id)
            && let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %folder.display(), "an execution's folder cannot be removed");
        }
    }

    async fn begin(&self, cx: &ActionCx, what: Invocation, limit: Duration) -> Result<Finished, ProgramError> {
        let not_started = |error: io::Error| ProgramError::NotStarted { program: what.program.display().to_string(), error };
        let folder = self.folder_of(&cx.execution).ok_or_else(|| not_started(io::ErrorKind::InvalidInput.into()))?;
        if let (Some(target), Some(fence)) = (&cx.target, cx.fence) {
            self.raise(&target.name, fence).map_err(not_started)?;
            self.end_older(&target.name, fence).await.map_err(not_started)?;
        }
        // Whatever is there was never told to do anything: no intent was stored for it.
        self.forget(&cx.execution);
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(not_started)?;
        let (mut child, stat) = self.spawn().map_err(not_started)?;
        let about =
            About { target: cx.target.as_ref().map(|target| target.name.clone()), fence: cx.fence, pid: stat.pid, began: stat.start };
        let told = about.write(&folder);
        let boot = boot_id().map_err(not_started)?;
        told.map_err(not_started)?;
        let execution = Execution { id: cx.execution.clone(), boot, pid: stat.pid, began: stat.start, digest: digest(&what).to_string() };
        // From here on a crash leaves a stored attempt that is found by its shim.
        cx.host.intend(&execution).await.map_err(|problem| not_started(io::Error::other(problem)))?;
        let program = what.program.clone();
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let order = shim::encode(&Order { folder: folder.clone(), what, limit_ms });
        let given = async {
            let mut pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            pipe.write_all(&order?).await
        };
        // A shim that did not get all of its order does nothing.
        given.await.map_err(|error| ProgramError::NotStarted { program: program.display().to_string(), error })?;
        let end = async {
            // How the shim ended says nothing: its result does.
            drop(child.wait().await);
        };
        self.until(cx, stat, end).await;
        finished(&folder, &program)
    }

    async fn take_up(&self, cx: &ActionCx, known: &Execution, what: &Invocation) -> Result<Finished, ProgramError> {
        let lost = |problem: &str| ProgramError::Lost(problem.to_owned());
        let folder = self.folder_of(&known.id).ok_or_else(|| lost("its name is not one of ours"))?;
        if digest(what).to_string() != known.digest {
            return Err(lost("what was begun is not what the plan says now"));
        }
        let this_boot = boot_id().is_ok_and(|boot| boot == known.boot);
        if let Some(shim) = Stat::of(known.pid).filter(|stat| this_boot && stat.is(known.pid, known.began)) {
            let end = async {
                // It is no child of this process, so nobody tells.
                while Stat::of(shim.pid).is_some_and(|now| now.is(shim.pid, shim.start)) {
                    tokio::time::sleep(LOOK).await;
                }
            };
            self.until(cx, shim, end).await;
        }
        match finished(&folder, &what.program) {
            Err(ProgramError::Lost(_)) if !this_boot => Err(lost("the host was started anew while it was under way")),
            finished => finished,
        }
    }

    /// Until the shim has ended, which `end` tells. A cancelled run ends it.
    async fn until(&self, cx: &ActionCx, shim: Stat, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        tokio::select! {
            () = &mut end => return,
            () = cx.host.cancelled() => shim.signal(Signal::TERM),
        }
        end.await;
    }

    fn spawn(&self) -> io::Result<(Child, Stat)> {
        let (program, args) = self.shim.split_first().ok_or(io::ErrorKind::NotFound)?;
        #[expect(clippy::disallowed_methods, reason = "the one home of starting shims: our own program, nothing in its environment")]
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(ENVIRONMENT).current_dir("/");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or(io::ErrorKind::NotFound)?;
        // It is not reaped, so its id is its own.
        match Stat::of(pid) {
            Some(stat) => Ok((child, stat)),
            None => {
                drop(child.stdin.take());
                Err(io::Error::other("the shim cannot be found in /proc"))
            }
        }
    }

    /// Notes the fence of a target. Files are not synced: what a power cut takes away, it takes from the shims too.
    fn raise(&self, target: &str, fence: Fence) -> io::Result<()> {
        let _one = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.folder.join(FENCES);
        let mut fences: BTreeMap<String, Fence> = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        match fences.get(target) {
            Some(seen) if *seen > fence => {
                return Err(io::Error::other(format!("a later run has {target}: its fence is {seen}, this one's {fence}")));
            }
            Some(seen) if *seen == fence => return Ok(()),
            _ => {}
        }
        fences.insert(target.to_owned(), fence);
        let new = self.folder.join("fences.new");
        fs::write(&new, serde_json::to_vec(&fences)?)?;
        fs::rename(new, file)
    }

    /// Ends what earlier runs still do on a target; nothing begins before it is gone.
    async fn end_older(&self, target: &str, fence: Fence) -> io::Result<()> {
        let older = || {
            let about = |id: String| About::read(&self.folder.join(id)).filter(|about| about.target.as_deref() == Some(target));
            let late = |about: &About| about.fence.is_none_or(|other| other < fence);
            let alive = |about: About| Stat::of(about.pid).filter(|stat| stat.is(about.pid, about.began));
            self.kept().into_iter().filter_map(about).filter(late).filter_map(alive).collect::<Vec<Stat>>()
        };
        let ended = async {
            loop {
                let left = older();
                if left.is_empty() {
                    return;
                }
                left.iter().for_each(|shim| shim.signal(Signal::TERM));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let told = tokio::time::timeout(OLDER_END, ended).await;
        told.map_err(|_| io::Error::other(format!("an earlier run's command on {target} does not end: look at it on the host")))
    }

    /// Names come from ids of ours; anything else is refused, not cleaned.
    fn folder_of(&self, id: &str) -> Option<PathBuf> {
        let fits = !id.is_empty() && id.len() <= 100 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        fits.then(|| self.folder.join(id))
    }
}

impl About {
    fn write(&self, folder: &Path) -> io::Result<()> {
        let new = folder.join("about.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, folder.join(ABOUT))
    }

    fn read(folder: &Path) -> Option<About> {
        serde_json::from_slice(&fs::read(folder.join(ABOUT)).ok()?).ok()
    }
}

fn finished(folder: &Path, program: &Path) -> Result<Finished, ProgramError> {
    match shim::read_result(folder, program) {
        Ok(Some(result)) => result,
        Ok(None) => Err(ProgramError::Lost("its shim ended without a result: somebody killed it, or the host was restarted".to_owned())),
        Err(error) => Err(ProgramError::Lost(format!("its result cannot be read: {error}"))),
    }
}
