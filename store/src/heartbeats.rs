//! Signs of life that must keep coming.

use domain::duration::Dur;
use jiff::Timestamp;

use crate::codec::{clean, micros, time};
use crate::tx::{exec, row, rows};
use crate::{Error, Tx};

/// One sign of life that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatRow {
    /// The configured source.
    pub source: String,
    /// What must keep coming.
    pub name: String,
    /// Silence longer than this is an incident.
    pub within: Dur,
    /// When it last came.
    pub last_seen: Timestamp,
    /// Whether its silence was told of.
    pub alarmed: bool,
}

type Row = (String, String, i64, i64, i64);

impl HeartbeatRow {
    /// Whether it is late and was not told of.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        !self.alarmed && self.within.after(self.last_seen) < now
    }
}

impl Tx {
    /// One heartbeat. Nobody else changes it before this transaction ends.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn heartbeat(&mut self, source: &str, name: &str) -> Result<Option<HeartbeatRow>, Error> {
        let lock = self.lock(" for update");
        let sql = format!("select source, name, within_us, last_seen, alarmed from heartbeats where source = $1 and name = $2{lock}");
        let found = row!(self, sqlx::AssertSqlSafe(sql.as_str()), clean(source), clean(name));
        found.map(heartbeat).transpose()
    }

    /// Stores a heartbeat as it now is.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn put_heartbeat(&mut self, heartbeat: &HeartbeatRow) -> Result<(), Error> {
        let within = std::time::Duration::from(heartbeat.within).as_micros();
        exec!(
            self,
            "insert into heartbeats (source, name, within_us, last_seen, alarmed) values ($1, $2, $3, $4, $5) \
             on conflict (source, name) do update set within_us = excluded.within_us, last_seen = excluded.last_seen, \
             alarmed = excluded.alarmed",
            clean(&heartbeat.source),
            clean(&heartbeat.name),
            i64::try_from(within).unwrap_or(i64::MAX),
            micros(heartbeat.last_seen),
            i64::from(heartbeat.alarmed)
        );
        Ok(())
    }

    /// Forgets a heartbeat that nobody waits for any more.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn forget_heartbeat(&mut self, source: &str, name: &str) -> Result<(), Error> {
        exec!(self, "delete from heartbeats where source = $1 and name = $2", clean(source), clean(name));
        Ok(())
    }

    /// All of them.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn heartbeats(&mut self) -> Result<Vec<HeartbeatRow>, Error> {
        let found: Vec<Row> = rows!(self, "select source, name, within_us, last_seen, alarmed from heartbeats order by source, name");
        found.into_iter().map(heartbeat).collect()
    }
}

fn heartbeat((source, name, within, last_seen, alarmed): Row) -> Result<HeartbeatRow, Error> {
    Ok(HeartbeatRow {
        last_seen: time("heartbeats", &name, last_seen)?,
        within: Dur::from_millis(u64::try_from(within / 1000).unwrap_or(0)),
        alarmed: alarmed != 0,
        source,
        name,
    })
}
