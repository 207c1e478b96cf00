//! Alerts about ourselves: they enter by the same inbox as everybody else's.

use domain::canonical::ContentKey;
use domain::event::{Labels, Sighting, Status};
use jiff::Timestamp;

/// The source of our own alerts.
pub(crate) const SOURCE: &str = "watchkeeper";

/// A source sends bodies that are refused for their size: its alerts do not arrive.
pub(crate) fn body_too_large(source: &str, limit: usize, now: Timestamp) -> Sighting {
    let summary = format!("Source {source} sends bodies larger than {limit} bytes");
    let description = format!(
        "A request of source {source} was larger than the {limit} bytes that its route takes. It was refused, and what it said is \
         unknown. Alertmanager: set max_alerts in the webhook_config, or group by more labels."
    );
    alert("WatchkeeperBodyTooLarge", source, [("summary", summary), ("description", description)], now)
}

/// `origin="self"` lets routes keep automation away from alerts that automation may have caused.
fn alert<const N: usize>(name: &str, source: &str, annotations: [(&str, String); N], now: Timestamp) -> Sighting {
    let label = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let labels: Labels =
        [("alertname", name), ("source", source), ("severity", "critical"), ("origin", "self")].into_iter().map(label).collect();
    // One event per minute is enough to keep it firing; the others meet its key.
    let minute = now.as_second() - now.as_second().rem_euclid(60);
    Sighting {
        fingerprint: ContentKey::of(&[name.as_bytes(), source.as_bytes()]).to_string(),
        status: Status::Firing,
        labels,
        annotations: annotations.into_iter().map(|(name, text)| (name.to_owned(), text)).collect(),
        starts_at: Timestamp::from_second(minute).unwrap_or(now),
        ends_at: None,
        generator_url: None,
        external_url: None,
        cut: 0,
    }
}
