//! Lets go of what is older than the configuration keeps, in small steps with pauses between them: ingest never waits for it for long.

use std::time::Duration;

use async_trait::async_trait;
use domain::duration::Dur;
use domain::job::{Job as Row, NewJob, Urgency};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use store::Aging;

use super::{Done, Job, JobError};
use crate::Cx;

pub(crate) struct Prune;

/// Time between two rounds, and the wait for the next one where one ended early.
const EVERY: SignedDuration = SignedDuration::from_mins(5);
const SOON: SignedDuration = SignedDuration::from_secs(2);
/// Steps of one round.
const STEPS: usize = 200;
/// How long a step may keep other writers waiting: the next one is made smaller or larger to come near it.
const HELD: Duration = Duration::from_millis(15);
/// Rows of a step: at first, and at most.
const ROWS: i64 = 64;
const MOST_ROWS: i64 = 1_024;
/// Between two steps.
const PAUSE: Duration = Duration::from_millis(20);

/// How long what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Bodies as they were received.
    pub deliveries: Dur,
    /// What was heard.
    pub events: Dur,
    /// Closed incidents, with their timeline, alerts and runs; and runs and alerts without an incident.
    pub incidents: Dur,
    /// What failed for good: jobs and events; and bodies that could not be read.
    pub dead: Dur,
    /// The audit log, of which the server lets go in its own way, and the counts of refusals.
    pub audit: Dur,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Dur::from_mins(days * 24 * 60);
        Self { deliveries: days(7), events: days(30), incidents: days(400), dead: days(30), audit: days(400) }
    }
}

impl Retention {
    fn of(&self, what: Aging) -> Dur {
        match what {
            Aging::Deliveries => self.deliveries,
            Aging::Events => self.events,
            Aging::Incidents | Aging::Runs | Aging::Alerts => self.incidents,
            Aging::DeadJobs | Aging::DeadLetters | Aging::Samples => self.dead,
            Aging::Refusals => self.audit,
        }
    }
}

#[async_trait]
impl Job for Prune {
    fn kind(&self) -> &'static str {
        "prune"
    }

    fn at_once(&self) -> usize {
        1
    }

    async fn run(&self, cx: &Cx, _row: &Row) -> Result<Done, JobError> {
        // Not the wall clock's: what goes cannot be taken back.
        let now = match cx.store.look_at_age().await {
            Ok(now) => now,
            Err(store::Error::Retry) => return Ok(Done::Again(cx.clock.now() + SOON)),
            Err(error) => return Err(error.into()),
        };
        let mut steps = STEPS;
        for what in Aging::ALL {
            let age = SignedDuration::try_from(cx.retention.of(what).as_std()).unwrap_or(SignedDuration::MAX);
            let Ok(before) = now.checked_sub(age) else { continue };
            let (mut from, mut limit) = (0, ROWS);
            loop {
                if steps == 0 || cx.wake.stopping() || !cx.claim.still_ours() {
                    return Ok(Done::Again(cx.clock.now() + SOON));
                }
                steps -= 1;
                let pruned = match cx.store.prune(what, before, from, limit).await {
                    Ok(pruned) => pruned,
                    // Others are busy: they come first.
                    Err(store::Error::Retry) => return Ok(Done::Again(cx.clock.now() + SOON)),
                    Err(error) => return Err(error.into()),
                };
                metrics::counter!("watchkeeper_pruned_rows_total", "kind" => what.as_str()).increment(pruned.rows);
                metrics::histogram!("watchkeeper_prune_held_seconds").record(pruned.held);
                limit = next_limit(limit, pruned.held);
                match pruned.next {
                    Some(next) => from = next,
                    None => break,
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        metrics::gauge!("watchkeeper_prune_last_success_timestamp_seconds").set(cx.clock.now().as_second() as f64);
        Ok(Done::Again(cx.clock.now() + EVERY))
    }
}

/// The job that does the first round; one for all replicas.
pub(crate) fn first(now: Timestamp) -> NewJob {
    NewJob { kind: "prune", key: "prune".to_owned(), due_at: now, urgency: Urgency::Upkeep, payload: json!({}) }
}

fn next_limit(limit: i64, held: Duration) -> i64 {
    let next = if held > HELD { limit / 2 } else { limit * 2 };
    if held > HELD / 3 && held <= HELD { limit } else { next.clamp(1, MOST_ROWS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_near_what_they_may_take() {
        assert_eq!(next_limit(64, HELD * 2), 32);
        assert_eq!(next_limit(64, HELD), 64);
        assert_eq!(next_limit(64, HELD / 10), 128);
        assert_eq!((next_limit(1, HELD * 9), next_limit(MOST_ROWS, Duration::ZERO)), (1, MOST_ROWS));
    }
}
