//! Conditions and mappings in CEL, the Common Expression Language: `alert.labels.env != "dev"`.
//!
//! Deviations from plain CEL, all made when an expression is compiled:
//! - **An absent label is the empty string**, as in Prometheus. Where an expression selects from something called `labels` or `annotations`
//!   (or Alertmanager's `groupLabels`, `commonLabels`, `commonAnnotations`, in both spellings), by `.name` or `["name"]`, the selection becomes a
//!   call of a lookup with that default. It sits in the syntax tree, not in the data, so it works for every alert in `alerts.all(a, a.labels.x == "")`;
//!   `has(labels.x)` and `"x" in labels` still tell absence from emptiness.
//! - **There is a cost bound.** CEL cannot loop but over data, so every range is charged to a budget, data and text are bounded,
//!   and ranges nest at most two deep. Regular expressions must be literals and are compiled at load.
//! - Unknown variables and functions are refused at load, with the nearest name.

use std::fmt;
use std::sync::Arc;

use cel::IdedExpr;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::Value;

mod check;
mod error;
mod runtime;
#[cfg(test)]
mod tests;
mod value;

pub use error::ExprError;

/// Longest expression, in bytes.
pub const MAX_TEXT: usize = 4 * 1024;

/// A compiled expression. Two are equal when their texts are.
#[derive(Clone)]
pub struct Expr {
    text: Arc<str>,
    program: Arc<Program>,
}

struct Program {
    /// With lookups and charges in place.
    tree: IdedExpr,
    /// The variables it uses: only these are made ready for an evaluation.
    variables: Vec<String>,
}

impl Expr {
    /// Compiles and checks. `allowed_variables` are the names that the caller will give to [`Expr::eval`].
    ///
    /// # Errors
    /// A syntax error, an unknown variable or function, or something not offered; with line, column and the line itself where known.
    pub fn compile(text: &str, allowed_variables: &[&str]) -> Result<Expr, ExprError> {
        if text.len() > MAX_TEXT {
            return Err(ExprError::TooLong);
        }
        let (tree, variables) = check::compile(text, allowed_variables)?;
        Ok(Expr { text: text.into(), program: Arc::new(Program { tree, variables }) })
    }

    /// The result as JSON. Timestamps become RFC 3339 text, durations text like `90s`.
    ///
    /// # Errors
    /// A variable is missing in `vars`, a key is missing outside of labels, types do not fit, the budget is used up, or the result has no JSON form.
    pub fn eval(&self, vars: &Value) -> Result<Value, ExprError> {
        runtime::eval(&self.program.tree, &self.program.variables, vars)
    }

    /// The result of a condition.
    ///
    /// # Errors
    /// As [`Expr::eval`], or the result is not a boolean: nothing else counts as true or false.
    pub fn eval_bool(&self, vars: &Value) -> Result<bool, ExprError> {
        match self.eval(vars)? {
            Value::Bool(yes) => Ok(yes),
            other => Err(ExprError::wrong_type("a boolean", &other)),
        }
    }

    /// The result of a mapping to text.
    ///
    /// # Errors
    /// As [`Expr::eval`], or the result is not a string: `string(x)` converts.
    pub fn eval_string(&self, vars: &Value) -> Result<String, ExprError> {
        match self.eval(vars)? {
            Value::String(text) => Ok(text),
            other => Err(ExprError::wrong_type("a string", &other)),
        }
    }

    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The variables it uses, sorted.
    pub fn variables(&self) -> &[String] {
        &self.program.variables
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        self.text == other.text
    }
}

impl Eq for Expr {}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expr({:?})", self.text)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Expr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl JsonSchema for Expr {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Expression".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A CEL expression.", "maxLength": MAX_TEXT, "examples": ["alert.labels.env != \"dev\""] })
    }
}
