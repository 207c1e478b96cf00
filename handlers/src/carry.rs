//! Carries out one attempt of a step: tells the action what it may know and waits for its end, for a cancel, or for the server's stop.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::action::{ActionCx, ActionError, ActionOutput, Effect, RunHost};
use domain::card::Message;
use domain::duration::Dur;
use domain::id::RunId;
use domain::job::{NewJob, Urgency};
use domain::plan::PlannedStep;
use domain::printed::Printed;
use domain::run::{Attempt, AttemptState, Execution, Run, RunState};
use jiff::SignedDuration;
use serde_json::json;
use store::Watched;

use crate::Cx;
use crate::batch::Batch;
use crate::steps::{self, Stepped};

/// An action ends by itself at its deadline; this much later it is cut off. Longer than a command's grace between TERM and KILL.
const CUT_OFF: Duration = Duration::from_secs(20);
/// So long before its start an attempt from before a restore has ended.
const LONG_AGO: SignedDuration = SignedDuration::from_hours(24);
/// How often a running step asks whether its run was cancelled.
const ASK_CANCELLED: Duration = Duration::from_millis(500);

/// How an attempt ended.
pub(crate) enum Outcome {
    /// By itself, well or not.
    Ended(Result<ActionOutput, ActionError>),
    /// A person stopped the run, and the action with it.
    Cancelled,
    /// The server stops; what was begun goes on and is taken up by the next start.
    Left,
    /// It may not begin: the run goes on like this.
    NotBegun(Stepped),
}

/// How an attempt is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Its intent is stored, or it needs none.
    Stored,
    /// The action stores its intent, with the process that carries it out.
    ByAction,
    /// It was begun before, and its process is stored.
    Resume,
}

/// Where an attempt stands at its end, what it brought, how it failed.
pub(crate) type Told = (AttemptState, Option<ActionOutput>, Option<String>);

impl Outcome {
    /// What the journal says of it; `None` if there is nothing to say yet.
    pub(crate) fn told(self) -> Option<Told> {
        match self {
            Self::Ended(Ok(output)) => Some((AttemptState::Succeeded, Some(output), None)),
            Self::Ended(Err(ActionError::Failed(error) | ActionError::Refused(error) | ActionError::NeverBegan(error))) => {
                Some((AttemptState::Failed, None, Some(error)))
            }
            Self::Ended(Err(ActionError::Unknown(error))) => Some((AttemptState::Unknown, None, Some(error))),
            Self::Cancelled => Some((AttemptState::Unknown, None, Some("stopped by a person".to_owned()))),
            Self::Left | Self::NotBegun(_) => None,
        }
    }
}

/// Whether a step goes on without the server: then its attempt can be taken up after a crash.
pub(crate) fn outlives(cx: &Cx, step: &PlannedStep) -> bool {
    step.effect != Effect::ReadOnly && cx.actions.get(&step.uses).is_some_and(|action| action.resumable(step.target.as_ref()))
}

/// Carries out an attempt. What is stored meanwhile of its process stands in `row` afterwards.
pub(crate) async fn carry_out(cx: &Cx, run: &Run, step: &PlannedStep, row: &mut Attempt, begin: Begin) -> Outcome {
    let resume = begin == Begin::Resume;
    let Some(action) = cx.actions.get(&step.uses) else {
        return Outcome::Ended(Err(ActionError::Refused(format!("there is no action {:?} in this version", step.uses))));
    };
    let now = cx.clock.now();
    let place = row.place.as_ref();
    let deadline = match resume {
        // Asked after, and nothing else: what its agent never heard of must not begin now, even if the agent's clock is late.
        true if row.restored => row.started_at - LONG_AGO,
        // By a clock that was set back since it began long after now: never for longer than it may take.
        true => step.timeout.after(row.started_at.min(now)),
        false => step.timeout.after(now),
    };
    let targets = run.plan.targets().into_iter().map(str::to_owned).collect();
    let version = run.version;
    let host = Arc::new(Host { cx: cx.clone(), targets, step: step.clone(), row: row.clone(), version, begin, begun: Mutex::default() });
    let action_cx = ActionCx {
        run: run.id,
        step: step.id.clone(),
        attempt: u32::try_from(row.attempt).unwrap_or(u32::MAX),
        idempotency_key: format!("{}/{}", run.id, step.id),
        execution: format!("{}-{}-{}", run.id, row.index, row.attempt),
        effect: step.effect,
        fence: place.and_then(|place| place.fence),
        resume: place.and_then(|place| place.execution.clone()).filter(|_| resume),
        target: step.target.clone(),
        deadline,
        host: Arc::clone(&host) as Arc<dyn RunHost>,
    };
    let began = std::time::Instant::now();
    let time = Dur::between(now, deadline).as_std() + CUT_OFF;
    let lasting = outlives(cx, step);
    let ended = tokio::select! {
        ended = tokio::time::timeout(time, action.run(&action_cx, &step.with)) => ended,
        // What outlives us hears of the cancel itself, and tells how it ended.
        () = cancelled(cx, run.id), if !lasting => return Outcome::Cancelled,
        () = cx.wake.stopped(), if lasting => return Outcome::Left,
    };
    cx.store.forget_printed(host.watched());
    match std::mem::take(&mut *host.begun.lock().unwrap_or_else(PoisonError::into_inner)) {
        Begun::No => {}
        Begun::Yes(execution) => row.place.iter_mut().for_each(|place| place.execution = Some(execution.clone())),
        Begun::Lost(execution) => {
            row.place.iter_mut().for_each(|place| place.execution = Some(execution.clone()));
            row.again = true;
        }
        Begun::Refused(stepped) => return Outcome::NotBegun(stepped),
    }
    metrics::histogram!("watchkeeper_step_duration_seconds", "action" => action.name()).record(began.elapsed().as_secs_f64());
    Outcome::Ended(ended.unwrap_or_else(|_| {
        let text = format!("it did not end within {}", step.timeout);
        Err(if step.effect == Effect::ReadOnly { ActionError::Failed(text) } else { ActionError::Unknown(text) })
    }))
}

/// Ends when the run is no longer one that may act: it has ended, or a person cancelled it.
async fn cancelled(cx: &Cx, run: RunId) {
    loop {
        tokio::time::sleep(ASK_CANCELLED).await;
        let Ok(mut tx) = cx.store.read().await else { continue };
        if let Ok(Some(run)) = tx.run(run).await
            && (run.is_ending() || !run.state.is_active())
        {
            return;
        }
    }
}

/// The attempts that this process carries out now.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Arc<Mutex<HashSet<Key>>>);

type Key = (RunId, i64, i64);

/// An attempt is ours as long as this lives.
#[derive(Debug)]
pub(crate) struct Ours {
    all: Arc<Mutex<HashSet<Key>>>,
    key: Key,
}

impl UnderWay {
    /// Takes an attempt, unless somebody in this process has it.
    pub(crate) fn take(&self, row: &Attempt) -> Option<Ours> {
        let key = (row.run, row.index, row.attempt);
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        taken.then(|| Ours { all: Arc::clone(&self.0), key })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// What a step may ask of its run.
struct Host {
    cx: Cx,
    /// Of the whole run.
    targets: Vec<String>,
    step: PlannedStep,
    row: Attempt,
    /// The run's, as it was when it was decided to begin this.
    version: i64,
    begin: Begin,
    begun: Mutex<Begun>,
}

/// What became of the wish to begin.
#[derive(Debug, Default)]
enum Begun {
    /// Nobody wished to.
    #[default]
    No,
    /// It is stored, and it may begin.
    Yes(Execution),
    /// It is stored, and somebody else has the run by now: it did not begin.
    Lost(Execution),
    /// It may not begin.
    Refused(Stepped),
}

impl Host {
    /// Stores the process that carries the attempt out, with the attempt itself where that is not stored yet.
    async fn store(&self, row: &Attempt, first: bool) -> Result<Option<Stepped>, store::Error> {
        if first {
            return steps::intend(&self.cx, self.version, &self.targets, &self.step, row).await;
        }
        let mut batch = Batch::begin(&self.cx).await?;
        // A cancel that came first wins; one that comes now waits for us.
        if batch.tx.hold_run(row.run).await?.is_none_or(|run| run.state != RunState::Running || run.is_ending()) {
            return Ok(Some(Stepped::On));
        }
        self.cx.claim.hold(&mut batch.tx).await?;
        batch.tx.note_attempt(row).await?;
        batch.commit().await.map(|()| None)
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> Watched {
        Watched { run: self.row.run, index: self.row.index, attempt: self.row.attempt }
    }
}

#[async_trait]
impl RunHost for Host {
    async fn notify(&self, channel: &str, text: &str) -> Result<(), String> {
        if !self.cx.rules.load().channels.contains_key(channel) {
            return Err(format!("there is no channel {channel:?} in the configuration"));
        }
        let mut batch = Batch::begin(&self.cx).await.map_err(|error| error.to_string())?;
        let text = self.cx.redactor.redact(text).into_owned();
        let message = Message { text, block: None, at: batch.now };
        let job = NewJob {
            kind: "chat.message",
            key: format!("{}-{}", self.row.run, self.row.step),
            due_at: batch.now,
            urgency: Urgency::Tell,
            payload: json!({ "channel": channel, "message": message }),
        };
        batch.job(job);
        batch.commit().await.map_err(|error| error.to_string())
    }

    async fn intend(&self, execution: &Execution) -> Result<(), String> {
        let mut row = self.row.clone();
        let Some(place) = &mut row.place else { return Err("the attempt has no place".to_owned()) };
        place.execution = Some(execution.clone());
        let first = self.begin == Begin::ByAction && matches!(*self.lock(), Begun::No);
        let (begun, answer) = match self.store(&row, first).await {
            // If it is stored after all, the next look at the run takes it up.
            Err(error) => (Begun::Refused(Stepped::Later(self.cx.clock.now())), Err(error.to_string())),
            Ok(Some(stepped)) => (Begun::Refused(stepped), Err("the run may not begin it any more".to_owned())),
            Ok(None) if !self.cx.claim.still_ours() => {
                (Begun::Lost(execution.clone()), Err("another server had the run before it began".to_owned()))
            }
            Ok(None) => (Begun::Yes(execution.clone()), Ok(())),
        };
        // What refuses a second process of one attempt does not undo the first.
        if first || answer.is_ok() {
            *self.lock() = begun;
        }
        answer
    }

    async fn cancelled(&self) {
        cancelled(&self.cx, self.row.run).await;
    }

    async fn printed(&self, piece: &Printed) -> bool {
        self.cx.store.show_printed(self.watched(), store::Printer::Here, piece, &self.cx.redactor);
        true
    }
}
