//! Bodies that could not be read, for whoever sets a source up.

use jiff::Timestamp;

use crate::codec::{clean, micros, time};
use crate::tx::{exec, rows};
use crate::{Error, Tx};

/// So many are kept per source.
const KEPT: i64 = 100;

/// A body that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its number.
    pub id: i64,
    /// When it came.
    pub at: Timestamp,
    /// As received. Untrusted.
    pub body: Vec<u8>,
    /// Why it could not be read.
    pub error: String,
}

impl Tx {
    /// Keeps a body, and lets go of the oldest beyond a hundred of its source. The sender was authenticated before.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn keep_sample(&mut self, source: &str, at: Timestamp, body: &[u8], error: &str) -> Result<(), Error> {
        let source = clean(source);
        exec!(self, "insert into samples (source, at, body, error) values ($1, $2, $3, $4)", &*source, micros(at), body, clean(error));
        exec!(
            self,
            "delete from samples where source = $1 and id <= (select id from samples where source = $1 order by id desc limit 1 offset $2)",
            &*source,
            KEPT
        );
        Ok(())
    }

    /// The samples of a source, newest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn samples(&mut self, source: &str) -> Result<Vec<Sample>, Error> {
        let found: Vec<(i64, i64, Vec<u8>, String)> =
            rows!(self, "select id, at, body, error from samples where source = $1 order by id desc", clean(source));
        let one = |(id, at, body, error): (i64, i64, Vec<u8>, String)| Ok(Sample { id, at: time("samples", id, at)?, body, error });
        found.into_iter().map(one).collect()
    }
}
