//! Incidents: at most one open per source and grouping key, changed only by compare-and-set.

use std::collections::{BTreeSet, HashMap};
use std::sync::PoisonError;

use domain::id::IncidentId;
use domain::incident::Incident;
use domain::lifecycle::of_incident;

use crate::codec::{clean, from_doc, micros, to_doc};
use crate::tx::{exec_one, exec_rows, row, rows, rows_built, rows_of};
use crate::{Change, Error, Tx};

/// What stands before and after the keys. A join, because SQLite reads the whole table for `(source, group_key) in (..)`.
pub(crate) const FIND: [&str; 2] = [
    "select i.source, i.id, i.doc from (",
    ") k join incidents i on i.source = k.column1 and i.group_key = k.column2 where i.state <> 'closed' order by i.source, i.group_key, i.id",
];
/// Titles are searched by this many leading characters.
const SEARCH: usize = 200;

/// Which incidents to list.
#[derive(Clone, Debug, Default)]
pub struct IncidentFilter {
    /// Leave out resolved and closed ones.
    pub open_only: bool,
    /// Number (with or without `#`) or title begins with this, whatever the case.
    pub prefix: Option<String>,
    /// Only numbers below this: the last number of the page before.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: i64,
}

impl Tx {
    /// For each source and grouping key the incident that a new alert may join: the open one, else the one resolved last and not closed.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn latest_incidents(&mut self, keys: &[(String, String)]) -> Result<HashMap<(String, String), Incident>, Error> {
        let lock = self.lock(" for update of i");
        // In one order for all, so that two transactions do not wait for each other.
        let keys = BTreeSet::from_iter(keys).into_iter().collect::<Vec<_>>();
        let found =
            rows_of!(self, FIND[0], keys, |b, key| b.push_bind(clean(&key.0)).push_bind(clean(&key.1)), format!("{}{lock}", FIND[1]));
        latest(found)
    }

    /// The number for a new incident. On PostgreSQL one that is rolled back stays unused.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn next_incident_number(&mut self) -> Result<i64, Error> {
        let postgres = self.is_postgres();
        let known = self.last_number.or_else(|| *self.core.last_number.lock().unwrap_or_else(PoisonError::into_inner));
        let number = match known {
            Some(last) if !postgres => last + 1,
            _ => {
                let last = "select coalesce(max(seq), 0) + 1 from sqlite_sequence where name = 'incidents'";
                let number: Option<(i64,)> = row!(self, if postgres { "select nextval('incident_number')" } else { last });
                number.map_or(1, |(number,)| number)
            }
        };
        if !postgres {
            // Nobody else writes before this transaction ends, and then the last one is stored.
            self.last_number = Some(number);
        }
        Ok(number)
    }

    /// Whoever writes next goes on from the numbers that were given out; if this is not stored after all, a number stays unused.
    pub(crate) fn keep_number(&mut self) {
        if let Some(last) = self.last_number.take() {
            *self.core.last_number.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        }
    }

    /// Stores new incidents.
    ///
    /// # Errors
    /// [`Error::Conflict`], now or at the commit, if one is open for the source and grouping key of any of them.
    pub async fn insert_incidents(&mut self, incidents: &[&Incident]) -> Result<(), Error> {
        let docs: Vec<_> = incidents.iter().map(|incident| Ok((*incident, to_doc(incident)?))).collect::<Result<_, Error>>()?;
        exec_rows!(
            self,
            "insert into incidents (id, number, source, group_key, state, severity_name, search, resolved_at, version, doc) ",
            docs,
            |b, r| b
                .push_bind(r.0.id.to_string())
                .push_bind(r.0.number)
                .push_bind(clean(&r.0.source))
                .push_bind(clean(&r.0.group_key))
                .push_bind(r.0.state.as_str())
                .push_bind(clean(&r.0.severity_name))
                .push_bind(search(&r.0.title))
                .push_bind(r.0.resolved.as_ref().map(|(at, _)| micros(*at)))
                .push_bind(r.0.version)
                .push_bind(&r.1),
            ""
        );
        incidents.iter().for_each(|incident| self.incident_changed(incident, None));
        Ok(())
    }

    /// Stores a changed incident.
    ///
    /// # Errors
    /// [`Error::Conflict`] if its stored version is not `expected_version`, or if it would be a second open one; now or at the commit.
    pub async fn put_incident(&mut self, incident: &Incident, expected_version: i64) -> Result<(), Error> {
        let before = self.state_before("select state from incidents where id = $1", incident.id.to_string()).await?;
        let doc = to_doc(incident)?;
        exec_one!(self, |sql| {
            sql.push("update incidents set state = ").push_bind(incident.state.as_str());
            sql.push(", severity_name = ").push_bind(clean(&incident.severity_name));
            sql.push(", search = ").push_bind(search(&incident.title));
            sql.push(", resolved_at = ").push_bind(incident.resolved.as_ref().map(|(at, _)| micros(*at)));
            sql.push(", version = ").push_bind(incident.version).push(", doc = ").push_bind(&doc);
            sql.push(" where id = ").push_bind(incident.id.to_string());
            sql.push(" and version = ").push_bind(expected_version)
        });
        self.incident_changed(incident, before.as_deref());
        Ok(())
    }

    fn incident_changed(&mut self, incident: &Incident, before: Option<&str>) {
        self.changed(Change::Incident(incident.id));
        self.tell_bus(of_incident(incident, before, self.core.clock.now()));
    }

    /// One incident.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn incident(&mut self, id: IncidentId) -> Result<Option<Incident>, Error> {
        let found: Vec<(String,)> = rows_built!(self, |sql| sql.push("select doc from incidents where id = ").push_bind(id.to_string()));
        found.first().map(|(doc,)| from_doc("incidents", id, doc)).transpose()
    }

    /// The incident that people call `#number`.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn incident_by_number(&mut self, number: i64) -> Result<Option<Incident>, Error> {
        let found: Option<(String,)> = row!(self, "select doc from incidents where number = $1", number);
        found.map(|(doc,)| from_doc("incidents", number, &doc)).transpose()
    }

    /// Incidents, newest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn incidents(&mut self, filter: &IncidentFilter) -> Result<Vec<Incident>, Error> {
        let prefix = clean(filter.prefix.as_deref().unwrap_or_default());
        let number = format!("{}%", escape_like(prefix.strip_prefix('#').unwrap_or(&prefix)));
        let title = format!("{}%", escape_like(&search(&prefix)));
        let sql = list(filter.open_only);
        let found: Vec<(String, String)> =
            rows!(self, sqlx::AssertSqlSafe(sql.as_str()), filter.before.unwrap_or(i64::MAX), number, title, filter.limit);
        found.into_iter().map(|(id, doc)| from_doc("incidents", id, &doc)).collect()
    }

    /// How many incidents are open, by severity.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn count_open(&mut self) -> Result<Vec<(String, i64)>, Error> {
        Ok(rows!(
            self,
            "select severity_name, count(*) from incidents where state in ('open', 'acknowledged', 'mitigated') \
             group by severity_name order by severity_name"
        ))
    }
}

/// Of rows as [`FIND`] gives them, for each source and grouping key the one that a new alert may join.
pub(crate) fn latest(rows: Vec<(String, String, String)>) -> Result<HashMap<(String, String), Incident>, Error> {
    let mut latest: HashMap<(String, String), Incident> = HashMap::new();
    let rank = |incident: &Incident| (incident.state.is_open(), incident.resolved.as_ref().map(|(at, _)| *at), incident.number);
    for (_, id, doc) in rows {
        let incident: Incident = from_doc("incidents", id, &doc)?;
        let key = (incident.source.clone(), incident.group_key.clone());
        match latest.get(&key) {
            Some(other) if rank(other) >= rank(&incident) => {}
            _ => drop(latest.insert(key, incident)),
        }
    }
    Ok(latest)
}

/// Incidents, newest first: before a number, with a number or a title like this, at most so many.
pub(crate) fn list(open_only: bool) -> String {
    let open = if open_only { "and state in ('open', 'acknowledged', 'mitigated') " } else { "" };
    format!(
        "select id, doc from incidents where number < $1 {open}\
         and (cast(number as text) like $2 escape '\\' or search like $3 escape '\\') order by number desc limit $4"
    )
}

/// What a title is found by.
fn search(title: &str) -> String {
    clean(title).chars().take(SEARCH).flat_map(char::to_lowercase).collect()
}

/// The text itself in a `like`, whatever signs it has.
pub(crate) fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
