//! How Discord refuses: a status, a JSON error code, and for bad forms the tree of what is wrong where
//! (discord.com/developers/docs, "Opcodes and Status Codes", "Error Messages").

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::wire::Answer;

/// A refusal.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    code: u32,
    message: String,
    errors: Option<Value>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: u32, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), errors: None }
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, 0, "401: Unauthorized")
    }

    pub(super) fn not_found() -> Self {
        Self::new(404, 0, "404: Not Found")
    }

    pub(super) fn unknown(code: u32, what: &str) -> Self {
        Self::new(404, code, &format!("Unknown {what}"))
    }

    pub(super) fn answer(&self) -> Answer {
        let mut body = json!({"message": self.message, "code": self.code});
        if let Some(errors) = &self.errors {
            body["errors"] = errors.clone();
        }
        Answer::json(self.status, body)
    }

    /// One line for the record of calls.
    pub(super) fn line(&self) -> String {
        let errors = self.errors.as_ref().map(|errors| format!(" {errors}")).unwrap_or_default();
        format!("{} {}{errors}", self.code, self.message)
    }
}

/// Collects what is wrong with a form.
#[derive(Default)]
pub(super) struct Problems(Map<String, Value>);

impl Problems {
    /// Notes a problem at a dotted path such as `embeds.0.title`.
    pub(super) fn fail(&mut self, path: &str, code: &str, message: &str) {
        let mut at = &mut self.0;
        for part in path.split('.') {
            let next = at.entry(part).or_insert_with(|| json!({}));
            if !next.is_object() {
                return;
            }
            let Value::Object(fields) = next else { return };
            at = fields;
        }
        let list = at.entry("_errors").or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!({"code": code, "message": message}));
        }
    }

    pub(super) fn required(&mut self, path: &str) {
        self.fail(path, "BASE_TYPE_REQUIRED", "This field is required");
    }

    /// Checks the length of a string in characters.
    pub(super) fn length(&mut self, path: &str, text: &str, min: usize, max: usize) {
        let length = text.chars().count();
        if length > max && min == 0 {
            self.fail(path, "BASE_TYPE_MAX_LENGTH", &format!("Must be {max} or fewer in length."));
        } else if length < min || length > max {
            self.fail(path, "BASE_TYPE_BAD_LENGTH", &format!("Must be between {min} and {max} in length."));
        }
    }

    /// Checks a string field; `true` if there is one.
    pub(super) fn string(&mut self, path: &str, holder: &Value, name: &str, (min, max): (usize, usize), required: bool) -> bool {
        let path = &if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match holder.get(name) {
            None | Some(Value::Null) if required => self.required(path),
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => {
                self.length(path, text, min, max);
                return true;
            }
            Some(_) => self.fail(path, "STRING_TYPE_CONVERT", "Could not interpret as a string."),
        }
        false
    }

    /// The refusal, if anything was wrong.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Refusal { errors: Some(Value::Object(self.0)), ..Refusal::new(400, 50_035, "Invalid Form Body") })
    }
}

/// Discord's 429: fractions of a second in the body, whole seconds in the header.
pub(super) fn too_many(wait: Duration, global: bool) -> Answer {
    let body = json!({"message": "You are being rate limited.", "retry_after": wait.as_secs_f64(), "global": global});
    let answer = Answer::json(429, body).with("retry-after", wait.as_millis().div_ceil(1000).max(1));
    if global {
        answer.with("x-ratelimit-global", "true").with("x-ratelimit-scope", "global")
    } else {
        answer.with("x-ratelimit-scope", "user")
    }
}
