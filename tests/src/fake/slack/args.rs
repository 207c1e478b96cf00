//! The arguments of a Web API call, from a query, a form or JSON, and how Slack refuses a call.

use serde_json::{Map, Value};

use super::super::form;
use super::super::wire::Call;

/// Why Slack answers `ok: false`.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) error: String,
    /// What `response_metadata.messages` says.
    pub(super) details: Vec<String>,
}

impl Refusal {
    pub(super) fn new(error: &str) -> Self {
        Self { error: error.to_owned(), details: Vec::new() }
    }

    pub(super) fn with(error: &str, details: Vec<String>) -> Self {
        Self { error: error.to_owned(), details }
    }
}

/// The arguments by name. Values of forms and queries are strings.
#[derive(Clone, Debug, Default)]
pub(super) struct Args(pub(super) Map<String, Value>);

impl Args {
    /// Reads a call as Slack does: a GET's query, or a POST's body by its declared type.
    pub(super) fn of(call: &Call) -> Result<Self, Refusal> {
        let strings = |pairs: Vec<(String, String)>| Self(pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect());
        if call.method == axum::http::Method::GET {
            return Ok(strings(call.query.clone()));
        }
        match call.content_type().as_str() {
            "application/json" => match serde_json::from_slice(&call.body) {
                Ok(Value::Object(args)) => Ok(Self(args)),
                Ok(_) => Err(Refusal::new("json_not_object")),
                Err(_) => Err(Refusal::new("invalid_json")),
            },
            "application/x-www-form-urlencoded" => match std::str::from_utf8(&call.body) {
                Ok(body) => Ok(strings(form::decode(body))),
                Err(_) => Err(Refusal::new("invalid_form_data")),
            },
            "" if call.body.is_empty() => Ok(Self::default()),
            "" => Err(Refusal::new("missing_post_type")),
            _ => Err(Refusal::new("invalid_post_type")),
        }
    }

    /// A non-empty string argument.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name).ok_or_else(|| Refusal::with("invalid_arguments", vec![format!("[ERROR] missing required field: {name}")]))
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(flag)) => flag == "true" || flag == "1",
            Some(Value::Number(flag)) => flag.as_i64() == Some(1),
            _ => false,
        }
    }

    /// A structured argument: JSON, or in a form the JSON text of it.
    pub(super) fn json(&self, name: &str, malformed: &str) -> Result<Option<Value>, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text).map(Some).map_err(|_| Refusal::new(malformed)),
            Some(value) => Ok(Some(value.clone())),
        }
    }
}
