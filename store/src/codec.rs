//! Between Rust values and what both databases can hold: microseconds, JSON text, and text without NUL.

use std::borrow::Cow;
use std::fmt::Display;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Type, ValueRef};

use crate::Error;

/// Microseconds since 1970, the databases' form of a time.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// A value, or why it is none: one damaged row must not hide those that are read with it.
pub(crate) struct Tried<T>(pub(crate) Result<T, String>);

impl<DB: Database, T: Type<DB>> Type<DB> for Tried<T> {
    fn type_info() -> DB::TypeInfo {
        T::type_info()
    }

    fn compatible(_: &DB::TypeInfo) -> bool {
        // Whatever stands there: SQLite keeps any type in any column.
        true
    }
}

impl<'r, DB: Database, T: Type<DB> + Decode<'r, DB>> Decode<'r, DB> for Tried<T> {
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
        if !value.is_null() && !T::compatible(&value.type_info()) {
            return Ok(Self(Err(format!("a value has another type: {}", value.type_info()))));
        }
        Ok(Self(T::decode(value).map_err(|error| error.to_string())))
    }
}

/// A time from the database.
pub(crate) fn time(table: &'static str, id: impl Display, micros: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(micros).map_err(|error| corrupt(table, id, error))
}

/// A time from the database that may be absent.
pub(crate) fn maybe_time(table: &'static str, id: impl Display, micros: Option<i64>) -> Result<Option<Timestamp>, Error> {
    micros.map(|micros| time(table, id, micros)).transpose()
}

/// `now` and a span, as the database's form; far futures stay far futures.
pub(crate) fn micros_after(now: Timestamp, span: SignedDuration) -> i64 {
    micros(now).saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}

/// A value as JSON text. NUL is escaped in it, so both databases take it.
pub(crate) fn to_doc<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Refused(format!("a value has no JSON form: {error}")))
}

/// A value from JSON text.
pub(crate) fn from_doc<T: DeserializeOwned>(table: &'static str, id: impl Display, doc: &str) -> Result<T, Error> {
    serde_json::from_str(doc).map_err(|error| corrupt(table, id, error))
}

/// A value of an enum from its word.
pub(crate) fn from_word<T: DeserializeOwned>(table: &'static str, id: impl Display, word: &str) -> Result<T, Error> {
    serde_json::from_value(serde_json::Value::from(word)).map_err(|error| corrupt(table, id, error))
}

/// The word of an enum's value, as serde writes it.
pub(crate) fn word<T: Serialize>(value: &T) -> Result<String, Error> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(Error::Refused(format!("not a word: {other:?}"))),
    }
}

/// An id from its text.
pub(crate) fn id<T: std::str::FromStr<Err: Display>>(table: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error| corrupt(table, text, error))
}

/// Text that PostgreSQL takes: NUL becomes its visible sign. The same on SQLite, so that both find the same rows.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{2400}")) } else { Cow::Borrowed(text) }
}

pub(crate) fn corrupt(table: &'static str, id: impl Display, why: impl Display) -> Error {
    Error::Corrupt { table, id: id.to_string(), why: why.to_string() }
}
