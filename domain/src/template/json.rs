//! Templates inside a JSON tree: every text in it is one, its keys are not.

use std::collections::BTreeSet;

use minijinja::value::Serde;
use serde_json::Value;

use super::{Template, TemplateError};

/// Renders every text of the tree once and leaves keys, numbers, booleans and null alone. A text that is exactly one `{{ expression }}`
/// becomes the expression's value with its type; see [`Template::render_value`].
///
/// # Errors
/// The first failure, with the JSON pointer of its place (`/with/target`).
pub fn render_json(tree: &Value, context: &Value) -> Result<Value, TemplateError> {
    let context = minijinja::Value::from(Serde(context));
    walk(tree, &mut |text| Template::compile(text)?.value_with(&context))
}

/// The variables that the templates of a tree need, as [`Template::variables`]: for checks at load.
///
/// # Errors
/// The first template that does not compile, with the JSON pointer of its place.
pub fn variables_of_json(tree: &Value) -> Result<BTreeSet<String>, TemplateError> {
    let mut found = BTreeSet::new();
    walk(tree, &mut |text| {
        found.extend(Template::compile(text)?.variables());
        Ok(Value::Null)
    })?;
    Ok(found)
}

fn walk(tree: &Value, leaf: &mut impl FnMut(&str) -> Result<Value, TemplateError>) -> Result<Value, TemplateError> {
    match tree {
        Value::String(text) => leaf(text),
        Value::Array(items) => items.iter().enumerate().map(|(i, item)| walk(item, leaf).map_err(|e| below(&i.to_string(), e))).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| Ok((key.clone(), walk(value, leaf).map_err(|e| below(key, e))?))).collect()
        }
        other => Ok(other.clone()),
    }
}

fn below(step: &str, error: TemplateError) -> TemplateError {
    let step = step.replace('~', "~0").replace('/', "~1");
    TemplateError { at: format!("/{step}{}", error.at), ..error }
}
