//! How the store fails, in the few ways that a caller can do something about.

use sqlx::error::ErrorKind;

use crate::later::NOT_AS_EXPECTED;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else changed the row first, or a row that must be alone exists already: load again and decide again.
    #[error("somebody else changed it first; load it again and decide again")]
    Conflict,
    /// The database gave the transaction up (a deadlock, a serialisation failure): run all of it again.
    #[error("the database asks for the whole transaction again")]
    Retry,
    /// A stored row cannot be read back. It is left as it is.
    #[error("row {id} of table {table} cannot be read; restore it from a backup or delete it: {why}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row's key.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The database refuses this data, whatever the weather.
    #[error("the database refuses this data: {0}")]
    Refused(String),
    /// The database cannot be reached or written now.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The settings cannot work. Says what to change.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// Whether the same call may succeed when it is made again, without anything else changing.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Retry | Self::Unavailable(_))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = &error else {
            return Self::Unavailable(error.to_string());
        };
        match database.kind() {
            ErrorKind::UniqueViolation => return Self::Conflict,
            ErrorKind::CheckViolation if database.message().ends_with(NOT_AS_EXPECTED) => return Self::Conflict,
            ErrorKind::NotNullViolation | ErrorKind::CheckViolation | ErrorKind::ForeignKeyViolation | ErrorKind::ExclusionViolation => {
                return Self::Refused(error.to_string());
            }
            _ => {}
        }
        match database.code().as_deref() {
            // PostgreSQL: serialization_failure, deadlock_detected, lock_not_available.
            Some("40001" | "40P01" | "55P03") => Self::Retry,
            Some(code) if is_about_data(code) => Self::Refused(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Whether the data is to blame, not the database. PostgreSQL: classes 22 (data exception), 23 (integrity), 54 (a limit). SQLite, whose
/// codes are short numbers with the kind in the low byte: TOOBIG, CONSTRAINT, MISMATCH.
fn is_about_data(code: &str) -> bool {
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 18..=20),
        _ => matches!(code.get(..2), Some("22" | "23" | "54")),
    }
}

impl From<Error> for domain::inbox::InboxError {
    fn from(error: Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
