//! The ends of jobs. Those that come together share one transaction, as deliveries do: each alone would cost a trip or two to the database, and most
//! ends are of cards, of which a storm has many.

use std::collections::HashSet;
use std::sync::Arc;

use domain::id::{IncidentId, JobId};
use domain::job::{Job, NewJob};
use tokio::sync::{mpsc, oneshot};

use crate::codec::clean;
use crate::gate::Line;
use crate::open::Core;
use crate::tx::exec_rows;
use crate::{CardPost, Error, Store, Tx};

/// A transaction takes at most so many.
const BATCH: usize = 64;

/// What a job did to a chat platform, stored with its end. It stays true if somebody else has the job by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// The card is there, and shows so much.
    Card(CardPost),
    /// The card is there and was nowhere before: this job can begin, which is stored with it.
    Posted(CardPost, Box<NewJob>),
    /// The card's thread tells the timeline up to this entry. It never goes back.
    Told {
        /// The incident.
        incident: IncidentId,
        /// The channel's name in the configuration.
        channel: String,
        /// The entry's number.
        upto: i64,
    },
}

/// The way to the one task that stores ends.
#[derive(Clone, Debug)]
pub(crate) struct Ends(mpsc::Sender<Waiting>);

#[derive(Debug)]
struct Waiting {
    job: Job,
    did: Option<Did>,
    reply: oneshot::Sender<Result<(), Error>>,
}

impl Store {
    /// A claimed job is done, and did this. It is deleted, or waits again if a newer one of its key came meanwhile.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the claim is no longer ours; what it did is stored all the same. [`Error::Unavailable`].
    pub async fn end_job(&self, job: &Job, did: Option<Did>) -> Result<(), Error> {
        let closed = || Error::Unavailable("the store is closed".to_owned());
        let (reply, answer) = oneshot::channel();
        self.ends.0.send(Waiting { job: job.clone(), did, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl Store {
    /// A job did this and is not done.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn did(&self, did: Did) -> Result<(), Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        tx.store_did([&did]).await?;
        tx.commit().await
    }
}

impl Ends {
    pub(crate) fn start(core: Arc<Core>) -> Self {
        let (line, mut arrivals) = mpsc::channel(BATCH);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while arrivals.recv_many(&mut batch, BATCH).await > 0 {
                end_all(&core, std::mem::take(&mut batch)).await;
            }
        });
        Self(line)
    }
}

/// Stores them together, or one by one where that fails, and answers everybody.
async fn end_all(core: &Arc<Core>, batch: Vec<Waiting>) {
    let ended = end(core, &batch).await;
    match ended {
        Ok(mut lost) => {
            for waiting in batch {
                let result = if lost.remove(&(waiting.job.id, waiting.job.claim)) { Err(Error::Conflict) } else { Ok(()) };
                // Whoever went away has its end stored all the same.
                let _gone = waiting.reply.send(result);
            }
        }
        Err(_) if batch.len() > 1 => {
            for waiting in batch {
                let alone = [waiting];
                let ended = end(core, &alone).await;
                let [waiting] = alone;
                let result = ended.and_then(|lost| if lost.is_empty() { Ok(()) } else { Err(Error::Conflict) });
                let _gone = waiting.reply.send(result);
            }
        }
        Err(error) => {
            if let Some(waiting) = batch.into_iter().next() {
                let _gone = waiting.reply.send(Err(error));
            }
        }
    }
}

/// One transaction; gives the claims that are no longer ours.
async fn end(core: &Arc<Core>, batch: &[Waiting]) -> Result<HashSet<(JobId, i64)>, Error> {
    let mut tx = core.begin(Line::Other).await?;
    let lost = tx.end_jobs(batch).await?;
    tx.commit().await?;
    Ok(lost)
}

impl Tx {
    async fn end_jobs(&mut self, batch: &[Waiting]) -> Result<HashSet<(JobId, i64)>, Error> {
        self.store_did(batch.iter().filter_map(|waiting| waiting.did.as_ref())).await?;
        let mut jobs: Vec<&Job> = batch.iter().map(|waiting| &waiting.job).collect();
        jobs.sort_by_key(|job| job.id);
        let gone = self.delete_jobs(&jobs).await?;
        jobs.retain(|job| !gone.contains(&(job.id.to_string(), job.claim)));
        let back = self.give_back(&jobs).await?;
        jobs.retain(|job| !back.contains(&(job.id.to_string(), job.claim)));
        Ok(jobs.into_iter().map(|job| (job.id, job.claim)).collect())
    }

    async fn store_did(&mut self, did: impl IntoIterator<Item = &Did>) -> Result<(), Error> {
        let (mut cards, mut told, mut follow) = (Vec::new(), Vec::new(), Vec::new());
        for did in did {
            match did {
                Did::Card(card) => cards.push(card),
                Did::Posted(card, job) => {
                    cards.push(card);
                    follow.push(NewJob::clone(job));
                }
                Did::Told { incident, channel, upto } => told.push((incident.to_string(), clean(channel), *upto)),
            }
        }
        // In one order for all, so that two transactions on PostgreSQL do not wait for each other.
        cards.sort_by_key(|card| (card.incident, &card.channel));
        told.sort();
        self.put_cards(&cards).await?;
        exec_rows!(
            self,
            "update cards set told = v.column3 from (",
            told,
            |b, one| b.push_bind(&one.0).push_bind(&one.1).push_bind(one.2),
            ") as v where cards.incident = v.column1 and cards.channel = v.column2 and cards.told < v.column3"
        );
        self.enqueue(&follow).await
    }
}
