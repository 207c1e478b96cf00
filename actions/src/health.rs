//! The health answer that services give: `{status, version, timestamp, checks{}, uptime}` with a status of three.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How well a service says it is. Better is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// A critical dependency is down.
    Unhealthy,
    /// It works, something that it can do without does not.
    Degraded,
    /// All is well.
    Healthy,
}

/// A health answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) status: Level,
    #[serde(default)]
    pub(crate) version: Option<String>,
    #[serde(default)]
    pub(crate) timestamp: Option<String>,
    /// Text (`72h30m15s`) or seconds.
    #[serde(default)]
    pub(crate) uptime: Option<Value>,
    /// By dependency: a word, or a mapping with a `status`.
    #[serde(default)]
    pub(crate) checks: BTreeMap<String, Value>,
}

impl Health {
    /// Reads an answer; fields that it has besides are welcome.
    pub(crate) fn parse(body: &[u8]) -> Result<Health, String> {
        serde_json::from_slice(body)
            .map_err(|error| format!("the answer is not of the form {{status, version, timestamp, checks, uptime}}: {error}"))
    }

    /// The dependencies that are not well, with their words.
    pub(crate) fn troubled(&self) -> Vec<String> {
        let word = |check: &Value| check.get("status").unwrap_or(check).as_str().map(str::to_lowercase);
        let well = |word: &str| matches!(word, "healthy" | "ok" | "up" | "pass" | "passing");
        let trouble = |(name, check): (&String, &Value)| match word(check) {
            Some(word) if well(&word) => None,
            Some(word) => Some(format!("{name} {word}")),
            None => Some(format!("{name} unclear")),
        };
        self.checks.iter().filter_map(trouble).collect()
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let status = match self.status {
            Level::Healthy => "healthy",
            Level::Degraded => "degraded",
            Level::Unhealthy => "unhealthy",
        };
        let trouble = self.troubled();
        if trouble.is_empty() { status.to_owned() } else { format!("{status} ({})", trouble.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_checks_are_read() {
        let flat = Health::parse(
            br#"{"status":"degraded","version":"v1.0.0","timestamp":"2026-10-19T15:30:00Z",
                 "checks":{"database":"healthy","nats":"ok","redis":"unhealthy"},"uptime":"72h30m15s"}"#,
        )
        .unwrap();
        assert_eq!(flat.status, Level::Degraded);
        assert_eq!(flat.line(), "degraded (redis unhealthy)");
        let nested = Health::parse(
            br#"{"status":"unhealthy","checks":{"disk":{"status":"unhealthy","percent_used":99.1},"cpu":{"status":"healthy"},"x":{}},"uptime":12}"#,
        )
        .unwrap();
        assert_eq!(nested.line(), "unhealthy (disk unhealthy, x unclear)");
        assert_eq!(Health::parse(br#"{"status":"healthy"}"#).unwrap().line(), "healthy");
    }

    #[test]
    fn other_words_are_no_health() {
        for body in ["", "[]", "{}", r#"{"status":"fine"}"#, r#"{"status":1}"#, "<html>"] {
            assert!(Health::parse(body.as_bytes()).unwrap_err().contains("not of the form"), "{body}");
        }
        assert!(Level::Healthy > Level::Degraded && Level::Degraded > Level::Unhealthy);
    }
}
