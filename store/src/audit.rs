//! The audit log: one row per decision, each with a keyed hash of its own; a later job seals them into a chain.

use domain::audit::{AuditRow, NewAudit};
use domain::canonical::canonical_json;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use sha2::Sha256;

use crate::codec::{clean, from_doc, from_word, micros, time, to_doc, word};
use crate::open::Core;
use crate::tx::{exec, on, rows};
use crate::{Error, Store, Tx};

type Row = (i64, i64, String, String, String, String, String, String, String);

impl Tx {
    /// Adds a row. It lasts if and only if the decision does.
    ///
    /// # Errors
    /// As any use of the database; then the decision must not last either.
    pub async fn audit(&mut self, row: &NewAudit) -> Result<(), Error> {
        let row = stored_form(row);
        let mac = hex::encode(self.core.audit_mac(&row)?.finalize().into_bytes());
        exec!(
            self,
            "insert into audit (at, actor, action, object, decision, reason, detail, mac) values ($1, $2, $3, $4, $5, $6, $7, $8)",
            micros(row.at),
            &row.actor,
            &row.action,
            &row.object,
            word(&row.decision)?,
            &row.reason,
            to_doc(&row.detail)?,
            mac
        );
        Ok(())
    }

    /// Rows after a place, in order.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn audit_rows(&mut self, after_seq: i64, limit: i64) -> Result<Vec<AuditRow>, Error> {
        let found: Vec<Row> = rows!(
            self,
            "select seq, at, actor, action, object, decision, reason, detail, mac from audit where seq > $1 order by seq limit $2",
            after_seq,
            limit
        );
        let one = |(seq, at, actor, action, object, decision, reason, detail, mac): Row| {
            let row = NewAudit {
                at: time("audit", seq, at)?,
                actor,
                action,
                object,
                decision: from_word("audit", seq, &decision)?,
                reason,
                detail: from_doc("audit", seq, &detail)?,
            };
            Ok(AuditRow { seq, row, mac })
        };
        found.into_iter().map(one).collect()
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
        let Ok(mac) = hex::decode(&row.mac) else { return Ok(false) };
        Ok(self.core.audit_mac(&row.row)?.verify_slice(&mac).is_ok())
    }
}

impl Core {
    fn audit_mac(&self, row: &NewAudit) -> Result<Hmac<Sha256>, Error> {
        let value = serde_json::to_value(row).map_err(|error| Error::Refused(error.to_string()))?;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.audit_key.expose_secret()).map_err(|error| Error::Config(error.to_string()))?;
        mac.update(canonical_json(&value).as_bytes());
        Ok(mac)
    }
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
