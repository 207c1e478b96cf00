//! Jobs are added with the change that makes them, and may be ours from the start.

use std::collections::{HashMap, HashSet};

use domain::id::JobId;
use domain::job::{Job, NewJob};
use jiff::SignedDuration;

use crate::codec::{clean, micros, to_doc};
use crate::jobs::after;
use crate::tx::{exec_rows, rows_of};
use crate::{Change, Error, Tx};

/// What adding does to one that waits already.
const JOIN: &str = " on conflict (kind, key) where state <> 'dead' do update set \
     due_at = case when jobs.state = 'claimed' and jobs.revision = jobs.claimed_revision then excluded.due_at \
     when excluded.due_at < jobs.due_at then excluded.due_at else jobs.due_at end, \
     urgency = case when excluded.urgency < jobs.urgency then excluded.urgency else jobs.urgency end, \
     payload = excluded.payload, revision = jobs.revision + 1";

/// Whether a job that is added is ours from the start, as if claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It waits for whoever looks for it.
    Leave,
    /// It is, unless one of its kind and key waited already.
    Unless,
    /// It is, and there cannot be another of its kind and key. If there is one all the same, nothing of the transaction lasts.
    First,
}

impl Tx {
    /// Adds jobs. One that waits already under its kind and key is joined: the sooner time and the newer payload stay. One that is being carried
    /// out will be carried out again, at the new time.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn enqueue(&mut self, jobs: &[NewJob]) -> Result<(), Error> {
        self.enqueue_and_claim(jobs, SignedDuration::ZERO, |_| Take::Leave).await.map(drop)
    }

    /// The same; those that `take` says are ours are so for `lease`, and come back.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn enqueue_and_claim(
        &mut self,
        jobs: &[NewJob],
        lease: SignedDuration,
        mut take: impl FnMut(&NewJob) -> Take,
    ) -> Result<Vec<Job>, Error> {
        let now = self.core.clock.now();
        let mut unique: HashMap<(&str, &str), NewJob> = HashMap::new();
        let mut order = Vec::new();
        for job in jobs {
            let key = (job.kind, job.key.as_str());
            match unique.get_mut(&key) {
                Some(same) => *same = NewJob { due_at: same.due_at.min(job.due_at), urgency: same.urgency.min(job.urgency), ..job.clone() },
                None => {
                    unique.insert(key, job.clone());
                    order.push(key);
                }
            }
        }
        // One order for all, so that two transactions with the same jobs do not wait for each other.
        order.sort_unstable();
        let mut rows = Vec::with_capacity(order.len());
        for key in order {
            let Some(job) = unique.get(&key) else { continue };
            rows.push((JobId::new(now), job, to_doc(&job.payload)?, take(job)));
        }
        let (instance, start, until) = (self.core.instance.clone(), self.core.start.to_string(), after(micros(now), lease));
        // `$rows` of the table, with the statement's `$tail`, by one of the macros of `tx`.
        macro_rules! add {
            ($by:ident, $rows:expr, $tail:expr) => {
                $by!(
                    self,
                    "insert into jobs (id, kind, key, urgency, due_at, payload, created_at, state, claim, claimed_revision, instance, start_id, lease_until) ",
                    $rows,
                    |b, r| b
                        .push_bind(r.0.to_string())
                        .push_bind(r.1.kind)
                        .push_bind(clean(&r.1.key))
                        .push_bind(r.1.urgency.rank())
                        .push_bind(micros(r.1.due_at))
                        .push_bind(&r.2)
                        .push_bind(micros(now))
                        .push_bind(if r.3 == Take::Leave { "waiting" } else { "claimed" })
                        .push_bind(i64::from(r.3 != Take::Leave))
                        .push_bind(i64::from(r.3 != Take::Leave))
                        .push_bind((r.3 != Take::Leave).then_some(&instance))
                        .push_bind((r.3 != Take::Leave).then_some(&start))
                        .push_bind((r.3 != Take::Leave).then_some(until)),
                    $tail
                )
            };
        }
        let of = |take: Take| rows.iter().filter(|row| row.3 == take).collect::<Vec<_>>();
        let (leave, unless, first) = (of(Take::Leave), of(Take::Unless), of(Take::First));
        // An answer is a trip of its own: only what may have joined another needs one.
        let stored: Vec<(String,)> = add!(rows_of, unless, format!("{JOIN} returning id"));
        add!(exec_rows, leave, JOIN);
        add!(exec_rows, first, "");
        // One that joined another goes by that one's id.
        let stored: HashSet<String> = stored.into_iter().map(|(id,)| id).collect();
        let ours = first.into_iter().chain(unless.into_iter().filter(|(id, ..)| stored.contains(&id.to_string())));
        let ours: Vec<Job> = ours
            .map(|(id, job, ..)| Job {
                id: *id,
                kind: job.kind.to_owned(),
                key: job.key.clone(),
                payload: job.payload.clone(),
                attempts: 0,
                due_at: job.due_at,
                claim: 1,
                revision: 1,
            })
            .collect();
        let taken: HashSet<JobId> = ours.iter().map(|job| job.id).collect();
        // What is due later is found when it is.
        if rows.iter().any(|(id, job, ..)| job.due_at <= now && !taken.contains(id)) {
            self.changed(Change::Jobs);
        }
        Ok(ours)
    }
}
