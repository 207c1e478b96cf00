//! Commands that outlive the server. Each is carried out by a [shim](crate::shim) in a folder of its own; a server that starts again takes up what is under
//! way and what ended meanwhile.
//!
//! The order of things is the promise: a shim waits; its process id is stored with the attempt; only then it is told what to do, and it leaves a mark before
//! it does it. So an attempt without a stored process never began, one without the mark whose shim is gone never will, and any other is found again
//! by process id and start time, or by its result.
//!
//! A shim carries out one command after the other. So a process id means an execution only while that has no result; and who wants an execution of
//! another run to end says so in its folder: what its shim does instead by then is not touched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::action::ActionCx;
use domain::canonical::digest;
use domain::run::{Execution, Fence};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::folders::{self, Folders};
use crate::proc::{Stat, boot_id};
use crate::program::{Finished, Invocation, ProgramError};
use crate::shim::{self, Order};
use crate::shims::Shims;
use crate::{cgroup, live, proc, program};

/// The highest fence that was seen of each target.
const FENCES: &str = "fences.json";
/// How often a shim of an earlier start is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long the shims of earlier runs on a target get to end: the command's own grace, and some.
const OLDER_END: Duration = Duration::from_secs(20);

/// Starts shims, finds them again, keeps their results.
#[derive(Debug)]
pub struct Executions {
    folders: Folders,
    shims: Arc<Shims>,
    fences: Mutex<()>,
}

/// What is known of an execution besides its result.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    /// Its name. Shims of earlier versions know none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
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
        cgroup::tidy();
        Ok(Executions { folders: Folders::open(folder)?, shims: Shims::new(shim), fences: Mutex::default() })
    }

    /// Starts a shim ahead, for the first command. Who runs no commands needs none. Outside of a runtime it does nothing.
    pub fn get_ready(&self) {
        self.shims.make_spare();
    }

    /// Runs a command to its end, or takes up the one that `cx` says to resume. Dropping the future leaves the command alone; when the run is
    /// cancelled it is ended.
    pub(crate) async fn run(&self, cx: &ActionCx, what: Invocation, limit: Duration) -> Result<Finished, ProgramError> {
        let folder = self.folders.of(cx.resume.as_ref().map_or(&cx.execution, |known| &known.id));
        let watch = async {
            match &folder {
                Some(folder) => live::watch(folder, &*cx.host).await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            match &cx.resume {
                Some(known) => self.take_up(cx, known, &what).await,
                None => self.begin(cx, what, limit).await,
            }
        };
        tokio::select! {
            ended = ended => ended,
            never = watch => match never {},
        }
    }

    /// The names of all executions whose folders are there.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.folders.kept()
    }

    /// Lets go of an execution's folder.
    pub(crate) fn forget(&self, id: &str) {
        if let Some(folder) = self.folders.of(id) {
            self.folders.forget(&folder);
        }
    }

    /// The same for one of an earlier start for which nobody waits. While its shim lives it has not ended, or may still begin: it is asked to end, and
    /// its folder stays, so that a later run on its target sees it.
    pub(crate) fn give_up(&self, id: &str) {
        let Some(folder) = self.folders.of(id) else { return };
        let about = About::read(&folder).filter(|_| !shim::is_over(&folder));
        match about.as_ref().and_then(About::shim) {
            Some(shim) => {
                tracing::warn!(execution = id, "nobody waits for this command any more: it is ended");
                if let Err(error) = stop(&folder, shim) {
                    tracing::warn!(%error, execution = id, "it cannot be asked to end");
                }
            }
            None => {
                let Some(shim) = about.map(|about| about.pid) else { return self.folders.forget(&folder) };
                let left = remains(id, shim);
                if left.is_empty() {
                    return self.folders.forget(&folder);
                }
                tracing::warn!(
                    execution = id,
                    pids = pids(&left),
                    "its shim was killed and nobody waits for this command any more: it is ended"
                );
                let id = id.to_owned();
                tokio::spawn(proc::end_all(program::GRACE, move || remains(&id, shim)));
            }
        }
    }

    async fn begin(&self, cx: &ActionCx, what: Invocation, limit: Duration) -> Result<Finished, ProgramError> {
        let not_started = |error: io::Error| ProgramError::NotStarted { program: what.program.display().to_string(), error };
        let folder = self.folders.of(&cx.execution).ok_or_else(|| not_started(io::ErrorKind::InvalidInput.into()))?;
        self.take_over(cx).await.map_err(not_started)?;
        // Whatever is there was never told to do anything: no intent was stored for it, or its shim left no mark.
        self.forget(&cx.execution);
        self.folders.make(&folder).map_err(not_started)?;
        let boot = boot_id().map_err(not_started)?;
        let (program, digest) = (what.program.clone(), digest(&what).to_string());
        let not_started = |error: io::Error| ProgramError::NotStarted { program: program.display().to_string(), error };
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let order = shim::encode(&Order { folder: folder.clone(), what, limit_ms }).map_err(not_started)?;
        // One that waits may die before it hears of its order; then nothing has happened, and a new one gets it.
        for fresh in [false, true] {
            let mut shim = if fresh { self.shims.start() } else { self.shims.take() }.map_err(not_started)?;
            let about = About {
                id: Some(cx.execution.clone()),
                target: cx.target.as_ref().map(|target| target.name.clone()),
                fence: cx.fence,
                pid: shim.stat.pid,
                began: shim.stat.start,
            };
            folders::write_about(&folder, &about.encoded().map_err(not_started)?).map_err(not_started)?;
            if let (Some(target), Some(fence)) = (&cx.target, cx.fence) {
                // A later run that came meanwhile either is seen here or saw what was just written.
                self.raise(&target.name, fence).map_err(not_started)?;
            }
            let execution = Execution {
                id: cx.execution.clone(),
                boot: boot.clone(),
                pid: shim.stat.pid,
                began: shim.stat.start,
                digest: digest.clone(),
            };
            // From here on a crash leaves a stored attempt that is found by its shim.
            cx.host.intend(&execution).await.map_err(|problem| not_started(io::Error::other(problem)))?;
            shim.give(&order).await;
            let stat = shim.stat;
            let mut waits = false;
            let asked = self.until(cx, stat, async { waits = shim.ended(&folder).await }).await;
            // One that was asked to end does so, if not with this command then after it.
            if waits && !asked {
                self.shims.give_back(shim);
            }
            if !never_began(&folder) {
                return finished(&folder, &program);
            }
        }
        Err(not_started(io::Error::other("its shim ended before it began")))
    }

    async fn take_up(&self, cx: &ActionCx, known: &Execution, what: &Invocation) -> Result<Finished, ProgramError> {
        let lost = |problem: &str| ProgramError::Lost(problem.to_owned());
        let folder = self.folders.of(&known.id).ok_or_else(|| lost("its name is not one of ours"))?;
        if digest(what).to_string() != known.digest {
            return Err(lost("what was begun is not what the plan says now"));
        }
        let this_boot = boot_id().is_ok_and(|boot| boot == known.boot);
        // Without the folder its shim, if it lives, does something else by now.
        let ours = || About::read(&folder).is_some() && !shim::is_over(&folder);
        let under_way = || Stat::of(known.pid).filter(|now| this_boot && now.is(known.pid, known.began) && ours());
        if let Some(shim) = under_way() {
            let end = async {
                // It is no child of this process, so nobody tells.
                while under_way().is_some() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            self.until(cx, shim, end).await;
        }
        match finished(&folder, &what.program) {
            Err(ProgramError::Lost(_)) if !this_boot => Err(lost("the host was started anew while it was under way")),
            // Its order was never taken, and with its shim it is gone.
            Err(ProgramError::Lost(_)) if never_began(&folder) => Err(ProgramError::NeverBegan),
            Err(ProgramError::Lost(problem)) => {
                let left = About::read(&folder).map(|about| remains(&known.id, about.pid)).unwrap_or_default();
                let still = if left.is_empty() { String::new() } else { format!("; of its command there still runs {}", pids(&left)) };
                Err(ProgramError::Lost(problem + &still))
            }
            finished => finished,
        }
    }

    /// Until the execution has ended, which `end` tells. A cancelled run ends it, with its shim, which nobody gives another order meanwhile. Whether it did.
    async fn until(&self, cx: &ActionCx, shim: Stat, end: impl Future<Output = ()>) -> bool {
        tokio::pin!(end);
        tokio::select! {
            () = &mut end => return false,
            () = cx.host.cancelled() => shim.signal(Signal::TERM),
        }
        end.await;
        true
    }

    /// Notes the fence of a target. Files are not synced: what a power cut takes away, it takes from the shims too.
    fn raise(&self, target: &str, fence: Fence) -> io::Result<()> {
        let _one = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.folders.home().join(FENCES);
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
        let new = self.folders.home().join("fences.new");
        fs::write(&new, serde_json::to_vec(&fences)?)?;
        folders::put(&new, &file)
    }

    /// Before something else begins on a target: nobody who comes later with a lower fence begins on it, and what was under way has ended.
    pub(crate) async fn take_over(&self, cx: &ActionCx) -> io::Result<()> {
        if let (Some(target), Some(fence)) = (&cx.target, cx.fence) {
            self.raise(&target.name, fence)?;
        }
        self.end_older(cx).await
    }

    /// Ends what this run's earlier steps, and earlier runs on its target, still do; nothing begins before it is gone.
    async fn end_older(&self, cx: &ActionCx) -> io::Result<()> {
        let own = format!("{}-", cx.run);
        let target = cx.target.as_ref().map(|target| target.name.as_str()).zip(cx.fence);
        let late = |about: &About| {
            target.is_some_and(|(name, fence)| about.target.as_deref() == Some(name) && about.fence.is_none_or(|other| other < fence))
        };
        let older = |id: String| {
            let ours = id.starts_with(&own);
            // Of a command without a target nobody else's is older: many run at once, and none reads what the others are.
            let folder = self.folders.of(&id).filter(|_| id != cx.execution && (ours || target.is_some()))?;
            let about = About::read(&folder).filter(|about| ours || late(about)).filter(|_| !shim::is_over(&folder))?;
            Some((id, folder, about))
        };
        let ended = async {
            loop {
                let mut left = false;
                for (id, folder, about) in self.kept().into_iter().filter_map(older) {
                    match about.shim() {
                        Some(shim) => {
                            left = true;
                            stop(&folder, shim)?;
                        }
                        // Its shim was killed, so nobody else does it.
                        None if never_began(&folder) => {}
                        None => {
                            let find = move || remains(&id, about.pid);
                            left |= !proc::end_all(program::GRACE, find).await;
                        }
                    }
                }
                if !left {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let told = tokio::time::timeout(OLDER_END, ended).await;
        let on = target.map(|(name, _)| format!(" on {name}")).unwrap_or_default();
        told.map_err(|_| io::Error::other(format!("an earlier command{on} does not end: look at it on the host")))?
    }
}

impl About {
    fn encoded(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    fn read(folder: &Path) -> Option<About> {
        let own = |about: &About| about.id.as_ref().is_none_or(|id| folder.ends_with(id));
        folders::read_about(folder).filter(own)
    }

    /// Its shim, if that lives.
    fn shim(&self) -> Option<Stat> {
        Stat::of(self.pid).filter(|now| now.is(self.pid, self.began))
    }
}

/// Whether nothing of the execution ever happened, now that its shim is gone. Of a folder that is not whole nobody can say so.
fn never_began(folder: &Path) -> bool {
    shim::never_began(folder) && About::read(folder).is_some()
}

/// What is left of an execution whose shim was killed: whoever bears its mark, or is in the shim's control group still.
fn remains(id: &str, shim: i32) -> Vec<Stat> {
    let mark = format!("{}={id}", shim::MARK);
    // Somebody else may have got the shim's process id, and made a group by that name.
    let inside = if Stat::of(shim).is_none() { cgroup::left(&shim.to_string()) } else { vec![] };
    proc::all().into_iter().filter(|one| inside.contains(one) || proc::has_env(one.pid, &mark)).collect()
}

/// For people, who look at them on the host.
fn pids(all: &[Stat]) -> String {
    all.iter().map(|one| format!("process {}", one.pid)).collect::<Vec<_>>().join(", ")
}

/// Asks for the end of the execution in this folder, and only for that.
fn stop(folder: &Path, shim: Stat) -> io::Result<()> {
    shim::ask_to_stop(folder)?;
    shim.signal(shim::LOOK);
    Ok(())
}

fn finished(folder: &Path, program: &Path) -> Result<Finished, ProgramError> {
    match shim::read_result(folder, program) {
        Ok(Some(result)) => result,
        Ok(None) => Err(ProgramError::Lost("its shim ended without a result: somebody killed it, or the host was restarted".to_owned())),
        Err(error) => Err(ProgramError::Lost(format!("its result cannot be read: {error}"))),
    }
}
