//! Reports of agents: the first one of an execution counts, and stays until nobody can ask for it.

use domain::order::Report;
use jiff::SignedDuration;

use crate::codec::{clean, from_doc, micros, to_doc};
use crate::gate::Line;
use crate::tx::{exec, row};
use crate::{Change, Error, Store, Tx};

/// A report that nobody asked for in this time is removed.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 7);

impl Tx {
    /// What an agent reported of an execution, if it did.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn agent_report(&mut self, execution: &str) -> Result<Option<Report>, Error> {
        let found: Option<(String,)> = row!(self, "select doc from agent_reports where execution = $1", clean(execution));
        found.map(|(doc,)| from_doc("agent_reports", execution, &doc)).transpose()
    }
}

impl Store {
    /// Keeps a report; says whether it is the first of its execution. One of an unknown outcome gives way to one that knows.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn keep_agent_report(&self, agent: &str, report: &Report) -> Result<bool, Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let now = self.core.clock.now();
        let kept = exec!(
            tx,
            "insert into agent_reports (execution, agent, at, doc) values ($1, $2, $3, $4) on conflict (execution) do update \
             set doc = excluded.doc, at = excluded.at where agent_reports.agent = excluded.agent and agent_reports.doc like '%\"ended\":{\"unknown\"%'",
            clean(&report.jti),
            clean(agent),
            micros(now),
            to_doc(report)?
        );
        exec!(tx, "delete from agent_reports where at < $1", micros(now - KEPT));
        tx.changed(Change::Jobs);
        tx.commit().await?;
        Ok(kept == 1)
    }
}
