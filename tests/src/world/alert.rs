//! Alerts as Alertmanager posts them: the webhook of version 4.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use domain::time::{Clock, SystemClock};

/// One alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it ended; `None` while it fires.
    pub ends_at: Option<Timestamp>,
}

impl Alert {
    /// An alert that fires since a moment ago.
    pub fn new(name: &str) -> Self {
        let starts_at = SystemClock.now() - SignedDuration::from_secs(1);
        Self { labels: BTreeMap::new(), annotations: BTreeMap::new(), starts_at, ends_at: None }.label("alertname", name)
    }

    /// The alert that the default route takes.
    pub fn service_down() -> Self {
        let alert = Self::new("ServiceDown").label("service", "demo").label("severity", "critical").label("job", "demo");
        alert.annotation("summary", "Service demo is down")
    }

    /// With this label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With this annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same alert, ended now.
    #[must_use]
    pub fn resolved(&self) -> Self {
        Self { ends_at: Some(SystemClock.now()), ..self.clone() }
    }

    /// Its identity: what its labels make, as Alertmanager's does.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for part in self.labels.iter().flat_map(|(name, value)| [name, value]) {
            hash.update(part.as_bytes());
            hash.update([255]);
        }
        hex::encode(&hash.finalize()[..8])
    }

    fn json(&self) -> Value {
        let ends_at = self.ends_at.map_or("0001-01-01T00:00:00Z".to_owned(), |end| end.to_string());
        json!({
            "status": self.status(), "labels": self.labels, "annotations": self.annotations, "startsAt": self.starts_at.to_string(),
            "endsAt": ends_at, "generatorURL": "", "fingerprint": self.fingerprint(),
        })
    }

    fn status(&self) -> &'static str {
        if self.ends_at.is_some() { "resolved" } else { "firing" }
    }
}

/// A delivery with these alerts.
pub fn body(alerts: &[Alert]) -> Value {
    let firing = alerts.iter().any(|alert| alert.ends_at.is_none());
    let common = |of: fn(&Alert) -> &BTreeMap<String, String>| {
        let first = alerts.first().map(of).cloned().unwrap_or_default();
        first.into_iter().filter(|(name, value)| alerts.iter().all(|alert| of(alert).get(name) == Some(value))).collect::<BTreeMap<_, _>>()
    };
    let name = alerts.first().and_then(|alert| alert.labels.get("alertname")).cloned().unwrap_or_default();
    json!({
        "version": "4", "groupKey": format!("{{}}:{{alertname={name:?}}}"), "truncatedAlerts": 0,
        "status": if firing { "firing" } else { "resolved" }, "receiver": "watchkeeper", "groupLabels": { "alertname": name },
        "commonLabels": common(|alert| &alert.labels), "commonAnnotations": common(|alert| &alert.annotations),
        "externalURL": "", "alerts": alerts.iter().map(Alert::json).collect::<Vec<_>>(),
    })
}
