//! Small settings that live in the store: the kill switch, marks of a first start.

use serde_json::Value;

use crate::codec::{clean, from_doc, to_doc};
use crate::tx::{exec_rows, row};
use crate::{Error, Tx};

/// Where the epoch is kept.
pub(crate) const EPOCH: &str = "store.epoch";

impl Tx {
    /// The store's epoch: 1, and one more with every restore of a backup. With a number that rises within it, it makes a fence: what was begun
    /// before a restore is older than anything after it.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn epoch(&mut self) -> Result<i64, Error> {
        let kept = self.flag(EPOCH).await?;
        kept.map_or(Ok(1), |value| from_doc("flags", EPOCH, &value.to_string()))
    }

    /// A flag's value, if it was ever set.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn flag(&mut self, key: &str) -> Result<Option<Value>, Error> {
        let found: Option<(String,)> = row!(self, "select value from flags where key = $1", clean(key));
        found.map(|(value,)| from_doc("flags", key, &value)).transpose()
    }

    /// Sets a flag.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn set_flag(&mut self, key: &str, value: &Value) -> Result<(), Error> {
        let one = [(clean(key), to_doc(value)?)];
        exec_rows!(
            self,
            "insert into flags (key, value) ",
            one,
            |b, flag| b.push_bind(flag.0.as_ref()).push_bind(&flag.1),
            " on conflict (key) do update set value = excluded.value"
        );
        Ok(())
    }
}
