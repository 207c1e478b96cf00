//! Whether a value fits a JSON Schema, as far as it can be told before its templates are rendered: the part of JSON Schema that schemars derives
//! for parameters. What is not understood fits.

use serde_json::{Map, Value};

use super::templates::is_template;
use crate::rules::problem::suggest;

/// Deeper references than this end the check: a schema may refer to itself.
const DEPTH: usize = 24;

/// Where a value does not fit.
pub(super) struct Mismatch {
    /// Names and numbers that lead to it.
    pub(super) path: Vec<String>,
    /// The key is at fault, not its value.
    pub(super) about_name: bool,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Everything in `value` that `schema` refuses.
pub(super) fn mismatches(schema: &Value, value: &Value) -> Vec<Mismatch> {
    let mut check = Check { root: schema, path: Vec::new(), found: Vec::new() };
    check.value(schema, value, 0);
    check.found
}

struct Check<'s> {
    root: &'s Value,
    path: Vec<String>,
    found: Vec<Mismatch>,
}

impl<'s> Check<'s> {
    fn value(&mut self, schema: &'s Value, value: &Value, depth: usize) {
        let Some(schema) = self.resolve(schema) else { return };
        // A template may become anything that a text can say.
        if depth > DEPTH || value.as_str().is_some_and(is_template) {
            return;
        }
        for part in list(schema, "allOf") {
            self.value(part, value, depth + 1);
        }
        for key in ["anyOf", "oneOf"] {
            self.any(list(schema, key), value, depth);
        }
        if let Some(known) = schema.get("enum").and_then(Value::as_array)
            && !known.contains(value)
        {
            let words: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
            let help = value.as_str().map(|word| suggest(word, words.iter().copied(), ""));
            self.tell(false, format!("{} is none of {}", shown(value), words.join(", ")), help);
            return;
        }
        if !types(schema).is_empty() && !types(schema).iter().any(|name| is_a(value, name)) {
            let expected = types(schema).into_iter().filter(|name| *name != "null").map(word).collect::<Vec<_>>().join(" or ");
            let quote = value.is_number() || value.is_boolean();
            let help = (quote && expected == "text").then(|| format!("put it in quotes: \"{value}\""));
            self.tell(false, format!("expected {expected}, found {}", shown(value)), help);
            return;
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, depth),
            Value::Array(items) => {
                if let Some(of) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.step_into(index.to_string(), of, item, depth);
                    }
                }
            }
            Value::Number(number) => {
                let n = number.as_f64().unwrap_or_default();
                let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
                if let Some(least) = bound("minimum").filter(|least| n < *least) {
                    self.tell(false, format!("{number} is less than {least}"), None);
                } else if let Some(most) = bound("maximum").filter(|most| n > *most) {
                    self.tell(false, format!("{number} is more than {most}"), None);
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: &'s Map<String, Value>, fields: &Map<String, Value>, depth: usize) {
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for (name, value) in fields {
            match (known.and_then(|known| known.get(name)), others) {
                (Some(of), _) => self.step_into(name.clone(), of, value, depth),
                (None, Some(Value::Bool(false))) => {
                    let names = known.map(|known| known.keys().map(String::as_str).collect::<Vec<_>>()).unwrap_or_default();
                    self.path.push(name.clone());
                    self.tell(true, format!("unknown parameter `{name}`"), Some(suggest(name, names, "it takes none")));
                    self.path.pop();
                }
                (None, Some(of @ Value::Object(_))) => self.step_into(name.clone(), of, value, depth),
                _ => {}
            }
        }
        for name in list(schema, "required").iter().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.tell(true, format!("the parameter `{name}` is missing"), None);
            }
        }
    }

    /// One of the alternatives must fit. With one that could be meant, its findings say more than that none fits.
    fn any(&mut self, alternatives: &'s [Value], value: &Value, depth: usize) {
        let mut meant = Vec::new();
        for alternative in alternatives {
            let mut check = Check { root: self.root, path: self.path.clone(), found: Vec::new() };
            check.value(alternative, value, depth + 1);
            if check.found.is_empty() {
                return;
            }
            let schema = self.resolve(alternative);
            let right_type = schema.is_some_and(|schema| types(schema).iter().any(|name| is_a(value, name)));
            if schema.is_none_or(|schema| types(schema) != ["null"]) {
                meant.push((right_type, check.found));
            }
        }
        if meant.len() > 1 {
            meant.retain(|(right_type, _)| *right_type);
        }
        match (meant.len(), meant.pop()) {
            (1, Some((_, found))) => self.found.extend(found),
            _ if alternatives.is_empty() => {}
            _ => self.tell(false, format!("{} is in none of the allowed forms", shown(value)), None),
        }
    }

    fn step_into(&mut self, name: String, schema: &'s Value, value: &Value, depth: usize) {
        self.path.push(name);
        self.value(schema, value, depth + 1);
        self.path.pop();
    }

    fn resolve(&self, schema: &'s Value) -> Option<&'s Map<String, Value>> {
        let mut schema = schema.as_object()?;
        for _ in 0..DEPTH {
            let Some(to) = schema.get("$ref").and_then(Value::as_str) else { return Some(schema) };
            schema = self.root.pointer(to.strip_prefix('#')?)?.as_object()?;
        }
        None
    }

    fn tell(&mut self, about_name: bool, message: String, help: Option<String>) {
        self.found.push(Mismatch { path: self.path.clone(), about_name, message, help });
    }
}

fn list<'s>(schema: &'s Map<String, Value>, key: &str) -> &'s [Value] {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

fn word(name: &str) -> &str {
    match name {
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "a map",
        other => other,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
        Value::String(text) => format!("text {:?}", text.chars().take(40).collect::<String>()),
        other => format!("`{other}`"),
    }
}
