//! What happened to an incident, entry by entry.

use std::collections::BTreeSet;

use domain::id::IncidentId;
use domain::timeline::Entry;

use crate::codec::{from_doc, micros, to_doc};
use crate::tx::{exec_rows, rows, rows_of};
use crate::{Change, Error, Tx};

impl Tx {
    /// Adds entries, in this order. The numbers of an incident's entries rise in the order in which they can be seen: whoever reads on after the last
    /// one that they know misses none.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn tell(&mut self, entries: &[Entry]) -> Result<(), Error> {
        if self.is_postgres() {
            // In one order for all, so that two transactions do not wait for each other.
            let incidents = Vec::from_iter(BTreeSet::from_iter(entries.iter().map(|entry| entry.incident.to_string())));
            let _told: Vec<(String,)> = rows_of!(
                self,
                "select id from incidents where id in (",
                incidents,
                |b, incident| b.push_bind(incident),
                ") order by id for update"
            );
        }
        let docs = entries.iter().map(|entry| Ok((entry, to_doc(entry)?))).collect::<Result<Vec<_>, Error>>()?;
        exec_rows!(
            self,
            "insert into timeline (incident, at, doc) ",
            docs,
            |b, entry| b.push_bind(entry.0.incident.to_string()).push_bind(micros(entry.0.at)).push_bind(&entry.1),
            ""
        );
        for entry in entries {
            self.changed(Change::Incident(entry.incident));
        }
        Ok(())
    }

    /// The newest entries of an incident, oldest first, each with its number.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn timeline(&mut self, incident: IncidentId, limit: i64) -> Result<Vec<(i64, Entry)>, Error> {
        let mut found: Vec<(i64, String)> =
            rows!(self, "select id, doc from timeline where incident = $1 order by id desc limit $2", incident.to_string(), limit);
        found.reverse();
        found.into_iter().map(|(id, doc)| Ok((id, from_doc("timeline", id, &doc)?))).collect()
    }
}
