//! One transaction on either database, and the macros by which one SQL text serves both.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use domain::lifecycle::Lifecycle;

use crate::open::Core;
use crate::postgres::PgTx;
use crate::sqlite::SqliteTx;
use crate::{Change, Error};

/// A transaction. Nothing in it lasts before [`Tx::commit`]; dropping it rolls back.
#[derive(Debug)]
pub struct Tx {
    pub(crate) conn: Conn,
    pub(crate) core: Arc<Core>,
    /// Told to the listeners once they are true.
    pub(crate) changes: Vec<Change>,
    /// Queue rows that this transaction claimed, by event.
    pub(crate) claimed: HashMap<i64, VecDeque<i64>>,
    pub(crate) writes: bool,
    /// Lifecycle events of what it changed.
    pub(crate) told: Vec<Lifecycle>,
    /// The last incident number that it gave out, on SQLite.
    pub(crate) last_number: Option<i64>,
    /// Events that had been heard before, by source: counted once it is true.
    pub(crate) repeats: Vec<(String, u32)>,
    /// It found no delivery unopened, when so many transactions had left some.
    pub(crate) found_none: Option<u64>,
}

/// The connection of a transaction.
#[derive(Debug)]
pub(crate) enum Conn {
    Sqlite(SqliteTx),
    Postgres(PgTx),
}

impl Tx {
    pub(crate) fn new(core: Arc<Core>, conn: Conn, writes: bool) -> Self {
        Self {
            conn,
            core,
            changes: Vec::new(),
            claimed: HashMap::new(),
            writes,
            told: Vec::new(),
            last_number: None,
            repeats: Vec::new(),
            found_none: None,
        }
    }

    /// Makes it last, then tells who listens. On PostgreSQL nothing of a transaction of which a statement failed lasts, whatever became of that error.
    ///
    /// # Errors
    /// [`Error::Retry`] and [`Error::Unavailable`]. After the latter nobody knows whether it lasted.
    pub async fn commit(mut self) -> Result<(), Error> {
        self.keep_number();
        self.write_told().await?;
        match self.conn {
            Conn::Sqlite(tx) => tx.commit().await?,
            Conn::Postgres(tx) => tx.commit().await?,
        }
        if let Some(left) = self.found_none {
            self.core.unopened.found_none(left);
        }
        for (source, repeats) in self.repeats {
            metrics::counter!("watchkeeper_events_deduplicated_total", "source" => source).increment(repeats.into());
        }
        self.core.announce(self.changes);
        Ok(())
    }

    /// Takes it all back, and waits until that is done. Dropping does the same behind one's back: on PostgreSQL its locks may be held for a
    /// moment longer.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; nothing lasts all the same.
    pub async fn rollback(self) -> Result<(), Error> {
        match self.conn {
            // Whoever writes next rolls it back first.
            Conn::Sqlite(tx) => drop(tx),
            Conn::Postgres(tx) => tx.rollback().await?,
        }
        Ok(())
    }

    /// The words by which a `select` locks its rows: for PostgreSQL's writing transactions alone. SQLite has one writer anyway.
    pub(crate) fn lock(&self, words: &'static str) -> &'static str {
        match self.conn {
            Conn::Postgres(_) if self.writes => words,
            _ => "",
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.conn, Conn::Postgres(_))
    }

    pub(crate) fn changed(&mut self, change: Change) {
        if self.changes.last() != Some(&change) {
            self.changes.push(change);
        }
    }
}

/// How many rows go into one statement: PostgreSQL takes 65,535 values, SQLite 32,766, and a row has at most 16.
const ROWS: usize = 128;

/// Cuts rows into statements of few different lengths, so that each length can stay prepared: 128, then a multiple of 16, then the rest.
pub(crate) fn cut<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let length = match rest.len() {
            0 => return None,
            n @ 1..16 => n,
            n if n < ROWS => n - n % 16,
            _ => ROWS,
        };
        let (now, later) = rest.split_at(length);
        rest = later;
        Some(now)
    })
}

/// Rows of which so many are inserted at once do not wait for the next statement: their own is long enough, and prepared for its length alone.
pub(crate) const MANY: usize = 16;

/// Runs `$body` on PostgreSQL's connection, where an answer is not waited for without end.
macro_rules! ask {
    ($tx:ident, $conn:ident => $body:expr) => {
        match $tx.ask() {
            Ok((patience, $conn)) => {
                let answer = tokio::time::timeout(patience, async { Ok::<_, $crate::Error>(($body)?) }).await;
                $tx.answered(answer)
            }
            Err(refused) => Err(refused),
        }
    };
}

/// Runs `$body` on the transaction's connection, once typed for SQLite and once for PostgreSQL.
macro_rules! on {
    ($tx:expr, $conn:ident => $body:expr) => {
        match &mut $tx.conn {
            $crate::tx::Conn::Sqlite(tx) => {
                tx.settle().await?;
                let $conn: &mut sqlx::SqliteConnection = &mut **tx;
                async { Ok::<_, $crate::Error>(($body)?) }.await
            }
            $crate::tx::Conn::Postgres(tx) => $crate::tx::ask!(tx, $conn => $body),
        }
    };
}

/// A query with its values: what waits for it on SQLite goes with it.
macro_rules! ask_rows {
    ($tx:expr, $fetch:ident, $sql:expr $(, $bind:expr)*) => {
        match &mut $tx.conn {
            $crate::tx::Conn::Sqlite(tx) => {
                let (sql, conn) = tx.with($sql).await?;
                async { Ok::<_, $crate::Error>(sqlx::query_as(sql)$(.bind($bind))*.$fetch(conn).await?) }.await
            }
            $crate::tx::Conn::Postgres(tx) => $crate::tx::ask!(tx, conn => sqlx::query_as($sql)$(.bind($bind))*.$fetch(conn).await),
        }?
    };
}

/// All rows of a query, as tuples.
macro_rules! rows {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::tx::ask_rows!($tx, fetch_all, $sql $(, $bind)*)
    };
}

/// The one row of a query, if there is one, as a tuple.
macro_rules! row {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::tx::ask_rows!($tx, fetch_optional, $sql $(, $bind)*)
    };
}

/// Carries a statement out; the number of rows that it touched.
macro_rules! exec {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::tx::on!($tx, conn => sqlx::query($sql)$(.bind($bind))*.execute(conn).await.map(|done| done.rows_affected()))?
    };
}

/// `$head (..), (..) $tail` for a slice, in as many statements as it takes. On SQLite those of few rows wait for the next statement or the commit,
/// and so do their errors.
macro_rules! exec_rows {
    ($tx:expr, $head:expr, $items:expr, |$b:ident, $item:ident| $push:expr, $tail:expr) => {
        for chunk in $crate::tx::cut(&$items) {
            match &mut $tx.conn {
                $crate::tx::Conn::Sqlite(tx) => match tx.later().filter(|_| chunk.len() < $crate::tx::MANY) {
                    Some(later) => later.add(true, |sql| {
                        sql.push($head).push_values(chunk, |mut $b, $item| { $push; }).push($tail);
                    }),
                    None => {
                        tx.settle().await?;
                        let mut sql = sqlx::QueryBuilder::new($head);
                        sql.push_values(chunk, |mut $b, $item| { $push; }).push($tail);
                        sql.build().execute(&mut **tx).await?;
                    }
                },
                $crate::tx::Conn::Postgres(tx) => $crate::tx::ask!(tx, conn => {
                    let mut sql = sqlx::QueryBuilder::new($head);
                    sql.push_values(chunk, |mut $b, $item| { $push; }).push($tail);
                    sql.build().execute(conn).await.map(drop)
                })?,
            }
        }
    };
}

/// As `exec_rows`, giving all rows that come back, as tuples: what waits for it on SQLite goes with it.
macro_rules! rows_of {
    ($tx:expr, $head:expr, $items:expr, |$b:ident, $item:ident| $push:expr, $tail:expr) => {{
        let mut all = Vec::new();
        for chunk in $crate::tx::cut(&$items) {
            let mut found = match &mut $tx.conn {
                $crate::tx::Conn::Sqlite(tx) => {
                    if chunk.len() >= $crate::tx::MANY {
                        tx.settle().await?;
                    }
                    let mut sql = tx.later().map($crate::later::Later::take).unwrap_or_default();
                    sql.push($head).push_values(chunk, |mut $b, $item| { $push; }).push($tail);
                    sql.build_query_as().fetch_all(&mut **tx).await?
                }
                $crate::tx::Conn::Postgres(tx) => $crate::tx::ask!(tx, conn => {
                    let mut sql = sqlx::QueryBuilder::new($head);
                    sql.push_values(chunk, |mut $b, $item| { $push; }).push($tail);
                    sql.build_query_as().fetch_all(conn).await
                })?,
            };
            all.append(&mut found);
        }
        all
    }};
}

/// All rows of a statement that `$push` puts together, as tuples: what waits for it on SQLite goes with it.
macro_rules! rows_built {
    ($tx:expr, |$sql:ident| $push:expr) => {
        match &mut $tx.conn {
            $crate::tx::Conn::Sqlite(tx) => {
                let mut $sql = tx.later().map($crate::later::Later::take).unwrap_or_default();
                $push;
                async { Ok::<_, $crate::Error>($sql.build_query_as().fetch_all(&mut **tx).await?) }.await
            }
            $crate::tx::Conn::Postgres(tx) => $crate::tx::ask!(tx, conn => {
                let mut $sql = sqlx::QueryBuilder::default();
                $push;
                $sql.build_query_as().fetch_all(conn).await
            }),
        }?
    };
}

/// A statement that `$push` puts together and that must change one row, or it is a conflict. On SQLite it waits for the next statement or the commit,
/// and so does the conflict.
macro_rules! exec_one {
    ($tx:expr, |$sql:ident| $push:expr) => {
        $crate::tx::one!($tx, add_one, |$sql| $push)
    };
}

/// A query that `$push` puts together and that must find one row, or it is a conflict; on SQLite like `exec_one`.
macro_rules! expect_found {
    ($tx:expr, |$sql:ident| $push:expr) => {
        $crate::tx::one!($tx, add_found, |$sql| $push)
    };
}

/// What is about one row. On SQLite `$add` of [`crate::later::Later`] says how to tell; PostgreSQL counts those that are found, too.
macro_rules! one {
    ($tx:expr, $add:ident, |$sql:ident| $push:expr) => {
        match &mut $tx.conn {
            $crate::tx::Conn::Sqlite(tx) => {
                let later = tx.later().ok_or_else(|| $crate::Error::Refused("a reader writes nothing".to_owned()))?;
                later.$add(|$sql| {
                    $push;
                });
            }
            $crate::tx::Conn::Postgres(tx) => {
                let count = $crate::tx::ask!(tx, conn => {
                    let mut $sql = sqlx::QueryBuilder::default();
                    $push;
                    $sql.build().execute(conn).await.map(|done| done.rows_affected())
                })?;
                if count != 1 {
                    return Err($crate::Error::Conflict);
                }
            }
        }
    };
}

pub(crate) use {ask, ask_rows, exec, exec_one, exec_rows, expect_found, on, one, row, rows, rows_built, rows_of};
