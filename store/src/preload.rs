//! What decisions about alerts read, in as few trips to the database as possible.

use std::collections::HashMap;

use domain::alert::Alert;
use domain::incident::Incident;

use crate::codec::clean;
use crate::tx::rows_built;
use crate::{Error, Tx, alerts, incidents};

/// A source, and what is found by it there: a fingerprint, or a grouping key.
type Key = (String, String);

impl Tx {
    /// [`Tx::alerts`] and [`Tx::latest_incidents`]: on SQLite in one trip, so for few keys.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn alerts_and_incidents(
        &mut self,
        fingerprints: &[Key],
        groups: &[Key],
    ) -> Result<(HashMap<Key, Alert>, HashMap<Key, Incident>), Error> {
        if self.is_postgres() || fingerprints.is_empty() || groups.is_empty() {
            return Ok((self.alerts(fingerprints).await?, self.latest_incidents(groups).await?));
        }
        let found: Vec<(String, String, String, String)> = rows_built!(self, |sql| {
            let wanted = [("alert", alerts::FIND, fingerprints), ("incident", incidents::FIND, groups)];
            for (kind, [head, tail], keys) in wanted {
                sql.push(if kind == "alert" { "select 'alert', * from (" } else { ") union all select 'incident', * from (" });
                sql.push(head).push_values(keys, |mut b, key| {
                    b.push_bind(clean(&key.0)).push_bind(clean(&key.1));
                });
                sql.push(tail);
            }
            sql.push(")");
        });
        let (mut alerts, mut incidents) = (Vec::new(), Vec::new());
        for (kind, source, id, doc) in found {
            if kind == "alert" { &mut alerts } else { &mut incidents }.push((source, id, doc));
        }
        let alerts = alerts::read(alerts)?.map(|alert| ((alert.source.clone(), alert.fingerprint.clone()), alert)).collect();
        Ok((alerts, incidents::latest(incidents)?))
    }
}
