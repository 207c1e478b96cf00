//! The journal of a run: each attempt's intent before anything happens, its result afterwards.

use domain::audit::{AuditDecision, NewAudit};
use domain::id::RunId;
use domain::run::Attempt;
use serde_json::Value;

use crate::codec::{from_doc, to_doc};
use crate::runs::ACTIVE;
use crate::tx::{exec, row, rows};
use crate::{Error, Tx};

impl Tx {
    /// Stores the intent of an attempt, and its row in the audit log with this `detail`. Commit before anything happens.
    ///
    /// # Errors
    /// [`Error::Conflict`] if this attempt was begun already, by whomever.
    pub async fn start_attempt(&mut self, attempt: &Attempt, detail: Value) -> Result<(), Error> {
        let inserted = exec!(
            self,
            "insert into attempts (run_id, step_index, attempt, state, doc) values ($1, $2, $3, $4, $5) on conflict do nothing",
            attempt.run.to_string(),
            attempt.index,
            attempt.attempt,
            attempt.state.as_str(),
            to_doc(attempt)?
        );
        if inserted != 1 {
            return Err(Error::Conflict);
        }
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
    /// [`Error::Conflict`] if it was not begun, or has ended.
    pub async fn note_attempt(&mut self, attempt: &Attempt) -> Result<(), Error> {
        let updated = exec!(
            self,
            "update attempts set doc = $1 where run_id = $2 and step_index = $3 and attempt = $4 and state = 'started'",
            to_doc(attempt)?,
            attempt.run.to_string(),
            attempt.index,
            attempt.attempt
        );
        if updated == 1 { Ok(()) } else { Err(Error::Conflict) }
    }

    /// The attempts without a known result, of runs that have not ended.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn unfinished_attempts(&mut self) -> Result<Vec<Attempt>, Error> {
        let sql = format!(
            "select a.run_id, a.doc from attempts a join runs r on r.id = a.run_id \
             where a.state in ('started', 'unknown') and r.{ACTIVE} order by a.run_id, a.step_index, a.attempt"
        );
        let found: Vec<(String, String)> = rows!(self, sqlx::AssertSqlSafe(sql.as_str()));
        found.into_iter().map(|(run, doc)| from_doc("attempts", run, &doc)).collect()
    }

    /// Stores the result of an attempt that was begun, or the truth about one that was unknown.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was not begun, or has a result.
    pub async fn finish_attempt(&mut self, attempt: &Attempt) -> Result<(), Error> {
        // With what it was, because an answer may go with what waits: the beginning of the transaction.
        let updated: Option<(i64,)> = row!(
            self,
            "update attempts set state = $1, doc = $2 where run_id = $3 and step_index = $4 and attempt = $5 \
             and state in ('started', 'unknown') returning attempt",
            attempt.state.as_str(),
            to_doc(attempt)?,
            attempt.run.to_string(),
            attempt.index,
            attempt.attempt
        );
        if updated.is_some() { Ok(()) } else { Err(Error::Conflict) }
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
