//! What decisions about alerts ask first, read in as few trips to the database as possible.

use std::collections::BTreeSet;

use sqlx::{ColumnIndex, Decode, FromRow, QueryBuilder, Row, Sqlite, Type};

use crate::at_once::{Asks, Key, Known};
use crate::codec::clean;
use crate::later::Later;
use crate::tx::Conn;
use crate::{Error, Tx, alerts, incidents};

const ALERT: &str = "alert";
const INCIDENT: &str = "incident";

/// An alert or an incident: which of them, its source, its id, and all of it.
pub(crate) type Found = (String, String, String, String);

/// A row that answers when events are stored, and what decisions on them ask is read on the way.
pub(crate) enum Answer {
    /// An event that was new, by its key: its sequence number, and whether something waits in the queue.
    Stored(Vec<u8>, i64, bool),
    Found(Found),
}

impl<'r, R: Row> FromRow<'r, R> for Answer
where
    usize: ColumnIndex<R>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        match row.len() {
            3 => <_>::from_row(row).map(|(key, seq, some_wait)| Self::Stored(key, seq, some_wait)),
            _ => <_>::from_row(row).map(Self::Found),
        }
    }
}

impl Known {
    pub(crate) fn read(found: Vec<Found>) -> Result<Self, Error> {
        let (mut alerts, mut incidents) = (Vec::new(), Vec::new());
        for (kind, source, id, doc) in found {
            if kind == ALERT { &mut alerts } else { &mut incidents }.push((source, id, doc));
        }
        let alerts = alerts::read(alerts)?.map(|alert| ((alert.source.clone(), alert.fingerprint.clone()), alert)).collect();
        Ok(Self { alerts, incidents: incidents::latest(incidents)? })
    }
}

impl Asks {
    /// Writes them as one query; there must be some.
    pub(crate) fn push(&self, sql: &mut QueryBuilder<Sqlite>) {
        let mut select = "select '";
        for (kind, [head, tail], keys) in [(ALERT, alerts::FIND, &self.alerts), (INCIDENT, incidents::FIND, &self.groups)] {
            if keys.is_empty() {
                continue;
            }
            sql.push(select).push(kind).push("', * from (").push(head);
            sql.push_values(keys, |mut row, key| {
                row.push_bind(clean(&key.0)).push_bind(clean(&key.1));
            });
            sql.push(tail).push(")");
            select = " union all select '";
        }
    }
}

impl Tx {
    /// Answers: both kinds on SQLite in one trip, so for few keys. On PostgreSQL what is found is locked until the transaction ends.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn known(&mut self, asks: &Asks) -> Result<Known, Error> {
        if let Conn::Sqlite(tx) = &mut self.conn
            && !asks.alerts.is_empty()
            && !asks.groups.is_empty()
        {
            let mut sql = tx.later().map(Later::take).unwrap_or_default();
            asks.push(&mut sql);
            return Known::read(sql.build_query_as().fetch_all(&mut **tx).await?);
        }
        let keys = |keys: &BTreeSet<Key>| keys.iter().cloned().collect::<Vec<_>>();
        Ok(Known { alerts: self.alerts(&keys(&asks.alerts)).await?, incidents: self.latest_incidents(&keys(&asks.groups)).await? })
    }

    /// Lets the question go with the next statement, if there is a place to wait: the rows of its answer come before that one's, as [`Answer::Found`].
    pub(crate) fn ask_later(&mut self, asks: &Asks) -> bool {
        let Conn::Sqlite(tx) = &mut self.conn else { return false };
        let Some(later) = tx.later() else { return false };
        if !asks.alerts.is_empty() || !asks.groups.is_empty() {
            later.add(true, |sql| asks.push(sql));
        }
        true
    }
}
