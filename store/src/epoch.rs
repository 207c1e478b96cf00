//! A new epoch: after a restore the store knows less than happened. What was under way or about to begin then may have run since, so none of it
//! goes on by itself.

use std::collections::BTreeSet;

use domain::act::PAUSED_FLAG;
use domain::approval::ApprovalState;
use domain::audit::{AuditDecision, NewAudit};
use domain::id::IncidentId;
use domain::job::{NewJob, Urgency};
use domain::run::{Attempt, AttemptState, Run, RunState};
use domain::timeline::{Entry, EntryKind};
use jiff::Timestamp;
use serde_json::json;

use crate::codec::to_doc;
use crate::events::PEOPLE;
use crate::flags::EPOCH;
use crate::gate::Line;
use crate::tx::exec;
use crate::{Error, Store, Tx};

/// What a new epoch changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewEpoch {
    /// Its number, greater than every one before it: seconds since 1970, because the one before may be lost with what was replaced.
    pub epoch: i64,
    /// Requests for approval that expired.
    pub expired: u64,
    /// Runs that were under way: their outcome is unknown, and their targets stay locked.
    pub unknown: u64,
    /// Runs that had not begun: they are off.
    pub superseded: u64,
    /// What people had asked for and nobody had decided: it is dropped.
    pub dropped: u64,
}

const WHY: &str = "the store was restored from a backup";

impl Store {
    /// Begins a new epoch, in one transaction: pending approvals expire, runs that were under way become `unknown`, those that had not begun are
    /// off, what people had asked for and nobody had decided is dropped, everybody is signed out, and automation is paused until a person lets it go
    /// on. What machines told stays to be decided. What is locked gets a higher fence, so that nothing from before reaches it any more. `after` is an epoch
    /// that it must exceed.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn begin_epoch(&self, after: i64) -> Result<NewEpoch, Error> {
        let now = self.core.clock.now();
        let mut tx = self.core.begin(Line::Other).await?;
        let before = tx.epoch().await?.max(after);
        let mut new = NewEpoch { epoch: now.as_second().max(before + 1), ..NewEpoch::default() };
        let mut touched = BTreeSet::new();
        for mut approval in tx.pending_approvals(i64::MAX).await? {
            let votes = approval.votes.len();
            approval.state = ApprovalState::Expired;
            approval.decided_at = Some(now);
            tx.put_approval(&approval, votes).await?;
            touched.extend(approval.incident);
            new.expired += 1;
        }
        for run in tx.active_runs().await? {
            touched.extend(run.incident);
            match run.state {
                // Somebody may have said since what happened, and the run gone on.
                RunState::Unknown => tx.lose_track(run, now).await?,
                RunState::Running | RunState::Verifying => {
                    tx.lose_track(run, now).await?;
                    new.unknown += 1;
                }
                _ => {
                    let why = format!("{WHY}: whether it ran since is not known; ask for it again if it is still needed");
                    tx.end_run(run, RunState::Superseded, why, now).await?;
                    new.superseded += 1;
                }
            }
        }
        for incident in touched {
            tx.redraw(incident, now).await?;
        }
        // A click or a request may have been answered since; one that lets automation go on must not be.
        new.dropped = exec!(tx, "delete from queue where lane >= $1", PEOPLE);
        exec!(tx, "delete from sessions");
        let paused = json!({ "paused": true, "reason": format!("{WHY}: look at what happened since, then resume"), "at": now });
        tx.set_flag(PAUSED_FLAG, &paused).await?;
        tx.set_flag(EPOCH, &json!(new.epoch)).await?;
        exec!(tx, "update fences set epoch = $1, n = n + 1 where target in (select target from target_locks)", new.epoch);
        let detail = json!({ "before": before, "expired": new.expired, "unknown": new.unknown, "superseded": new.superseded, "dropped": new.dropped });
        tx.audit(&NewAudit {
            at: now,
            actor: "system".to_owned(),
            action: "store.restore".to_owned(),
            object: format!("epoch:{}", new.epoch),
            decision: AuditDecision::Allowed,
            reason: "new_epoch".to_owned(),
            detail,
        })
        .await?;
        tx.commit().await?;
        Ok(new)
    }
}

impl Tx {
    /// The outcome of what this run was doing cannot be known any more, nor whether it went on.
    async fn lose_track(&mut self, run: Run, now: Timestamp) -> Result<(), Error> {
        let attempts = self.attempts(run.id).await?;
        let open: Vec<&Attempt> =
            attempts.iter().filter(|attempt| matches!(attempt.state, AttemptState::Started | AttemptState::Unknown)).collect();
        let known = open.iter().filter(|attempt| attempt.restored).count();
        // People are asked already, since an earlier restore.
        if run.state == RunState::Unknown && known > 0 && known == open.len() {
            return Ok(());
        }
        for attempt in open.iter().filter(|attempt| !attempt.restored) {
            let error = attempt.error.as_ref().map_or_else(|| WHY.to_owned(), |error| format!("{error}; {WHY}"));
            let (state, attempt) = (AttemptState::Unknown, (*attempt).clone());
            self.finish_attempt(&Attempt { state, finished_at: Some(now), error: Some(error), restored: true, ..attempt }).await?;
        }
        // Between two steps: the next one may have been made since, and somebody must be able to say so. So too where a person let it go on past one that
        // an earlier restore had left open.
        if known == open.len() {
            let next = next_attempt(&run, &attempts, now);
            let (id, doc) = (run.id.to_string(), to_doc(&next)?);
            let sql = "insert into attempts (run_id, step_index, attempt, state, doc) values ($1, $2, $3, $4, $5)";
            exec!(self, sql, id, next.index, next.attempt, next.state.as_str(), doc);
        }
        let targets = run.plan.targets().into_iter().collect::<Vec<_>>().join(", ");
        let look = if targets.is_empty() { "what it does".to_owned() } else { targets };
        let before = run.reason.as_ref().filter(|_| run.state == RunState::Unknown).map(|reason| format!("{reason}. ")).unwrap_or_default();
        let why = format!("{before}{WHY} while it was under way, so it may have gone on: look at {look}, then settle this run");
        self.end_run(run, RunState::Unknown, why, now).await
    }

    async fn end_run(&mut self, mut run: Run, state: RunState, why: String, now: Timestamp) -> Result<(), Error> {
        let expected = run.version;
        run.version += 1;
        run.state = state;
        if !state.is_active() {
            run.finished_at = Some(now);
        }
        if let Some(incident) = run.incident {
            let text = format!("{} is {}: {why}.", run.runbook, state.as_str());
            self.tell(&[Entry { incident, at: now, kind: EntryKind::Run, who: None, text, detail: None }]).await?;
        }
        run.reason = Some(why);
        self.put_run(&run, expected).await
    }

    /// The cards of an incident show buttons that do nothing any more.
    async fn redraw(&mut self, id: IncidentId, now: Timestamp) -> Result<(), Error> {
        let Some(mut incident) = self.incident(id).await? else { return Ok(()) };
        let expected = incident.version;
        incident.version += 1;
        incident.automation = Some(WHY.to_owned());
        self.put_incident(&incident, expected).await?;
        let card = |channel: String| NewJob {
            kind: "chat.card",
            key: format!("{id}/{channel}"),
            due_at: now,
            urgency: Urgency::Tell,
            payload: json!({ "incident": id, "channel": channel }),
        };
        let cards: Vec<NewJob> = self.cards_of(id).await?.into_iter().map(|post| card(post.channel)).collect();
        self.enqueue(&cards).await
    }
}

/// The attempt that a run between two steps would have made next.
fn next_attempt(run: &Run, attempts: &[Attempt], now: Timestamp) -> Attempt {
    let last = attempts.last();
    let of_last = attempts.iter().filter(|attempt| last.is_some_and(|last| last.index == attempt.index));
    let failures = of_last.filter(|attempt| attempt.state == AttemptState::Failed && !attempt.again).count();
    let steps = &run.plan.steps;
    let retries =
        |index: i64| usize::try_from(index).ok().and_then(|index| steps.get(index)).map_or(1, |step| step.retry.attempts as usize);
    let (index, attempt) = match last {
        Some(last) if last.state == AttemptState::Failed && (last.again || failures < retries(last.index)) => {
            (last.index, last.attempt + 1)
        }
        Some(last) => (last.index + 1, 1),
        None => (0, 1),
    };
    let step = usize::try_from(index).ok().and_then(|index| steps.get(index)).or(run.plan.verify.as_ref().map(|verify| &verify.step));
    Attempt {
        run: run.id,
        index,
        step: step.map_or_else(|| "end".to_owned(), |step| step.id.clone()),
        attempt,
        state: AttemptState::Unknown,
        started_at: now,
        finished_at: Some(now),
        output: None,
        error: Some(WHY.to_owned()),
        place: None,
        again: false,
        restored: true,
    }
}
