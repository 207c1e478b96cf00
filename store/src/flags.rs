//! Small settings that live in the store: the kill switch, marks of a first start.

use serde_json::Value;

use crate::codec::{clean, from_doc, to_doc};
use crate::tx::{exec, on, row};
use crate::{Error, Tx};

impl Tx {
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
        exec!(
            self,
            "insert into flags (key, value) values ($1, $2) on conflict (key) do update set value = excluded.value",
            clean(key),
            to_doc(value)?
        );
        Ok(())
    }
}
