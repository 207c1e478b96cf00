//! Decisions in the transaction that stores what they are about, so that a quiet store has one commit from an alert to what it brings about.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, Weak};

use async_trait::async_trait;
use domain::alert::Alert;
use domain::event::{Event, Payload};
use domain::inbox::Accepted;
use domain::incident::Incident;

use crate::gate::Line;
use crate::open::Core;
use crate::prepared::{Prepared, in_order};
use crate::{Backend, Error, Store, Tx};

/// More events than these are only stored: their senders wait for no decision.
const AT_ONCE: usize = 64;

/// Decides what comes in while it is stored.
#[async_trait]
pub trait Decider: Send + Sync {
    /// Whether nothing that came before waits for a decision.
    fn is_free(&self) -> bool;

    /// Has deliveries stored, decides them, and commits the transaction.
    ///
    /// # Errors
    /// Nothing of the transaction lasts then, unless it is [`Error::Unavailable`], after which nobody knows.
    async fn decide(&self, arrivals: Arrivals<'_>) -> Result<(), Error>;
}

/// Deliveries that are to be stored and decided in one transaction.
#[derive(Debug)]
pub struct Arrivals<'a> {
    core: &'a Arc<Core>,
    batch: &'a [&'a Prepared],
    accepted: &'a mut Vec<Accepted>,
}

/// A source, and what is found by it there: a fingerprint, or a grouping key.
pub type Key = (String, String);

/// What decisions about alerts ask first.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    /// Alerts, by fingerprint.
    pub alerts: BTreeSet<Key>,
    /// Incidents that a new alert may join, by grouping key.
    pub groups: BTreeSet<Key>,
}

/// The answers, as far as there are any.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// By fingerprint.
    pub alerts: HashMap<Key, Alert>,
    /// By grouping key: the open one, else the one resolved last and not closed.
    pub incidents: HashMap<Key, Incident>,
}

/// What a transaction stored.
#[derive(Clone, Debug)]
pub enum Stored {
    /// These events, in the order of [`Arrivals::events`], and what was asked. They are claimed, and nothing else waits.
    Claimed(Vec<Event>, Known),
    /// At most so many, in the queue, where others may wait before them.
    Queued(usize),
}

impl<'a> Arrivals<'a> {
    pub(crate) fn new(core: &'a Arc<Core>, batch: &'a [&'a Prepared], accepted: &'a mut Vec<Accepted>) -> Self {
        Self { core, batch, accepted }
    }

    /// What they say, each with its source, in the order in which it is to be decided if all of it is new.
    pub fn events(&self) -> impl Iterator<Item = (&'a str, &'a Payload)> + use<'a> {
        in_order(self.batch).map(|(delivery, row)| (delivery.source.as_str(), &row.payload))
    }

    /// Stores them in a new transaction, and reads `asks` in the same trip to the database; or in the trip of what comes next, if this process never met what they
    /// are about, as if nobody had.
    ///
    /// # Errors
    /// As any use of the database. [`Error::Conflict`], now or at the commit, if somebody had: another attempt asks.
    pub async fn store(self, asks: &Asks) -> Result<(Tx, Stored), Error> {
        let mut tx = self.core.begin(Line::Ingest).await?;
        if let Some((accepted, events)) = tx.insert_strangers(self.batch, asks).await? {
            *self.accepted = accepted;
            return Ok((tx, Stored::Claimed(events, Known::default())));
        }
        let (accepted, fresh) = tx.insert_deliveries(self.batch, Some(asks)).await?;
        let events = self.batch.iter().map(|delivery| delivery.events()).sum();
        *self.accepted = accepted;
        Ok((tx, fresh.map_or(Stored::Queued(events), |(events, known)| Stored::Claimed(events, known))))
    }
}

impl Store {
    /// From now on small deliveries are decided in the transaction that stores them, for as long as `decider` lives. On SQLite alone, where a second
    /// transaction would wait for a sync of its own; on PostgreSQL the workers of all replicas decide side by side.
    pub fn decide_with(&self, decider: Weak<dyn Decider>) {
        if self.backend() == Backend::Sqlite {
            *self.core.decider.lock().unwrap_or_else(PoisonError::into_inner) = Some(decider);
        }
    }
}

impl Core {
    /// Who decides so many events at once, if they are few and nothing else waits.
    pub(crate) fn decider(&self, events: usize) -> Option<Arc<dyn Decider>> {
        let decider = self.decider.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Weak::upgrade);
        decider.filter(|decider| events <= AT_ONCE && decider.is_free() && self.unopened.is_none())
    }
}
