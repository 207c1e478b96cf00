//! Runs of runbooks, changed only by compare-and-set.

use domain::id::{IncidentId, RunId};
use domain::incident::Incident;
use domain::lifecycle::of_run;
use domain::run::{Run, RunState};
use jiff::Timestamp;
use serde_json::Value;

use crate::codec::{clean, from_doc, from_word, id, maybe_time, micros, time, to_doc};
use crate::tx::{exec_one, exec_rows, row, rows};
use crate::{Change, Error, Tx};

/// The states in which a run has not ended; the partial index names the same.
pub(crate) const ACTIVE: &str = "state in ('held', 'awaiting_approval', 'queued', 'running', 'verifying', 'unknown')";

/// Which runs to list.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only those that have not ended.
    pub active_only: bool,
    /// Only this runbook's.
    pub runbook: Option<String>,
    /// Only older than this run: the last of the page before.
    pub before: Option<RunId>,
    /// At most this many.
    pub limit: i64,
}

/// A run, and what is asked before it starts.
#[derive(Clone, Debug)]
pub struct ToStart {
    /// The run.
    pub run: Run,
    /// The flag's value, if it was ever set.
    pub flag: Option<Value>,
    /// The run's incident, if it has one that is there.
    pub incident: Option<Incident>,
    /// Whether any alert of that incident fires.
    pub fires: bool,
}

/// Whether an alert fires, by the state in its row.
const FIRES: &str = "state in ('firing', 'flapping')";

impl Tx {
    /// Stores a new run, and what it would change.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is stored already, now or at the commit.
    pub async fn insert_run(&mut self, run: &Run) -> Result<(), Error> {
        let one = [(run, to_doc(run)?)];
        exec_rows!(
            self,
            "insert into runs (id, incident, runbook, state, created_at, finished_at, version, doc) ",
            one,
            |b, r| b
                .push_bind(r.0.id.to_string())
                .push_bind(r.0.incident.map(|id| id.to_string()))
                .push_bind(clean(&r.0.runbook))
                .push_bind(r.0.state.as_str())
                .push_bind(micros(r.0.created_at))
                .push_bind(r.0.finished_at.map(micros))
                .push_bind(r.0.version)
                .push_bind(&r.1),
            ""
        );
        self.put_run_targets(run).await?;
        self.run_changed(run, None);
        Ok(())
    }

    /// Stores a changed run.
    ///
    /// # Errors
    /// [`Error::Conflict`] if its stored version is not `expected_version`, now or at the commit.
    pub async fn put_run(&mut self, run: &Run, expected_version: i64) -> Result<(), Error> {
        let before = self.state_before("select state from runs where id = $1", run.id.to_string()).await?;
        let doc = to_doc(run)?;
        exec_one!(self, |sql| {
            sql.push("update runs set state = ").push_bind(run.state.as_str());
            sql.push(", finished_at = ").push_bind(run.finished_at.map(micros));
            sql.push(", version = ").push_bind(run.version).push(", doc = ").push_bind(&doc);
            sql.push(" where id = ").push_bind(run.id.to_string()).push(" and version = ").push_bind(expected_version)
        });
        // Before it starts, a run may be rendered afresh and get other targets.
        if matches!(run.state, RunState::Held | RunState::AwaitingApproval | RunState::Queued) {
            let one = [run.id.to_string()];
            exec_rows!(self, "delete from run_targets where run_id in (", one, |b, id| b.push_bind(id), ")");
            self.put_run_targets(run).await?;
        }
        self.run_changed(run, before.as_deref());
        Ok(())
    }

    async fn put_run_targets(&mut self, run: &Run) -> Result<(), Error> {
        let targets: Vec<&str> = run.plan.targets().into_iter().collect();
        exec_rows!(
            self,
            "insert into run_targets (run_id, runbook, target) ",
            targets,
            |b, target| b.push_bind(run.id.to_string()).push_bind(clean(&run.runbook)).push_bind(clean(target)),
            ""
        );
        Ok(())
    }

    fn run_changed(&mut self, run: &Run, before: Option<&str>) {
        if let Some(incident) = run.incident {
            self.changed(Change::Incident(incident));
        }
        self.tell_bus(of_run(run, before, self.core.clock.now()));
    }

    /// One run.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn run(&mut self, id: RunId) -> Result<Option<Run>, Error> {
        let found: Option<(String,)> = row!(self, "select doc from runs where id = $1", id.to_string());
        found.map(|(doc,)| from_doc("runs", id, &doc)).transpose()
    }

    /// The same, for a decision that reads more of it: until the transaction ends nobody else changes it or begins a step of it.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn hold_run(&mut self, id: RunId) -> Result<Option<Run>, Error> {
        let sql = format!("select doc from runs where id = $1{}", self.lock(" for update"));
        let found: Option<(String,)> = row!(self, sqlx::AssertSqlSafe(sql.as_str()), id.to_string());
        found.map(|(doc,)| from_doc("runs", id, &doc)).transpose()
    }

    /// A run and what is asked before it starts, in one trip.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn run_to_start(&mut self, id: RunId, flag: &str) -> Result<Option<ToStart>, Error> {
        let sql = format!(
            "select r.doc, f.value, i.doc, exists (select 1 from alerts a where a.incident = r.incident and a.{FIRES}) \
             from runs r left join flags f on f.key = $2 left join incidents i on i.id = r.incident where r.id = $1"
        );
        let found: Option<(String, Option<String>, Option<String>, bool)> =
            row!(self, sqlx::AssertSqlSafe(sql.as_str()), id.to_string(), clean(flag));
        let Some((run, value, incident, fires)) = found else { return Ok(None) };
        let run: Run = from_doc("runs", id, &run)?;
        let of = run.incident.map(|id| id.to_string()).unwrap_or_default();
        Ok(Some(ToStart {
            run,
            flag: value.map(|value| from_doc("flags", flag, &value)).transpose()?,
            incident: incident.map(|doc| from_doc("incidents", of, &doc)).transpose()?,
            fires,
        }))
    }

    /// Whether any alert of an incident fires.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn fires(&mut self, incident: IncidentId) -> Result<bool, Error> {
        let sql = format!("select exists (select 1 from alerts where incident = $1 and {FIRES})");
        let found: Option<(bool,)> = row!(self, sqlx::AssertSqlSafe(sql.as_str()), incident.to_string());
        Ok(found.is_some_and(|(fires,)| fires))
    }

    /// Where a run stands and its version, and a flag's value if it was ever set: in one trip. Until the transaction ends nobody else changes the run.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn run_state(&mut self, id: RunId, flag: &str) -> Result<Option<(RunState, i64, Option<Value>)>, Error> {
        let lock = self.lock(" for update of r");
        let sql = format!("select r.state, r.version, f.value from runs r left join flags f on f.key = $2 where r.id = $1{lock}");
        let found: Option<(String, i64, Option<String>)> = row!(self, sqlx::AssertSqlSafe(sql.as_str()), id.to_string(), clean(flag));
        let Some((state, version, value)) = found else { return Ok(None) };
        Ok(Some((from_word("runs", id, &state)?, version, value.map(|value| from_doc("flags", flag, &value)).transpose()?)))
    }

    /// An incident's runs, oldest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn runs_of(&mut self, incident: IncidentId) -> Result<Vec<Run>, Error> {
        runs(rows!(self, "select id, doc from runs where incident = $1 order by created_at, id", incident.to_string()))
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn runs(&mut self, filter: &RunFilter) -> Result<Vec<Run>, Error> {
        let sql = list(filter.active_only);
        let runbook = clean(filter.runbook.as_deref().unwrap_or_default());
        let before = filter.before.map(|id| id.to_string()).unwrap_or_default();
        runs(rows!(self, sqlx::AssertSqlSafe(sql.as_str()), runbook, before, filter.limit))
    }

    /// Every run that has not ended, oldest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn active_runs(&mut self) -> Result<Vec<Run>, Error> {
        let sql = format!("select id, doc from runs where {ACTIVE} order by created_at, id");
        runs(rows!(self, sqlx::AssertSqlSafe(sql.as_str())))
    }

    /// The runs of a runbook on a target that were asked for since then, oldest first: state, when asked for, when ended.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn runs_on_target_since(
        &mut self,
        runbook: &str,
        target: &str,
        since: Timestamp,
    ) -> Result<Vec<(RunId, RunState, Timestamp, Option<Timestamp>)>, Error> {
        let found: Vec<(String, String, i64, Option<i64>)> = rows!(
            self,
            "select r.id, r.state, r.created_at, r.finished_at from run_targets t join runs r on r.id = t.run_id \
             where t.target = $1 and t.runbook = $2 and r.created_at >= $3 order by r.created_at, r.id",
            clean(target),
            clean(runbook),
            micros(since)
        );
        let one = |(run, state, created, finished): (String, String, i64, Option<i64>)| {
            Ok((id("runs", &run)?, from_word("runs", &run, &state)?, time("runs", &run, created)?, maybe_time("runs", &run, finished)?))
        };
        found.into_iter().map(one).collect()
    }
}

/// Runs, newest first: of a runbook, before an id, at most so many.
pub(crate) fn list(active_only: bool) -> String {
    let active = if active_only { ACTIVE } else { "1 = 1" };
    format!("select id, doc from runs where {active} and ($1 = '' or runbook = $1) and ($2 = '' or id < $2) order by id desc limit $3")
}

fn runs(rows: Vec<(String, String)>) -> Result<Vec<Run>, Error> {
    rows.into_iter().map(|(id, doc)| from_doc("runs", id, &doc)).collect()
}
