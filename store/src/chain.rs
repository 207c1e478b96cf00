//! The chain of the audit log: sealing what was written, and reading it as it stands, whatever somebody may have made of it.

use std::collections::BTreeSet;

use domain::audit::{AuditRow, Content, Link, START, Seal, Unreadable, chain, chain_unreadable};
use domain::canonical::{Digest, digest};

use crate::audit::{Text, content};
use crate::codec::{Tried, corrupt, micros, time};
use crate::tx::{exec, exec_rows, row, rows};
use crate::{Error, Store, Tx};

type SealRow = (i64, i64, i64, i64, Vec<u8>, Vec<u8>, String);
type LinkRow = (i64, i64, Tried<Option<Vec<u8>>>, Tried<Option<Vec<u8>>>, Tried<i64>, Text, Text, Text, Text, Text, Text, Text);

/// A row's place in the chain: batch and number.
pub type Place = (i64, i64);

/// What was sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// How many rows.
    pub rows: usize,
    /// Those of them that could not be read: whoever verifies will hear of them, for ever.
    pub unreadable: Vec<Unreadable>,
}

impl Store {
    /// Seals the rows that wait, at most so many. Any number of processes may call it at any time: the batch's number goes
    /// to one of them, and the others have sealed nothing.
    ///
    /// Rows are chained in the order in which they can be seen, not in that of their numbers: on PostgreSQL a smaller number may be committed
    /// later, and then it goes into a later batch. One that cannot be read has its place in the chain as such, and keeps no other waiting.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn seal_audit(&self, most: i64) -> Result<Sealed, Error> {
        if self.read().await?.audit_waiting(0, 1).await?.is_empty() {
            return Ok(Sealed::default());
        }
        let mut tx = self.begin().await?;
        match tx.seal(most).await {
            Ok(sealed) => {
                tx.commit().await?;
                Ok(sealed)
            }
            Err(Error::Conflict | Error::Retry) => {
                tx.rollback().await?;
                Ok(Sealed::default())
            }
            Err(error) => Err(error),
        }
    }
}

impl Tx {
    async fn seal(&mut self, most: i64) -> Result<Sealed, Error> {
        let last = self.last_seal().await?;
        let (batch, rows, prev_hash) = last.as_ref().map_or((1, 0, START), |seal| (seal.batch + 1, seal.rows, seal.hash));
        let waiting = self.audit_waiting(0, most).await?;
        let mut head = prev_hash;
        let mut links: Vec<(i64, Vec<u8>, Vec<u8>)> = Vec::with_capacity(waiting.len());
        let mut unreadable = Vec::new();
        for row in waiting {
            let (seq, hash) = match &row {
                Ok(row) => (row.seq, chain(head, batch, row.seq, &row.mac, digest(&row.row))),
                Err(row) => (row.seq, chain_unreadable(head, batch, row.seq, &row.mac)),
            };
            links.push((seq, head.0.to_vec(), hash.0.to_vec()));
            unreadable.extend(row.err());
            head = hash;
        }
        let Some(seq) = links.last().map(|link| link.0) else { return Ok(Sealed::default()) };
        let rows = rows + links.len() as i64;
        let seal = Seal { batch, at: self.core.clock.now(), rows, seq, prev_hash, hash: head, mac: String::new() };
        let seal = self.core.audit_keys.seal(as_stored(seal));
        // First: whoever is second fails on the batch's number, before any row is touched.
        exec!(
            self,
            "insert into audit_seals (batch, at, rows_until, seq, prev_hash, hash, mac) values ($1, $2, $3, $4, $5, $6, $7)",
            seal.batch,
            micros(seal.at),
            seal.rows,
            seal.seq,
            seal.prev_hash.0.to_vec(),
            seal.hash.0.to_vec(),
            &seal.mac
        );
        exec_rows!(
            self,
            "update audit set batch = v.column1, prev_hash = v.column3, hash = v.column4 from (",
            links,
            |b, link| b.push_bind(batch).push_bind(link.0).push_bind(&link.1).push_bind(&link.2),
            ") as v where audit.seq = v.column2 and audit.batch is null"
        );
        let found: Option<(i64,)> = row!(self, "select count(*) from audit where batch = $1", batch);
        if found.unwrap_or_default().0 != links.len() as i64 {
            return Err(Error::Conflict);
        }
        Ok(Sealed { rows: links.len(), unreadable })
    }

    /// The rows that wait to be sealed, behind this number, in order.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn audit_waiting(&mut self, after: i64, most: i64) -> Result<Vec<Result<AuditRow, Unreadable>>, Error> {
        let found: Vec<crate::audit::Row> = rows!(
            self,
            "select seq, at, actor, action, object, decision, reason, detail, mac, batch from audit \
             where batch is null and seq > $1 order by seq limit $2",
            after,
            most
        );
        Ok(found.into_iter().map(crate::audit::read).collect())
    }

    /// Sealed rows behind a place, in the order of the chain. One that cannot be read is told as such.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn audit_links(&mut self, after: Place, most: i64) -> Result<Vec<Link>, Error> {
        let found: Vec<LinkRow> = rows!(
            self,
            "select seq, batch, prev_hash, hash, at, actor, action, object, decision, reason, detail, mac from audit \
             where batch is not null and (batch, seq) > ($1, $2) order by batch, seq limit $3",
            after.0,
            after.1,
            most
        );
        Ok(found.into_iter().map(link).collect())
    }

    /// Seals of the batches behind this one, in order.
    ///
    /// # Errors
    /// As any use of the database, and if one cannot be read.
    pub async fn audit_seals(&mut self, after: i64, most: i64) -> Result<Vec<Seal>, Error> {
        let found: Vec<SealRow> = rows!(
            self,
            "select batch, at, rows_until, seq, prev_hash, hash, mac from audit_seals where batch > $1 order by batch limit $2",
            after,
            most
        );
        found.into_iter().map(seal).collect()
    }

    /// The end of the chain.
    ///
    /// # Errors
    /// As any use of the database, and if it cannot be read.
    pub async fn last_seal(&mut self) -> Result<Option<Seal>, Error> {
        let found: Option<SealRow> =
            row!(self, "select batch, at, rows_until, seq, prev_hash, hash, mac from audit_seals order by batch desc limit 1");
        found.map(seal).transpose()
    }

    /// The batches that hold rows about one of these objects.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn audit_batches_of(&mut self, objects: &[String]) -> Result<BTreeSet<i64>, Error> {
        let mut batches = BTreeSet::new();
        for object in objects {
            let found: Vec<(i64,)> = rows!(self, "select distinct batch from audit where batch is not null and object = $1", object);
            batches.extend(found.into_iter().map(|(batch,)| batch));
        }
        Ok(batches)
    }
}

/// As it will be read back: the hash must fit that.
fn as_stored(seal: Seal) -> Seal {
    Seal { at: jiff::Timestamp::from_microsecond(micros(seal.at)).unwrap_or(seal.at), ..seal }
}

fn seal((batch, at, rows, seq, prev_hash, hash, mac): SealRow) -> Result<Seal, Error> {
    let hash_of = |bytes: &[u8]| hash_from(bytes).ok_or_else(|| corrupt("audit_seals", batch, "a hash has not 32 bytes"));
    Ok(Seal { batch, at: time("audit_seals", batch, at)?, rows, seq, prev_hash: hash_of(&prev_hash)?, hash: hash_of(&hash)?, mac })
}

fn link((seq, batch, prev_hash, hash, at, actor, action, object, decision, reason, detail, mac): LinkRow) -> Link {
    let (content, mac) = content(seq, (at, actor, action, object, decision, reason, detail), mac);
    let hash_of = |bytes: Tried<Option<Vec<u8>>>| bytes.0.ok().flatten().and_then(|bytes| hash_from(&bytes));
    let content = content.map_or_else(Content::Unreadable, Content::Row);
    Link { seq, batch, mac, prev_hash: hash_of(prev_hash), hash: hash_of(hash), content }
}

/// A hash from the database, if it is one.
pub(crate) fn hash_from(bytes: &[u8]) -> Option<Digest> {
    bytes.try_into().ok().map(Digest)
}
