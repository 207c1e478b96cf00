//! The life of one child: what is known of it, and the changes, one at a time.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, interval, sleep, timeout};

use super::child::{self, Process};
use super::record::Record;
use super::{ChildState, ChildStatus, Exit, Shared, Spec, SupervisorError, log};
use crate::output::last;
use crate::proc::{self, Stat};

/// The name of the mark in a child's environment.
const MARK: &str = "WATCHKEEPER_CHILD";
/// A child that ends sooner after its start has not started.
const SETTLE: Duration = Duration::from_millis(300);
/// A child that ran for so long may be started again at once.
const STEADY: Duration = Duration::from_secs(60);
/// The longest wait before a respawn.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How often the length of the log is looked at.
const LOG_LOOK: Duration = Duration::from_secs(15);

/// One target.
#[derive(Debug)]
pub(super) struct Slot {
    shared: Arc<Shared>,
    name: String,
    life: Mutex<Life>,
}

#[derive(Debug, Default)]
struct Life {
    /// Whether what earlier servers left has been looked for.
    looked: bool,
    state: State,
    /// Rises with every start and stop, so that who waited for an earlier process knows.
    turn: u64,
    restarts: u32,
    spec: Option<Spec>,
    pause: Duration,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Stopped,
    Running {
        stat: Stat,
        adopted: bool,
    },
    Exited(Exit),
}

impl Slot {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Slot {
        Slot { shared, name: name.to_owned(), life: Mutex::default() }
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.shared.folder.join(format!("{}.log", self.name))
    }

    pub(super) async fn status(self: Arc<Self>, spec: Spec) -> ChildStatus {
        let mut life = self.life.lock().await;
        self.look(&mut life, spec);
        life.status()
    }

    pub(super) async fn ensure(self: Arc<Self>, spec: Spec) -> Result<ChildStatus, SupervisorError> {
        let mut life = self.life.lock().await;
        self.look(&mut life, spec.clone());
        if !matches!(life.state, State::Running { .. }) {
            self.start(&mut life, spec).await?;
        }
        Ok(life.status())
    }

    pub(super) async fn restart(self: Arc<Self>, spec: Spec) -> Result<ChildStatus, SupervisorError> {
        let mut life = self.life.lock().await;
        self.look(&mut life, spec.clone());
        life.pause = Duration::ZERO;
        // A start ends what is there first.
        self.start(&mut life, spec).await?;
        life.restarts += 1;
        Ok(life.status())
    }

    pub(super) async fn stop(self: Arc<Self>, grace: Duration) -> Result<ChildStatus, SupervisorError> {
        let mut life = self.life.lock().await;
        life.looked = true;
        self.end(&mut life, grace).await?;
        Ok(life.status())
    }

    pub(super) async fn stop_as_known(self: Arc<Self>) -> Result<ChildStatus, SupervisorError> {
        let grace = self.life.lock().await.spec.as_ref().map_or(Duration::from_secs(10), Spec::grace);
        self.stop(grace).await
    }

    /// Adopts the recorded child, if it lives. Once per server.
    fn look(self: &Arc<Self>, life: &mut Life, spec: Spec) {
        if std::mem::replace(&mut life.looked, true) {
            return;
        }
        if let Some(stat) = Record::read(&self.record_file()).and_then(|record| record.living()) {
            tracing::info!(process = %self.name, pid = stat.pid, "adopted a child of an earlier server");
            life.spec = Some(spec);
            life.state = State::Running { stat, adopted: true };
            life.turn += 1;
            tokio::spawn(watch_over(Arc::downgrade(self), Process::Adopted(stat), life.turn, watch::channel(None).0, self.log_file()));
        }
    }

    /// Ends whatever is left of it, then starts it and sees that it lives on.
    async fn start(self: &Arc<Self>, life: &mut Life, spec: Spec) -> Result<(), SupervisorError> {
        self.end(life, spec.grace()).await?;
        let failed = |problem: String| SupervisorError::NotStarted(format!("target {:?} did not start: {problem}", self.name));
        let mark = self.mark();
        let (child, stat) =
            child::spawn(&spec, (MARK, &mark), &self.log_file()).map_err(|error| failed(format!("{}: {error}", spec.program.display())))?;
        let recorded = Record::of(&self.name, &stat).and_then(|record| record.write(&self.record_file()));
        let (tell, mut told) = watch::channel(None);
        life.turn += 1;
        life.spec = Some(spec);
        life.state = State::Running { stat, adopted: false };
        tokio::spawn(watch_over(Arc::downgrade(self), Process::Own(Box::new(child)), life.turn, tell, self.log_file()));
        if let Err(error) = recorded {
            // Unrecorded, it could not be adopted later: rather none.
            self.end(life, Duration::ZERO).await?;
            return Err(SupervisorError::Folder(self.record_file(), error));
        }
        if let Ok(Ok(exit)) = timeout(SETTLE, told.wait_for(Option::is_some)).await.map(|seen| seen.map(|exit| *exit)) {
            let exit = exit.unwrap_or(Exit::Unseen);
            // Who watches over it sees this state too, and respawns it if the target says so.
            life.state = State::Exited(exit);
            let output = log::tail(&self.log_file(), 2000).unwrap_or_default();
            let output = String::from_utf8_lossy(&output);
            return Err(failed(format!("it ended at once ({exit}). Its log ends with:\n{}", last(output.trim_end(), 1500))));
        }
        Ok(())
    }

    /// Ends the child with all that it started, and what earlier servers may have left of it.
    async fn end(self: &Arc<Self>, life: &mut Life, grace: Duration) -> Result<(), SupervisorError> {
        life.turn += 1;
        let (mark, record) = (format!("{MARK}={}", self.mark()), Record::read(&self.record_file()));
        let find = move || -> Vec<Stat> {
            let ours =
                |process: &Stat| record.as_ref().is_some_and(|record| record.has_member(process)) || proc::has_env(process.pid, &mark);
            proc::all().into_iter().filter(ours).collect()
        };
        if !proc::end_all(grace, find).await {
            return Err(SupervisorError::NotStopped(format!(
                "target {:?} does not end, not even by SIGKILL: look at it on the host",
                self.name
            )));
        }
        life.state = State::Stopped;
        match fs::remove_file(self.record_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SupervisorError::Folder(self.record_file(), error)),
            _ => Ok(()),
        }
    }

    fn record_file(&self) -> PathBuf {
        self.shared.folder.join(format!("{}.json", self.name))
    }

    fn mark(&self) -> String {
        format!("{}/{}", self.shared.id, self.name)
    }
}

impl Life {
    fn status(&self) -> ChildStatus {
        let (state, stat, exit, adopted) = match &self.state {
            State::Stopped => (ChildState::Stopped, None, None, false),
            State::Running { stat, adopted } => (ChildState::Running, Some(stat), None, *adopted),
            State::Exited(exit) => (ChildState::Exited, None, Some(*exit), false),
        };
        let uptime_s = stat.and_then(Stat::age).map(|age| age.as_secs());
        ChildStatus { state, pid: stat.map(|stat| stat.pid), uptime_s, exit, restarts: self.restarts, adopted }
    }
}

/// Waits for a child's end, notes it, and starts it again where its target says so. It keeps neither folder nor slot alive.
///
/// Boxed, because a respawn starts a watch of its own.
fn watch_over(
    slot: Weak<Slot>,
    mut process: Process,
    turn: u64,
    tell: watch::Sender<Option<Exit>>,
    log_file: PathBuf,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let began = Instant::now();
        let mut look = interval(LOG_LOOK);
        let exit = loop {
            tokio::select! {
                exit = process.ended() => break exit,
                _ = look.tick() => if let Err(error) = log::cut(&log_file) {
                    tracing::warn!(%error, file = %log_file.display(), "a child's log cannot be cut");
                },
            }
        };
        tell.send_replace(Some(exit));
        if let Some(slot) = slot.upgrade() {
            let mut life = slot.life.lock().await;
            if life.turn != turn {
                return;
            }
            tracing::warn!(process = %slot.name, %exit, "a supervised child ended by itself");
            life.state = State::Exited(exit);
            if began.elapsed() >= STEADY {
                life.pause = Duration::ZERO;
            }
        }
        respawn(&slot, turn).await;
    })
}

/// Starts an ended child again where its target says so, until it is there or somebody else has decided about it.
async fn respawn(slot: &Weak<Slot>, mut turn: u64) {
    loop {
        let Some(strong) = slot.upgrade() else { return };
        let pause = {
            let mut life = strong.life.lock().await;
            if life.turn != turn || !life.spec.as_ref().is_some_and(|spec| spec.respawn) {
                return;
            }
            life.pause = (life.pause * 2).clamp(Duration::from_secs(1), MAX_PAUSE);
            life.pause
        };
        drop(strong);
        sleep(pause).await;
        let Some(slot) = slot.upgrade() else { return };
        let mut life = slot.life.lock().await;
        let Some(spec) = life.spec.clone().filter(|_| life.turn == turn) else { return };
        let started = slot.start(&mut life, spec).await;
        if let Err(error) = &started {
            tracing::warn!(process = %slot.name, %error, "a supervised child does not come back");
        }
        if started.is_ok() || matches!(life.state, State::Exited(_)) {
            // It came to life, if only for a moment: the watch over the new process goes on from here.
            life.restarts += 1;
            return;
        }
        turn = life.turn;
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with {code}"),
            Exit::Signal(signal) => write!(f, "killed by signal {signal}"),
            Exit::Unseen => f.write_str("ended"),
        }
    }
}
