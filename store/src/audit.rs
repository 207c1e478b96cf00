//! The audit log: one row per decision, each with a keyed hash of its own; sealed into a chain a moment later (`chain.rs`).

use domain::audit::{AuditRow, NewAudit, Unreadable};
use jiff::Timestamp;

use crate::codec::{Tried, clean, from_doc, from_word, micros, time, to_doc, word};
use crate::incidents::escape_like;
use crate::tx::{exec, exec_rows, rows};
use crate::{Error, Store, Tx};

pub(crate) type Row = (i64, Tried<i64>, Text, Text, Text, Text, Text, Text, Text, Option<i64>);
/// What a row says, as it is stored: when, who, what, about what, whether, why, the details.
pub(crate) type Said = (Tried<i64>, Text, Text, Text, Text, Text, Text);
pub(crate) type Text = Tried<String>;

/// Which rows of the audit log; empty fields match all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only those before this number; the newest if 0.
    pub before: i64,
    /// Who did it: the beginning of the actor, with or without `principal:`.
    pub actor: String,
    /// What was asked for: the beginning of the action.
    pub action: String,
    /// About what: the beginning of the object.
    pub object: String,
    /// How many at most.
    pub limit: i64,
}

impl Tx {
    /// Adds a row. It lasts if and only if the decision does.
    ///
    /// # Errors
    /// As any use of the database; then the decision must not last either.
    pub async fn audit(&mut self, row: &NewAudit) -> Result<(), Error> {
        self.audit_all(std::slice::from_ref(row)).await
    }

    /// Adds several rows, in this order.
    ///
    /// # Errors
    /// As any use of the database; then the decisions must not last either.
    pub async fn audit_all(&mut self, rows: &[NewAudit]) -> Result<(), Error> {
        let stored = rows.iter().map(|row| {
            let row = stored_form(row);
            let mac = self.core.audit_keys.mac(&row);
            Ok((word(&row.decision)?, to_doc(&row.detail)?, mac, row))
        });
        let stored: Vec<_> = stored.collect::<Result<_, Error>>()?;
        exec_rows!(
            self,
            "insert into audit (at, actor, action, object, decision, reason, detail, mac) ",
            stored,
            |b, r| b
                .push_bind(micros(r.3.at))
                .push_bind(&r.3.actor)
                .push_bind(&r.3.action)
                .push_bind(&r.3.object)
                .push_bind(&r.0)
                .push_bind(&r.3.reason)
                .push_bind(&r.1)
                .push_bind(&r.2),
            ""
        );
        Ok(())
    }

    /// Rows after a place, in order.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn audit_rows(&mut self, after_seq: i64, limit: i64) -> Result<Vec<Result<AuditRow, Unreadable>>, Error> {
        let found: Vec<Row> = rows!(
            self,
            "select seq, at, actor, action, object, decision, reason, detail, mac, batch from audit where seq > $1 order by seq limit $2",
            after_seq,
            limit
        );
        Ok(found.into_iter().map(read).collect())
    }

    /// Rows, newest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn newest_audit(&mut self, filter: &AuditFilter) -> Result<Vec<Result<AuditRow, Unreadable>>, Error> {
        let begins = |text: &str| format!("{}%", escape_like(&clean(&text.to_lowercase())));
        let found: Vec<Row> = rows!(
            self,
            "select seq, at, actor, action, object, decision, reason, detail, mac, batch from audit \
             where ($1 = 0 or seq < $1) and (lower(actor) like $2 escape '\\' or lower(actor) like 'principal:' || $2 escape '\\') \
             and lower(action) like $3 escape '\\' and lower(object) like $4 escape '\\' \
             order by seq desc limit $5",
            filter.before,
            begins(&filter.actor),
            begins(&filter.action),
            begins(&filter.object),
            filter.limit
        );
        Ok(found.into_iter().map(read).collect())
    }

    /// Counts refusals of the unknown, who get no row each: an attacker must not be able to fill the log.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn count_refusal(&mut self, source: &str, reason: &str, minute: Timestamp, n: i64) -> Result<(), Error> {
        exec!(
            self,
            "insert into refusals (source, reason, minute, n) values ($1, $2, $3, $4) \
             on conflict (source, reason, minute) do update set n = refusals.n + excluded.n",
            clean(source),
            clean(reason),
            minute.as_second().div_euclid(60),
            n
        );
        Ok(())
    }

    /// The counted refusals since a time: source, reason, minute, how many.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn refusals(&mut self, since: Timestamp) -> Result<Vec<(String, String, Timestamp, i64)>, Error> {
        let found: Vec<(String, String, i64, i64)> = rows!(
            self,
            "select source, reason, minute, n from refusals where minute >= $1 order by minute, source, reason",
            since.as_second().div_euclid(60)
        );
        let one = |(source, reason, minute, n): (String, String, i64, i64)| {
            let at = time("refusals", &source, minute.saturating_mul(60_000_000))?;
            Ok((source, reason, at, n))
        };
        found.into_iter().map(one).collect()
    }
}

impl Store {
    /// Whether a row is as it was written: its keyed hash fits.
    ///
    /// # Errors
    /// If the row has no canonical form.
    pub fn audit_intact(&self, row: &AuditRow) -> Result<bool, Error> {
        Ok(self.core.audit_keys.made(&row.row, &row.mac))
    }
}

/// A row from the database.
pub(crate) fn read((seq, at, actor, action, object, decision, reason, detail, mac, batch): Row) -> Result<AuditRow, Unreadable> {
    let (row, mac) = content(seq, (at, actor, action, object, decision, reason, detail), mac);
    match row {
        Ok(row) => Ok(AuditRow { seq, row, mac, batch }),
        Err(why) => Err(Unreadable { seq, why, mac }),
    }
}

/// What a row says, and its keyed hash: without that the row cannot be read either.
pub(crate) fn content(
    seq: i64,
    (at, actor, action, object, decision, reason, detail): Said,
    mac: Text,
) -> (Result<NewAudit, String>, String) {
    let why = |error: Error| if let Error::Corrupt { why, .. } = error { why } else { error.to_string() };
    let (mac, keyed) = mac.0.map_or_else(|why| (String::new(), Err(why)), |mac| (mac, Ok(())));
    let row = || -> Result<NewAudit, String> {
        keyed?;
        Ok(NewAudit {
            at: time("audit", seq, at.0?).map_err(why)?,
            actor: actor.0?,
            action: action.0?,
            object: object.0?,
            decision: from_word("audit", seq, &decision.0?).map_err(why)?,
            reason: reason.0?,
            detail: from_doc("audit", seq, &detail.0?).map_err(why)?,
        })
    };
    (row(), mac)
}

/// The row as it will be read back: the hash must fit that.
fn stored_form(row: &NewAudit) -> NewAudit {
    let text = |text: &str| clean(text).into_owned();
    NewAudit {
        at: Timestamp::from_microsecond(micros(row.at)).unwrap_or(row.at),
        actor: text(&row.actor),
        action: text(&row.action),
        object: text(&row.object),
        reason: text(&row.reason),
        ..row.clone()
    }
}
