//! What can be wrong with an expression, in words for the people who write them.

use serde_json::Value;

use crate::text::{clean_line, nearest};

/// Why an expression does not compile or has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// At load: wrong at a place of the text.
    #[error("line {line}, column {column}: {message}\n{snippet}")]
    Invalid {
        /// From 1.
        line: usize,
        /// In characters from 1.
        column: usize,
        /// What is wrong and, where it is known, what was probably meant.
        message: String,
        /// The line and a caret under the place.
        snippet: String,
    },
    /// At load: longer than [`MAX_TEXT`](super::MAX_TEXT).
    #[error("the expression is longer than {} bytes: split it, or move data out of it", super::MAX_TEXT)]
    TooLong,
    /// At run time: the caller gave no value for a variable that the expression uses.
    #[error("`{0}` has no value here")]
    NoValue(String),
    /// At run time: a condition that is no boolean, or a text that is none.
    #[error("the result is {got}, not {wanted}")]
    WrongType {
        /// What was wanted.
        wanted: &'static str,
        /// What came, in short.
        got: String,
    },
    /// At run time: more data, or more looping over it, than is allowed.
    #[error("the data is too large for this expression ({0}): select less")]
    TooMuch(&'static str),
    /// At run time: types that do not fit, a missing key, an overflow and the like.
    #[error("{0}")]
    Failed(String),
}

impl ExprError {
    /// A finding at a byte offset of the text.
    pub(super) fn at(text: &str, offset: usize, message: impl Into<String>) -> ExprError {
        let offset = text.floor_char_boundary(offset);
        let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let line = text[..offset].matches('\n').count() + 1;
        ExprError::on_line(text, line, text[start..offset].chars().count() + 1, message)
    }

    /// A finding at a line and column from 1.
    pub(super) fn on_line(text: &str, line: usize, column: usize, message: impl Into<String>) -> ExprError {
        // Long lines are cut around the place; one character in, one out, so that the caret stays under it.
        let shown = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let from = column.saturating_sub(61);
        let part: String = shown.chars().skip(from).take(120).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let snippet = format!("  {part}\n  {:>width$}", "^", width = column - from);
        ExprError::Invalid { line, column, message: message.into(), snippet }
    }

    pub(super) fn wrong_type(wanted: &'static str, got: &Value) -> ExprError {
        ExprError::WrongType { wanted, got: clean_line(&describe(got), 80) }
    }
}

/// `there is no variable ..` with the name that was probably meant.
pub(super) fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    format!("there is no {kind} `{}`; {hint}", clean_line(name, 60))
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the string {s:?}"),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) => format!("a map of {}", fields.len()),
    }
}
