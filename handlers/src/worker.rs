//! The loops: decide what came in, carry out what is due. Any number of workers may share a store.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use domain::id::JobId;
use domain::job::Job as Row;
use jiff::SignedDuration;
use store::Change;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::TaskTracker;

use crate::claim::{Claim, LEASE};
use crate::deciding::AtOnce;
use crate::hands::{Hand, Taken};
use crate::jobs::{self, Done, Job, JobError};
use crate::{Cx, deciding, resume, set_back};

/// Jobs claimed at once.
const CLAIM: i64 = 64;
/// How often claims are renewed.
const RENEW: Duration = Duration::from_secs(5);
/// The longest sleep: the net below the wake-ups.
const IDLE: Duration = Duration::from_millis(500);
/// A job that failed this often is given up, unless its kind keeps trying.
const MOST_ATTEMPTS: i64 = 20;
/// The longest pause before a job of any other kind is tried again.
pub(crate) const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(120);

/// Decides events and carries out jobs until told to stop.
pub struct Worker {
    cx: Cx,
    tracker: TaskTracker,
    at_once: Arc<AtOnce>,
    held: Mutex<Vec<Claim>>,
    /// Claims that nobody here held when the database was last asked, and those of jobs whose end could not be stored.
    strays: Mutex<HashSet<(JobId, i64)>>,
}

/// What a settled store has no more of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Events decided.
    pub events: usize,
    /// Jobs carried out.
    pub jobs: usize,
}

impl Worker {
    /// A worker over `cx`.
    pub fn new(cx: Cx) -> Self {
        Self {
            at_once: Arc::new(AtOnce::new(cx.clone())),
            cx,
            tracker: TaskTracker::new(),
            held: Mutex::default(),
            strays: Mutex::default(),
        }
    }

    /// Runs until [`crate::Wake::stop`], then waits for what is at hand.
    pub async fn run(self) {
        if let Err(error) = self.first_rounds().await {
            tracing::error!(%error, "upkeep could not be queued: it will be with the next start");
        }
        if let Err(error) = resume::tidy(&self.cx).await {
            tracing::warn!(%error, "results of ended runs stay until the next start");
        }
        let this = Arc::new(self);
        let at_once = Arc::clone(&this);
        this.cx
            .wake
            .hands
            .open(move |Taken { row, asked, hand, stored }| at_once.spawn(Claim::new(&row, asked, Some(stored)), row, Some(hand)));
        let deciding: Weak<AtOnce> = Arc::downgrade(&this.at_once);
        this.cx.store.decide_with(deciding);
        let loops = [
            tokio::spawn(resume::keep(this.cx.clone())),
            tokio::spawn(set_back::watch(this.cx.clone())),
            tokio::spawn(Arc::clone(&this).events()),
            tokio::spawn(Arc::clone(&this).jobs()),
            tokio::spawn(Arc::clone(&this).renew()),
        ];
        let mut changes = this.cx.store.changes();
        while !this.cx.wake.stopping() {
            let change = tokio::select! { change = changes.recv() => change, () = this.cx.wake.stopped() => break };
            match change {
                Ok(Change::Events) => this.cx.wake.wake_events(),
                Ok(Change::Jobs) => this.cx.wake.wake_jobs(),
                // Nothing of ours.
                Ok(Change::Incident(_) | Change::Outcome(_) | Change::Printed(_)) => {}
                Ok(Change::Missed) | Err(RecvError::Lagged(_)) => {
                    this.cx.wake.wake_events();
                    this.cx.wake.wake_jobs();
                }
                Err(RecvError::Closed) => this.cx.wake.stopped().await,
            }
        }
        for handle in loops {
            if let Err(error) = handle.await {
                tracing::error!(%error, "a worker loop ended badly");
            }
        }
    }

    /// Decides and carries out everything that is due now, then returns: for tests and tools.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn settle(&self) -> Result<Settled, store::Error> {
        let mut settled = Settled::default();
        loop {
            let events = deciding::decide(&self.cx).await?;
            let asked = Instant::now();
            let claimed = self.cx.store.claim_jobs(CLAIM, LEASE).await?;
            let count = claimed.iter().filter(|row| !matches!(row.kind.as_str(), "upkeep" | "prune")).count();
            for row in claimed {
                let claim = Claim::new(&row, asked, None);
                self.carry_out(row, claim).await;
            }
            settled.events += events;
            settled.jobs += count;
            if events == 0 && count == 0 {
                return Ok(settled);
            }
        }
    }

    /// What a start begins with: the rounds, and another try for cards that were given up.
    pub(crate) async fn first_rounds(&self) -> Result<(), store::Error> {
        // Before upkeep is queued: when it is due shows whether the clock was set back.
        if let Err(error) = set_back::since_last_start(&self.cx).await {
            tracing::warn!(%error, "whether the clock was set back since the last start is not known");
        }
        let mut tx = self.cx.store.begin().await?;
        let now = self.cx.clock.now();
        tx.enqueue(&[jobs::upkeep::first(now), jobs::prune::first(now)]).await?;
        tx.commit().await?;
        match self.cx.store.revive_jobs(jobs::chat_card::KIND).await {
            Ok(0) => {}
            Ok(cards) => tracing::info!(cards, "cards that were given up are tried again"),
            Err(error) => tracing::warn!(%error, "cards that were given up stay so until the next start"),
        }
        Ok(())
    }

    async fn events(self: Arc<Self>) {
        while !self.cx.wake.stopping() {
            match deciding::decide(&self.cx).await {
                Ok(waited) => {
                    self.at_once.found(waited);
                    if waited == 0 {
                        self.idle(self.cx.wake.events()).await;
                    }
                }
                Err(error) => {
                    self.at_once.found(usize::MAX);
                    tracing::warn!(%error, "events wait: the store cannot be asked");
                    tokio::time::sleep(IDLE).await;
                }
            }
        }
    }

    /// Claims as many as there are hands for; the rest stay in the database, where others may take them.
    async fn jobs(self: Arc<Self>) {
        let wake = &self.cx.wake;
        while !wake.stopping() {
            let asked = Instant::now();
            match self.cx.store.claim_some_jobs(CLAIM, LEASE, &wake.hands.free()).await {
                Ok(rows) if rows.is_empty() => {
                    self.idle(async {
                        tokio::select! { () = wake.jobs() => {}, () = wake.hands.freed() => {} }
                    })
                    .await;
                }
                Ok(rows) => self.begin(rows, asked).await,
                Err(error) => {
                    tracing::warn!(%error, "jobs wait: the store cannot be asked");
                    tokio::time::sleep(IDLE).await;
                }
            }
        }
        self.cx.wake.hands.close();
        self.tracker.close();
        self.tracker.wait().await;
    }

    async fn renew(self: Arc<Self>) {
        let mut every = tokio::time::interval(RENEW);
        // After a pause one renewal is as good as many.
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! { _ = every.tick() => {}, () = self.cx.wake.stopped() => tokio::time::sleep(IDLE / 10).await }
            if let Err(error) = self.free_strays().await {
                tracing::warn!(%error, "claims that nobody holds could not be looked for");
            }
            let held = lock(&self.held).clone();
            if self.cx.wake.stopping() && held.is_empty() {
                return;
            }
            if !held.is_empty()
                && let Err(error) = self.renew_all(&held).await
            {
                tracing::warn!(%error, "claims could not be renewed");
            }
        }
    }

    async fn renew_all(&self, held: &[Claim]) -> Result<(), store::Error> {
        let held: Vec<&Claim> = held.iter().filter(|claim| claim.is_stored()).collect();
        let keys: Vec<_> = held.iter().filter_map(|claim| claim.key()).collect();
        let asked = Instant::now();
        let ours: HashSet<_> = self.cx.store.renew_jobs(&keys, LEASE).await?.into_iter().collect();
        // One that ended meanwhile is not ours either, and is not held any more.
        let still: HashSet<_> = lock(&self.held).iter().filter_map(Claim::key).collect();
        for claim in held {
            let Some(key) = claim.key().filter(|key| still.contains(key)) else { continue };
            if ours.contains(&key.0) {
                claim.renew(asked);
            } else if claim.lose() {
                metrics::counter!("watchkeeper_claims_lost_total").increment(1);
                tracing::warn!(job = %key.0, "a claim was lost: what it was for begins nothing new, and its end will be refused");
            }
        }
        Ok(())
    }

    /// Claims of ours that nobody holds are free again: of jobs whose end could not be stored, or whose claim was stored and nobody could tell.
    /// Twice in a row, because one that is being stored is not held yet.
    async fn free_strays(&self) -> Result<(), store::Error> {
        let claims = self.cx.store.claims().await?;
        let held: HashSet<_> = lock(&self.held).iter().filter_map(Claim::key).collect();
        let now: HashSet<_> = claims.into_iter().filter(|claim| !held.contains(claim)).collect();
        let before = std::mem::replace(&mut *lock(&self.strays), now.clone());
        let strays: Vec<_> = now.intersection(&before).copied().collect();
        if strays.is_empty() { Ok(()) } else { self.cx.store.free_jobs(&strays).await }
    }

    async fn idle(&self, woken: impl Future<Output = ()>) {
        let _woken_or_late = tokio::time::timeout(IDLE, woken).await;
    }

    /// Begins what was claimed. Where a decision took the last hand meanwhile, a job is left to whoever has one.
    async fn begin(self: &Arc<Self>, rows: Vec<Row>, asked: Instant) {
        let mut left = Vec::new();
        for row in rows {
            match self.cx.wake.hands.one(&row.kind) {
                None if jobs::find(&row.kind).is_some() => left.push(row),
                hand => self.spawn(Claim::new(&row, asked, None), row, hand),
            }
        }
        for row in left {
            if let Err(error) = self.cx.store.wait_job(&row, row.due_at).await {
                tracing::warn!(%error, "a job that there is no hand for could not be given back: it will be later");
            }
        }
    }

    fn spawn(self: &Arc<Self>, claim: Claim, row: Row, hand: Option<Hand>) {
        let id = row.id;
        lock(&self.held).push(claim.clone());
        let this = Arc::clone(self);
        self.tracker.spawn(async move {
            let key = claim.key();
            this.carry_out(row, claim).await;
            lock(&this.held).retain(|held| held.key() != key);
            drop(this.cx.wake.known.take(id));
            drop(hand);
        });
    }

    async fn carry_out(&self, row: Row, claim: Claim) {
        let Some(job) = jobs::find(&row.kind) else {
            self.bury(&row, "this version knows no such job").await;
            return;
        };
        if !claim.still_ours() {
            return;
        }
        let began = Instant::now();
        let cx = Cx { claim: claim.clone(), ..self.cx.clone() };
        let result = std::panic::AssertUnwindSafe(job.run(&cx, &row));
        let result = futures::FutureExt::catch_unwind(result).await.unwrap_or_else(|_| Err(JobError::Retry("it panicked".to_owned())));
        metrics::histogram!("watchkeeper_job_duration_seconds", "kind" => job.kind()).record(began.elapsed().as_secs_f64());
        if claim.stored().await {
            self.settle_job(job, &row, result).await;
        }
    }

    async fn settle_job(&self, job: &dyn Job, row: &Row, result: Result<Done, JobError>) {
        let now = self.cx.clock.now();
        let stored = match result {
            Ok(Done::Finished) => self.cx.store.end_job(row, None).await,
            Ok(Done::Did(did)) => self.cx.store.end_job(row, Some(did)).await,
            Ok(Done::Again(at)) => self.cx.store.wait_job(row, at).await,
            Err(JobError::Fail(error)) => {
                self.bury(row, &error).await;
                Ok(())
            }
            Err(JobError::Retry(error)) if row.attempts >= MOST_ATTEMPTS && job.keeps_trying().is_none() => {
                self.bury(row, &error).await;
                Ok(())
            }
            Err(JobError::Retry(error)) => {
                tracing::warn!(job = job.kind(), key = %row.key, attempt = row.attempts + 1, error, "a job failed: again later");
                let pause = SignedDuration::from_secs(1_i64 << row.attempts.clamp(0, 8));
                let pause = pause.min(job.keeps_trying().unwrap_or(LONGEST_PAUSE));
                self.cx.store.retry_job(row, now + pause, &error).await
            }
            Err(JobError::Hold(at, error)) => {
                tracing::warn!(job = job.kind(), key = %row.key, %at, error, "a job cannot be done as things stand: it is looked at again");
                metrics::counter!("watchkeeper_jobs_held_total", "kind" => job.kind()).increment(1);
                self.cx.store.hold_job(row, at, &error).await
            }
            Err(JobError::RetryAt(at, error)) => {
                tracing::info!(job = job.kind(), key = %row.key, %at, error, "a job waits");
                self.cx.store.wait_job(row, at).await
            }
        };
        match stored {
            Ok(()) => {}
            Err(store::Error::Conflict) => {
                tracing::info!(job = job.kind(), key = %row.key, "a late end of a job that is not ours any more was refused")
            }
            Err(error) => {
                tracing::warn!(job = job.kind(), %error, "a job's end could not be stored: it will be carried out again");
                lock(&self.strays).insert((row.id, row.claim));
            }
        }
    }

    async fn bury(&self, row: &Row, error: &str) {
        tracing::error!(job = %row.kind, key = %row.key, error, "a job is given up");
        metrics::counter!("watchkeeper_jobs_dead_total", "kind" => row.kind.clone()).increment(1);
        if let Err(error) = self.cx.store.bury_job(row, error).await {
            tracing::warn!(%error, "a job could not be buried: it will be carried out again");
            lock(&self.strays).insert((row.id, row.claim));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
