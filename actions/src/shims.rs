//! Shims that wait for an order, so that a command need not wait for a process of the server's size to start.
//!
//! A shim that waits knows nothing and has done nothing since its last result: it can be lost at any time. It ends when the server does, by the end of
//! its orders.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::proc::Stat;
use crate::program::ENVIRONMENT;
use crate::shim;

/// So many wait at most: as many as runs are carried forward at once, else each of many quick commands would start one and end one.
const MOST: usize = 32;
/// So many wait however long nothing is to do; the others go when they have waited for `PATIENCE`.
const FEW: usize = 2;
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked for those that go.
const TRIM: Duration = Duration::from_secs(10);

/// Starts shims and keeps those that wait.
#[derive(Debug)]
pub(crate) struct Shims {
    start: Vec<OsString>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Who came last goes first.
    shims: Vec<Shim>,
    /// A spare one is being made.
    making: bool,
    /// Somebody sees to it that those that are too many go.
    trimming: bool,
}

/// One shim. Without it the shim gets no more orders: it carries out what it has, and ends.
#[derive(Debug)]
pub(crate) struct Shim {
    child: Child,
    orders: Option<ChildStdin>,
    says: Lines<BufReader<ChildStdout>>,
    since: Instant,
    /// The process.
    pub(crate) stat: Stat,
}

impl Shims {
    /// Shims of this program and arguments.
    pub(crate) fn new(start: Vec<OsString>) -> Arc<Shims> {
        Arc::new(Shims { start, waiting: Mutex::default() })
    }

    /// One that waits, or a new one.
    ///
    /// # Errors
    /// If none can be started.
    pub(crate) fn take(self: &Arc<Self>) -> io::Result<Shim> {
        let (found, last) = {
            let mut waiting = self.lock();
            let found = std::iter::from_fn(|| waiting.shims.pop()).find_map(Shim::alive);
            (found, waiting.shims.is_empty())
        };
        if last {
            self.make_spare();
        }
        found.map_or_else(|| self.start(), Ok)
    }

    /// Keeps one that has said that it waits.
    pub(crate) fn give_back(self: &Arc<Self>, mut shim: Shim) {
        shim.since = Instant::now();
        let mut waiting = self.lock();
        // One too many ends with its orders.
        if waiting.shims.len() < MOST {
            waiting.shims.push(shim);
        }
        if waiting.shims.len() > FEW && !std::mem::replace(&mut waiting.trimming, true) {
            tokio::spawn(trim(Arc::downgrade(self)));
        }
    }

    /// A new one.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(&self) -> io::Result<Shim> {
        let (program, args) = self.start.split_first().ok_or(io::ErrorKind::NotFound)?;
        #[expect(clippy::disallowed_methods, reason = "the one home of starting shims: our own program, nothing in its environment")]
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(ENVIRONMENT).current_dir("/");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or(io::ErrorKind::NotFound)?;
        // It is not reaped, so its id is its own.
        let stat = Stat::of(pid).ok_or_else(|| io::Error::other("the shim cannot be found in /proc"))?;
        let says = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Shim { orders: child.stdin.take(), child, says: BufReader::new(says).lines(), since: Instant::now(), stat })
    }

    /// Starts one in the background, unless that is being done.
    pub(crate) fn make_spare(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if std::mem::replace(&mut self.lock().making, true) {
            return;
        }
        let this = Arc::clone(self);
        runtime.spawn_blocking(move || {
            let made = this.start();
            this.lock().making = false;
            match made {
                Ok(shim) => this.give_back(shim),
                Err(error) => tracing::warn!(%error, "no shim can be started ahead: the next command tries again"),
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets those go that have waited for long, until only a few are left.
async fn trim(shims: Weak<Shims>) {
    loop {
        tokio::time::sleep(TRIM).await;
        let Some(shims) = shims.upgrade() else { return };
        let mut waiting = shims.lock();
        waiting.trim();
        if waiting.shims.len() <= FEW {
            waiting.trimming = false;
            return;
        }
    }
}

impl Waiting {
    fn trim(&mut self) {
        // The oldest are in front.
        let late = self.shims.iter().take_while(|shim| shim.since.elapsed() >= PATIENCE).count();
        self.shims.drain(..late.min(self.shims.len().saturating_sub(FEW)));
    }
}

impl Shim {
    /// Gives it an order. Whether it took it its folder tells; what could not be given whole is none.
    pub(crate) async fn give(&mut self, order: &[u8]) {
        let given = match &mut self.orders {
            Some(orders) => orders.write_all(order).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if given.is_err() {
            // Half an order is followed by nothing.
            self.orders = None;
        }
    }

    /// Until the execution in this folder has ended or the shim has. Whether it waits for another order.
    pub(crate) async fn ended(&mut self, folder: &Path) -> bool {
        let said = shim::said(folder);
        while let Ok(Some(line)) = self.says.next_line().await {
            if line == said && self.orders.is_some() {
                return true;
            }
        }
        // How it ended says nothing: the folder does.
        drop(self.child.wait().await);
        false
    }

    fn alive(mut self) -> Option<Shim> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_many_wait_and_only_a_few_for_long() {
        // It ends with its input too.
        let shims = Shims::new(vec!["/bin/cat".into()]);
        let all: Vec<Shim> = (0..MOST + 3).map(|_| shims.start().unwrap()).collect();
        let pids: Vec<i32> = all.iter().map(|shim| shim.stat.pid).collect();
        all.into_iter().for_each(|shim| shims.give_back(shim));
        let living = || pids.iter().filter(|pid| Stat::of(**pid).is_some_and(|stat| stat.alive())).count();
        crate::tests::until("those that are too many end", || living() <= MOST).await;
        shims.lock().trim();
        assert!(shims.lock().shims.len() >= MOST - 1, "they have not waited for long");
        let past = Instant::now().checked_sub(PATIENCE).unwrap();
        shims.lock().shims.iter_mut().for_each(|shim| shim.since = past);
        shims.lock().trim();
        assert_eq!(shims.lock().shims.len(), FEW);
        crate::tests::until("the late ones end", || living() <= FEW).await;
        // Who waits and is dead is not given to anybody.
        shims.lock().shims.iter().for_each(|shim| shim.stat.signal(rustix::process::Signal::KILL));
        crate::tests::until("they are dead", || living() == 0).await;
        assert!(!pids.contains(&shims.take().unwrap().stat.pid));
    }
}
