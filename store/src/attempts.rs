//! The journal of a run: each attempt's intent before anything happens, its result afterwards.

use domain::audit::{AuditDecision, NewAudit};
use domain::id::RunId;
use domain::run::Attempt;
use serde_json::Value;

use crate::codec::{from_doc, to_doc};
use crate::runs::ACTIVE;
use crate::tx::{exec_one, exec_rows, rows};
use crate::{Error, Tx};

impl Tx {
    /// Stores the intent of an attempt, and its row in the audit log with this `detail`. Commit before anything happens.
    ///
    /// # Errors
    /// [`Error::Conflict`] if this attempt was begun already, by whomever; now or at the commit.
    pub async fn start_attempt(&mut self, attempt: &Attempt, detail: Value) -> Result<(), Error> {
        let one = [(attempt, to_doc(attempt)?)];
        exec_rows!(
            self,
            "insert into attempts (run_id, step_index, attempt, state, doc) ",
            one,
            |b, a| b
                .push_bind(a.0.run.to_string())
                .push_bind(a.0.index)
                .push_bind(a.0.attempt)
                .push_bind(a.0.state.as_str())
                .push_bind(&a.1),
            ""
        );
        self.audit(&NewAudit {
            at: attempt.started_at,
            actor: "system".to_owned(),
            action: "step.start".to_owned(),
            object: format!("run:{}", attempt.run),
            decision: AuditDecision::Allowed,
            reason: "begun".to_owned(),
            detail,
        })
        .await
    }

    /// Stores more of an attempt's intent: the process that waits to be told. Commit before it is.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was not begun, or has ended; now or at the commit.
    pub async fn note_attempt(&mut self, attempt: &Attempt) -> Result<(), Error> {
        let doc = to_doc(attempt)?;
        exec_one!(self, |sql| {
            sql.push("update attempts set doc = ").push_bind(&doc).push(" where run_id = ").push_bind(attempt.run.to_string());
            sql.push(" and step_index = ").push_bind(attempt.index).push(" and attempt = ").push_bind(attempt.attempt);
            sql.push(" and state = 'started'")
        });
        Ok(())
    }

    /// The attempts without a known result: those that were begun, whatever became of their runs, and those of which nobody knows while their runs
    /// have not ended.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn unfinished_attempts(&mut self) -> Result<Vec<Attempt>, Error> {
        let found: Vec<(String, String)> = rows!(self, sqlx::AssertSqlSafe(unfinished().as_str()));
        let mut attempts: Vec<Attempt> =
            found.into_iter().map(|(run, doc)| from_doc("attempts", run, &doc)).collect::<Result<_, Error>>()?;
        attempts.sort_by_key(|attempt| (attempt.run, attempt.index, attempt.attempt));
        Ok(attempts)
    }

    /// Stores the result of an attempt that was begun, or the truth about one that was unknown.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was not begun, or has a result; now or at the commit.
    pub async fn finish_attempt(&mut self, attempt: &Attempt) -> Result<(), Error> {
        let doc = to_doc(attempt)?;
        exec_one!(self, |sql| {
            sql.push("update attempts set state = ").push_bind(attempt.state.as_str()).push(", doc = ").push_bind(&doc);
            sql.push(" where run_id = ").push_bind(attempt.run.to_string());
            sql.push(" and step_index = ").push_bind(attempt.index).push(" and attempt = ").push_bind(attempt.attempt);
            sql.push(" and state in ('started', 'unknown')")
        });
        Ok(())
    }

    /// A run's journal, in order.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn attempts(&mut self, run: RunId) -> Result<Vec<Attempt>, Error> {
        let found: Vec<(String,)> = rows!(self, "select doc from attempts where run_id = $1 order by step_index, attempt", run.to_string());
        found.into_iter().map(|(doc,)| from_doc("attempts", run, &doc)).collect()
    }
}

/// Without an order: for one SQLite would read all attempts there ever were.
pub(crate) fn unfinished() -> String {
    format!(
        "select a.run_id, a.doc from attempts a where a.state in ('started', 'unknown') \
         and (a.state = 'started' or exists (select 1 from runs r where r.id = a.run_id and r.{ACTIVE}))"
    )
}
