//! Requests for approval, decided once.

use domain::approval::Approval;
use domain::id::{ApprovalId, RunId};
use domain::lifecycle::of_approval;

use crate::codec::{from_doc, micros, to_doc};
use crate::tx::{exec, row, rows};
use crate::{Change, Error, Tx};

impl Tx {
    /// Stores a new request.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is stored already.
    pub async fn insert_approval(&mut self, approval: &Approval) -> Result<(), Error> {
        let inserted = exec!(
            self,
            "insert into approvals (id, run_id, state, votes, created_at, expires_at, doc) values ($1, $2, $3, $4, $5, $6, $7) \
             on conflict do nothing",
            approval.id.to_string(),
            approval.run.to_string(),
            approval.state.as_str(),
            votes(approval.votes.len()),
            micros(approval.created_at),
            micros(approval.expires_at),
            to_doc(approval)?
        );
        if inserted != 1 {
            return Err(Error::Conflict);
        }
        self.approval_changed(approval, None);
        Ok(())
    }

    /// Stores a vote or the end of a request that was pending with `expected_votes` votes.
    ///
    /// # Errors
    /// [`Error::Conflict`] if somebody voted or it ended meanwhile.
    pub async fn put_approval(&mut self, approval: &Approval, expected_votes: usize) -> Result<(), Error> {
        let updated = exec!(
            self,
            "update approvals set state = $1, votes = $2, expires_at = $3, doc = $4 where id = $5 and state = 'pending' and votes = $6",
            approval.state.as_str(),
            votes(approval.votes.len()),
            micros(approval.expires_at),
            to_doc(approval)?,
            approval.id.to_string(),
            votes(expected_votes)
        );
        if updated != 1 {
            return Err(Error::Conflict);
        }
        self.approval_changed(approval, Some("pending"));
        Ok(())
    }

    fn approval_changed(&mut self, approval: &Approval, before: Option<&str>) {
        if let Some(incident) = approval.incident {
            self.changed(Change::Incident(incident));
        }
        self.tell_bus(of_approval(approval, before, self.core.clock.now()));
    }

    /// One request.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn approval(&mut self, id: ApprovalId) -> Result<Option<Approval>, Error> {
        let found: Option<(String,)> = row!(self, "select doc from approvals where id = $1", id.to_string());
        found.map(|(doc,)| from_doc("approvals", id, &doc)).transpose()
    }

    /// The newest request of a run.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn approval_of(&mut self, run: RunId) -> Result<Option<Approval>, Error> {
        let found: Option<(String,)> =
            row!(self, "select doc from approvals where run_id = $1 order by created_at desc, id desc limit 1", run.to_string());
        found.map(|(doc,)| from_doc("approvals", run, &doc)).transpose()
    }

    /// All requests of a run, oldest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn approvals_of(&mut self, run: RunId) -> Result<Vec<Approval>, Error> {
        let found: Vec<(String,)> = rows!(self, "select doc from approvals where run_id = $1 order by created_at, id", run.to_string());
        found.into_iter().map(|(doc,)| from_doc("approvals", run, &doc)).collect()
    }

    /// Requests that wait for a decision, oldest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn pending_approvals(&mut self, limit: i64) -> Result<Vec<Approval>, Error> {
        let found: Vec<(String, String)> =
            rows!(self, "select id, doc from approvals where state = 'pending' order by created_at, id limit $1", limit);
        found.into_iter().map(|(id, doc)| from_doc("approvals", id, &doc)).collect()
    }
}

fn votes(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
