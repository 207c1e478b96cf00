//! What other programs are told of: written in the transaction of the change, kept until the bus has it.
//!
//! The methods that store an incident, a run or an approval write the event themselves, so that no change can be made without it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use domain::job::{NewJob, Urgency};
use domain::lifecycle::Lifecycle;
use serde_json::json;

use crate::codec::{from_doc, to_doc};
use crate::gate::Line;
use crate::tx::{exec, row, rows};
use crate::{Error, Store, Tx};

/// The kind of the job that carries a lane's events out.
pub const JOB: &str = "lifecycle.publish";

impl Tx {
    /// The state that a row has now, where somebody wants to hear of its changes.
    pub(crate) async fn state_before(&mut self, sql: &'static str, id: String) -> Result<Option<String>, Error> {
        if !self.publishes() {
            return Ok(None);
        }
        let found: Option<(String,)> = row!(self, sql, id);
        Ok(found.map(|(state,)| state))
    }

    /// Notes an event for the bus, where somebody wants to hear of it.
    pub(crate) fn tell_bus(&mut self, event: Option<Lifecycle>) {
        if self.publishes() {
            self.told.extend(event);
        }
    }

    /// Writes what was noted, and one job for each lane that got something: at the end, and in one order for all, so that two transactions do not
    /// wait for each other. An incident begins before what it brings about, in whatever order both were stored.
    pub(crate) async fn write_told(&mut self) -> Result<(), Error> {
        let mut told = std::mem::take(&mut self.told);
        told.sort_by_key(|event| !matches!(event.kind.as_str(), "incident.opened" | "incident.reopened"));
        let now = self.core.clock.now();
        let mut jobs = BTreeMap::new();
        for event in told {
            let lane = i64::from(event.lane());
            exec!(self, "insert into lifecycle (lane, doc) values ($1, $2)", lane, to_doc(&event)?);
            let (key, payload) = (format!("{lane:02}"), json!({ "lane": lane }));
            jobs.insert(lane, NewJob { kind: JOB, key, due_at: now, urgency: Urgency::Tell, payload });
        }
        let jobs: Vec<NewJob> = jobs.into_values().collect();
        if jobs.is_empty() { Ok(()) } else { self.enqueue(&jobs).await }
    }

    /// A lane's events in order, the oldest first, with the numbers by which [`Store::published`] takes them away.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn unpublished(&mut self, lane: i64, limit: i64) -> Result<Vec<(i64, Lifecycle)>, Error> {
        let found: Vec<(i64, String)> = rows!(self, "select seq, doc from lifecycle where lane = $1 order by seq limit $2", lane, limit);
        found.into_iter().map(|(seq, doc)| Ok((seq, from_doc("lifecycle", seq, &doc)?))).collect()
    }

    /// How many events wait for the bus.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn count_unpublished(&mut self) -> Result<i64, Error> {
        let found: Option<(i64,)> = row!(self, "select count(*) from lifecycle");
        Ok(found.unwrap_or_default().0)
    }

    fn publishes(&self) -> bool {
        self.core.publishes.load(Ordering::Relaxed)
    }
}

impl Store {
    /// From now on changes are kept for the bus. Off unless asked for.
    pub fn publish_lifecycle(&self) {
        self.core.publishes.store(true, Ordering::Relaxed);
    }

    /// The bus has these events.
    ///
    /// # Errors
    /// As any use of the database: they will go out again, under the same ids.
    pub async fn published(&self, seqs: &[i64]) -> Result<(), Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        for seq in seqs {
            exec!(tx, "delete from lifecycle where seq = $1", *seq);
        }
        tx.commit().await
    }
}
