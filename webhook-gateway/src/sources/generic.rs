//! Any JSON, mapped to alerts by expressions from the configuration. Messages from the bus are mapped by the same function.

use std::collections::BTreeMap;

use domain::canonical::{ContentKey, canonical_json};
use domain::event::{Labels, Sighting, Status};
use domain::expr::{Expr, ExprError};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ParseCx, ParseError, Parsed, Source, cap, identity, link, micros};

/// The kind `generic`.
pub const KIND: Kind = Kind;

/// See [`KIND`].
#[derive(Debug)]
pub struct Kind;

impl Source for Kind {
    fn kind(&self) -> &'static str {
        "generic"
    }

    fn parse(&self, cx: &ParseCx<'_>, body: &[u8]) -> Result<Parsed, ParseError> {
        let how = cx.map.ok_or_else(|| ParseError("the source has no `map`: say how its JSON becomes alerts".to_owned()))?;
        let body = serde_json::from_slice(body).map_err(|error| ParseError(error.to_string()))?;
        let sightings = map(how, body, cx.headers, cx.received_at).map_err(|error| ParseError(error.to_string()))?;
        Ok(Parsed { sightings, left_out: 0 })
    }
}

/// A mapping as the configuration writes it: CEL over `body` and `headers`, and over `item` where there is `each`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapSpec {
    /// A list: each of its items is an alert. Without it the body is one.
    pub each: Option<String>,
    /// What tells alerts apart; without it all the labels together.
    pub fingerprint: Option<String>,
    /// `"firing"` or `"resolved"`, or a boolean: whether it fires. Without it everything fires.
    pub status: Option<String>,
    /// Label name to expression. Null and the empty text leave the label out.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotation name to expression.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339 text or Unix seconds; without it the time of arrival.
    pub starts_at: Option<String>,
    /// The same, for what is resolved.
    pub ends_at: Option<String>,
    /// A link to what the alert is about.
    pub url: Option<String>,
}

/// A compiled mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct GenericMap {
    each: Option<Expr>,
    fingerprint: Option<Expr>,
    status: Option<Expr>,
    labels: BTreeMap<String, Expr>,
    annotations: BTreeMap<String, Expr>,
    starts_at: Option<Expr>,
    ends_at: Option<Expr>,
    url: Option<Expr>,
}

/// Which expression failed, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{at}`: {why}")]
pub struct MapError {
    /// The place in the mapping: `labels.service`.
    pub at: String,
    /// What is wrong.
    pub why: String,
}

/// Items that one body may hold.
const MAX_ITEMS: usize = 10_000;
/// Bytes of body times items that ask for it: an expression sees the whole body again for every item.
const MAX_WORK: usize = 64 * 1024 * 1024;

impl GenericMap {
    /// Compiles every expression.
    ///
    /// # Errors
    /// Names the first that is wrong.
    pub fn compile(spec: &MapSpec) -> Result<Self, MapError> {
        if spec.labels.is_empty() {
            return Err(wrong("labels", "say at least one label, `alertname` above all"));
        }
        let variables: &[&str] = if spec.each.is_some() { &["body", "headers", "item"] } else { &["body", "headers"] };
        let one = |at: &str, text: &str| Expr::compile(text, variables).map_err(|error| failed(at, &error));
        let maybe = |at: &str, text: &Option<String>| text.as_deref().map(|text| one(at, text)).transpose();
        let many = |at: &str, texts: &BTreeMap<String, String>| {
            let named = |(name, text): (&String, &String)| Ok((name.clone(), one(&format!("{at}.{name}"), text)?));
            texts.iter().map(named).collect::<Result<BTreeMap<_, _>, MapError>>()
        };
        let each = spec.each.as_deref().map(|text| Expr::compile(text, &["body", "headers"]).map_err(|error| failed("each", &error)));
        Ok(Self {
            each: each.transpose()?,
            fingerprint: maybe("fingerprint", &spec.fingerprint)?,
            status: maybe("status", &spec.status)?,
            labels: many("labels", &spec.labels)?,
            annotations: many("annotations", &spec.annotations)?,
            starts_at: maybe("starts_at", &spec.starts_at)?,
            ends_at: maybe("ends_at", &spec.ends_at)?,
            url: maybe("url", &spec.url)?,
        })
    }

    fn uses_body(&self) -> bool {
        let single = [&self.fingerprint, &self.status, &self.starts_at, &self.ends_at, &self.url].into_iter().flatten();
        let mut all = single.chain(self.labels.values()).chain(self.annotations.values());
        all.any(|expr| expr.variables().iter().any(|name| name == "body"))
    }
}

/// What `body` says by this mapping. `headers` have lower-case names and no credentials.
///
/// # Errors
/// The first expression that fails, or gives what cannot stand in its place. Nothing of the body is used then.
pub fn map(how: &GenericMap, body: Value, headers: &[(String, String)], received_at: Timestamp) -> Result<Vec<Sighting>, MapError> {
    let size = if how.each.is_some() && how.uses_body() { canonical_json(&body).len() } else { 0 };
    let headers: Map<String, Value> = headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut vars = json!({"headers": headers});
    vars["body"] = body;
    let Some(each) = &how.each else { return Ok(vec![sighting(how, &vars, received_at)?]) };
    let Value::Array(items) = each.eval(&vars).map_err(|error| failed("each", &error))? else {
        return Err(wrong("each", "is no list"));
    };
    if items.len() > MAX_ITEMS || items.len().saturating_mul(size) > MAX_WORK {
        return Err(wrong("each", "gives too many items for one body"));
    }
    let mut sightings = Vec::with_capacity(items.len());
    for item in items {
        vars["item"] = item;
        sightings.push(sighting(how, &vars, received_at)?);
    }
    Ok(sightings)
}

fn sighting(how: &GenericMap, vars: &Value, received_at: Timestamp) -> Result<Sighting, MapError> {
    let value = |at: &str, expr: &Option<Expr>| expr.as_ref().map(|expr| expr.eval(vars).map_err(|error| failed(at, &error))).transpose();
    let status = status(value("status", &how.status)?)?;
    let (labels, annotations) = (texts("labels", &how.labels, vars)?, texts("annotations", &how.annotations, vars)?);
    let fingerprint = match value("fingerprint", &how.fingerprint)? {
        None => None,
        Some(given) => text(&given).ok_or_else(|| wrong("fingerprint", "is no text"))?.and_then(|given| identity(&given)),
    };
    let fingerprint = fingerprint.unwrap_or_else(|| ContentKey::of(&[canonical_json(&json!(labels)).as_bytes()]).to_string());
    let (labels, annotations, cut) = cap(labels, annotations);
    let ends_at = time("ends_at", value("ends_at", &how.ends_at)?)?;
    let url = value("url", &how.url)?.and_then(|url| text(&url).flatten());
    Ok(Sighting {
        fingerprint,
        status,
        labels,
        annotations,
        starts_at: time("starts_at", value("starts_at", &how.starts_at)?)?.unwrap_or(received_at),
        ends_at: ends_at.filter(|_| status == Status::Resolved),
        generator_url: link(url),
        external_url: None,
        cut,
    })
}

fn texts(at: &str, exprs: &BTreeMap<String, Expr>, vars: &Value) -> Result<Labels, MapError> {
    let mut labels = Labels::new();
    for (name, expr) in exprs {
        let at = || format!("{at}.{name}");
        let value = expr.eval(vars).map_err(|error| failed(&at(), &error))?;
        let text = text(&value).ok_or_else(|| wrong(&at(), "is no text, number or boolean"))?;
        labels.extend(text.map(|text| (name.clone(), text)));
    }
    Ok(labels)
}

/// A single value as text; `Some(None)` where there is none.
fn text(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        Value::String(text) => Some(Some(text.clone()).filter(|text| !text.is_empty())),
        Value::Bool(_) | Value::Number(_) => Some(Some(value.to_string())),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn status(value: Option<Value>) -> Result<Status, MapError> {
    match value {
        None | Some(Value::Bool(true)) => Ok(Status::Firing),
        Some(Value::Bool(false)) => Ok(Status::Resolved),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("firing") => Ok(Status::Firing),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("resolved") => Ok(Status::Resolved),
        Some(_) => Err(wrong("status", "is neither \"firing\" nor \"resolved\" nor a boolean")),
    }
}

fn time(at: &str, value: Option<Value>) -> Result<Option<Timestamp>, MapError> {
    let found = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.parse().ok(),
        Some(Value::Number(seconds)) => seconds.as_f64().and_then(unix),
        Some(_) => None,
    };
    found.map(|time| Some(micros(time))).ok_or_else(|| wrong(at, "is no time: RFC 3339 text or Unix seconds are"))
}

/// From Unix seconds with a fraction.
fn unix(seconds: f64) -> Option<Timestamp> {
    let span = jiff::SignedDuration::try_from_secs_f64(seconds).ok()?;
    Timestamp::from_duration(span).ok()
}

fn wrong(at: &str, why: &str) -> MapError {
    MapError { at: at.to_owned(), why: why.to_owned() }
}

fn failed(at: &str, error: &ExprError) -> MapError {
    MapError { at: at.to_owned(), why: error.to_string() }
}

#[cfg(test)]
#[path = "generic_tests.rs"]
mod tests;
