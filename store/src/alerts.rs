//! What is known of each alert: one row per source and fingerprint.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::alert::Alert;
use domain::id::IncidentId;
use jiff::Timestamp;

use crate::codec::{clean, from_doc, micros, to_doc, word};
use crate::tx::{exec_rows, row, rows, rows_of};
use crate::{Error, Tx};

/// What stands before and after the keys. A join, because SQLite reads the whole table for `(source, fingerprint) in (..)`.
pub(crate) const FIND: [&str; 2] = [
    "select a.source, a.fingerprint, a.doc from (",
    ") k join alerts a on a.source = k.column1 and a.fingerprint = k.column2 order by a.source, a.fingerprint",
];

impl Tx {
    /// The alerts of these sources and fingerprints that were heard of before, locked until the transaction ends.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn alerts(&mut self, keys: &[(String, String)]) -> Result<HashMap<(String, String), Alert>, Error> {
        let lock = self.lock(" for update of a");
        // In one order for all, so that two transactions do not wait for each other.
        let keys = BTreeSet::from_iter(keys).into_iter().collect::<Vec<_>>();
        let found: Vec<(String, String, String)> =
            rows_of!(self, FIND[0], keys, |b, key| b.push_bind(clean(&key.0)).push_bind(clean(&key.1)), format!("{}{lock}", FIND[1]));
        read(found).map(|alerts| alerts.map(|alert| ((alert.source.clone(), alert.fingerprint.clone()), alert)).collect())
    }

    /// Stores alerts as they now are. Of several for one key the last counts.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn put_alerts(&mut self, alerts: &[Alert]) -> Result<(), Error> {
        let unique: BTreeMap<(&str, &str), &Alert> = alerts.iter().map(|a| ((a.source.as_str(), a.fingerprint.as_str()), a)).collect();
        let mut sorted = Vec::with_capacity(unique.len());
        for alert in unique.into_values() {
            sorted.push((alert, word(&alert.state)?, alert.incident.map(|id| id.to_string()), to_doc(alert)?));
        }
        exec_rows!(
            self,
            "insert into alerts (source, fingerprint, state, incident, first_seen, last_seen, doc) ",
            sorted,
            |b, a| b
                .push_bind(clean(&a.0.source))
                .push_bind(clean(&a.0.fingerprint))
                .push_bind(&a.1)
                .push_bind(&a.2)
                .push_bind(micros(a.0.first_seen))
                .push_bind(micros(a.0.last_seen))
                .push_bind(&a.3),
            " on conflict (source, fingerprint) do update set state = excluded.state, incident = excluded.incident, \
             last_seen = excluded.last_seen, doc = excluded.doc"
        );
        Ok(())
    }

    /// An incident's alerts: active ones first, then in the order in which they were first heard of.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn incident_alerts(&mut self, incident: IncidentId, limit: i64) -> Result<Vec<Alert>, Error> {
        let found = rows!(
            self,
            "select source, fingerprint, doc from alerts where incident = $1 \
             order by case when state = 'resolved' then 1 else 0 end, first_seen, fingerprint limit $2",
            incident.to_string(),
            limit
        );
        Ok(read(found)?.collect())
    }

    /// How many alerts an incident has, and how many of them are active.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn count_alerts(&mut self, incident: IncidentId) -> Result<(i64, i64), Error> {
        let counts: Option<(i64, i64)> = row!(
            self,
            "select count(*), count(case when state <> 'resolved' then 1 end) from alerts where incident = $1",
            incident.to_string()
        );
        Ok(counts.unwrap_or((0, 0)))
    }

    /// Active alerts of a source that were not heard of since `before` and are not marked stale yet, the longest silent first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn stale_candidates(&mut self, source: &str, before: Timestamp, limit: i64) -> Result<Vec<Alert>, Error> {
        let found = rows!(
            self,
            "select source, fingerprint, doc from alerts where state not in ('resolved', 'stale') and source = $1 and last_seen < $2 \
             order by last_seen limit $3",
            clean(source),
            micros(before),
            limit
        );
        Ok(read(found)?.collect())
    }
}

/// Alerts from source, fingerprint and document.
pub(crate) fn read(rows: Vec<(String, String, String)>) -> Result<impl Iterator<Item = Alert>, Error> {
    let alert = |(source, fingerprint, doc): (String, String, String)| from_doc("alerts", format!("{source}/{fingerprint}"), &doc);
    let alerts: Vec<Alert> = rows.into_iter().map(alert).collect::<Result<_, _>>()?;
    Ok(alerts.into_iter())
}
