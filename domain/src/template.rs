//! Templates for values: minijinja with everything taken away that a value does not need.
//!
//! A template is configuration. What it fills in (labels above all) is data: rendered once, never read as a template again, and not escaped here,
//! since only the place it goes to knows how. There are no files, no includes, no macros, no functions and no assignments; loops and conditions
//! are bounded by fuel, sizes by limits; an undefined name, and a null in running text, is an error. `{{ x | default("-") }}` allows absence.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use minijinja::{Environment, Expression, value::Serde};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

mod engine;
mod json;
mod scan;
#[cfg(test)]
mod tests;

pub use json::{render_json, variables_of_json};
pub(crate) use scan::{Part, is_urlencoded, parts};

/// Longest template text, in bytes.
pub const MAX_TEXT: usize = 16 * 1024;
/// Most output of one template, in bytes.
pub const MAX_OUTPUT: usize = 64 * 1024;
/// Instructions one rendering may take.
const FUEL: u64 = 20_000;
/// The one name in each template's own environment.
const NAME: &str = "value";

/// A compiled template. Two are equal when their texts are.
#[derive(Clone)]
pub struct Template {
    text: Arc<str>,
    program: Program,
}

/// What a template does.
#[derive(Clone)]
enum Program {
    /// The text stands for itself.
    Literal,
    /// Text with places to fill.
    Text(Arc<Environment<'static>>),
    /// Exactly one `{{ expression }}`, which keeps its type where JSON is wanted.
    Value(Arc<Environment<'static>>, Arc<Expression<'static, 'static>>),
}

/// Why a template does not compile or render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The JSON pointer of the template in its tree; empty for a single template.
    pub at: String,
    /// From 1; 0 where unknown.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl Template {
    /// Compiles; unknown filters, tests and statements are found here, unknown variables by comparing [`Template::variables`].
    ///
    /// # Errors
    /// The text is too long or not a template, or uses what is not offered.
    pub fn compile(text: &str) -> Result<Template, TemplateError> {
        if text.len() > MAX_TEXT {
            return Err(TemplateError::new(0, format!("the template is longer than {MAX_TEXT} bytes")));
        }
        let blocks = scan::blocks(text)?;
        let program = if blocks.is_empty() {
            Program::Literal
        } else {
            let mut env = engine::BASE.clone();
            env.add_template_owned(NAME, text.to_owned()).map_err(|e| TemplateError::from_engine(&e))?;
            match scan::only_expression(text, &blocks) {
                Some(inner) => {
                    let value = engine::BASE.compile_expression_owned(inner.to_owned()).map_err(|e| TemplateError::from_engine(&e))?;
                    Program::Value(Arc::new(env), Arc::new(value))
                }
                None => Program::Text(Arc::new(env)),
            }
        };
        Ok(Template { text: text.into(), program })
    }

    /// Fills in the values, once. Lists and objects in running text are shown as JSON.
    ///
    /// # Errors
    /// A name is undefined or null, or the fuel ([`FUEL`]) or the output ([`MAX_OUTPUT`]) is exhausted.
    pub fn render(&self, context: &Value) -> Result<String, TemplateError> {
        self.text_with(&minijinja::Value::from(Serde(context)))
    }

    /// As [`Template::render`], but a template that is exactly one `{{ expression }}` gives the expression's own value: a number stays a
    /// number, a list a list, null null. A label stays text whatever it looks like; `| int` and `| bool` convert.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_value(&self, context: &Value) -> Result<Value, TemplateError> {
        self.value_with(&minijinja::Value::from(Serde(context)))
    }

    /// The variables it needs, with the parts it looks at: `labels.service`. For checks at load.
    pub fn variables(&self) -> BTreeSet<String> {
        match &self.program {
            Program::Literal => BTreeSet::new(),
            Program::Text(env) | Program::Value(env, _) => {
                env.get_template(NAME).map(|t| t.undeclared_variables(true).into_iter().collect()).unwrap_or_default()
            }
        }
    }

    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it has nothing to fill in.
    pub fn is_literal(&self) -> bool {
        matches!(self.program, Program::Literal)
    }

    fn text_with(&self, context: &minijinja::Value) -> Result<String, TemplateError> {
        match &self.program {
            Program::Literal => Ok(self.text.to_string()),
            Program::Text(env) | Program::Value(env, _) => engine::render(env, NAME, context).map_err(|e| self.named(e, context)),
        }
    }

    fn value_with(&self, context: &minijinja::Value) -> Result<Value, TemplateError> {
        match &self.program {
            Program::Value(_, expression) => engine::evaluate(expression, context).map_err(|e| self.named(e, context)),
            _ => self.text_with(context).map(Value::String),
        }
    }

    /// Says which of the names is undefined, and what was probably meant.
    fn named(&self, failure: engine::Failure, context: &minijinja::Value) -> TemplateError {
        let missing: Vec<String> = match &failure {
            engine::Failure::Undefined(_) => self.variables().iter().filter_map(|path| engine::missing(path, context)).collect(),
            engine::Failure::Other(_) => Vec::new(),
        };
        let mut error = failure.into_error();
        if !missing.is_empty() {
            error.message = format!("{}: {}", missing.join("; "), engine::ABSENCE);
        }
        error
    }
}

impl TemplateError {
    fn new(line: usize, message: impl Into<String>) -> TemplateError {
        TemplateError { at: String::new(), line, message: message.into() }
    }

    fn from_engine(error: &minijinja::Error) -> TemplateError {
        TemplateError::new(error.line().unwrap_or(0), engine::explain(error))
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        if self.line > 1 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for TemplateError {}

impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        self.text == other.text
    }
}

impl Eq for Template {}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Template, TemplateError> {
        Template::compile(text)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Template, D::Error> {
        Template::compile(&std::borrow::Cow::<'de, str>::deserialize(d)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Template {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "Text in which {{ expressions }} are replaced by values.", "maxLength": MAX_TEXT })
    }
}
