//! Rule sets by digest, so that a run can finish under the one that it began with.

use crate::codec::{clean, from_doc, micros, to_doc};
use crate::tx::{exec, row};
use crate::{Error, Tx};

impl Tx {
    /// Keeps a rule set: file names and contents. One that is kept already stays as it is.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn put_rule_set(&mut self, digest: &str, files: &[(String, String)]) -> Result<(), Error> {
        let now = micros(self.core.clock.now());
        exec!(
            self,
            "insert into rule_sets (digest, files, first_used) values ($1, $2, $3) on conflict (digest) do nothing",
            clean(digest),
            to_doc(&files)?,
            now
        );
        Ok(())
    }

    /// The files of a rule set.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn rule_set(&mut self, digest: &str) -> Result<Option<Vec<(String, String)>>, Error> {
        let found: Option<(String,)> = row!(self, "select files from rule_sets where digest = $1", clean(digest));
        found.map(|(files,)| from_doc("rule_sets", digest, &files)).transpose()
    }
}
