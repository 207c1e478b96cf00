//! Alertmanager's webhook, version 4, and Grafana's superset of it. Unknown fields are welcome: users template the body, and versions add to it.

use std::fmt;
use std::marker::PhantomData;

use domain::event::{Labels, Sighting, Status};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Counted, MAX_ITEMS, ParseCx, ParseError, Parsed, Source, cap, identity, link, micros};
use crate::settings::Limits;

/// The kind `alertmanager`.
pub const KIND: Kind = Kind;

/// See [`KIND`].
#[derive(Debug)]
pub struct Kind;

impl Source for Kind {
    fn kind(&self) -> &'static str {
        "alertmanager"
    }

    fn short_paths(&self) -> &'static [&'static str] {
        &["/api/v1/webhooks/alertmanager", "/webhook/alertmanager", "/webhooks/alertmanager"]
    }

    fn body_limit(&self, limits: &Limits) -> usize {
        limits.alertmanager_body
    }

    fn parse(&self, cx: &ParseCx<'_>, body: &[u8]) -> Result<Parsed, ParseError> {
        parse(body, cx.received_at)
    }

    fn count(&self, _: &ParseCx<'_>, body: &[u8]) -> Result<Counted, ParseError> {
        let webhook: Webhook<Text, Texts> = serde_json::from_slice(body).map_err(|error| ParseError(error.to_string()))?;
        Ok(Counted { sightings: webhook.alerts.0.len(), left_out: webhook.truncated_alerts.unwrap_or(0) })
    }
}

/// What a body says. `received_at` stands in for a `startsAt` that is missing.
///
/// # Errors
/// Says where it is no JSON, or not Alertmanager's.
pub fn parse(body: &[u8], received_at: Timestamp) -> Result<Parsed, ParseError> {
    let webhook: Webhook<String, Labels> = serde_json::from_slice(body).map_err(|error| ParseError(error.to_string()))?;
    let external_url = link(webhook.external_url);
    let sighting = |alert: Alert<String, Labels>| alert.sighting(external_url.clone(), received_at);
    Ok(Parsed { sightings: webhook.alerts.0.into_iter().map(sighting).collect(), left_out: webhook.truncated_alerts.unwrap_or(0) })
}

/// The part of the body that means something to us. `status` and `groupKey` do not: Alertmanager truncates before it computes the
/// group's status, and the group's key changes with its routes.
///
/// `T` is a text and `L` are labels: [`String`] and [`Labels`], or [`Text`] and [`Texts`] where nobody asks what they say.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook<T, L> {
    #[serde(bound(deserialize = "T: Deserialize<'de>, L: Deserialize<'de>"))]
    alerts: Alerts<T, L>,
    #[serde(rename = "externalURL")]
    external_url: Option<T>,
    truncated_alerts: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert<T, L> {
    status: Status,
    labels: Option<L>,
    annotations: Option<L>,
    starts_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
    #[serde(rename = "generatorURL")]
    generator_url: Option<T>,
    fingerprint: Option<T>,
    // Grafana's.
    #[serde(rename = "dashboardURL")]
    dashboard_url: Option<T>,
    #[serde(rename = "panelURL")]
    panel_url: Option<T>,
    #[serde(rename = "silenceURL")]
    silence_url: Option<T>,
}

/// A text that was read and not kept.
struct Text;

/// Labels that were read and not kept.
struct Texts;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        deserializer.deserialize_str(Any)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                while map.next_entry::<Text, Text>()?.is_some() {}
                Ok(Texts)
            }
        }
        deserializer.deserialize_map(Any)
    }
}

impl Alert<String, Labels> {
    fn sighting(self, external_url: Option<String>, received_at: Timestamp) -> Sighting {
        let labels = self.labels.unwrap_or_default();
        let mut annotations = self.annotations.unwrap_or_default();
        for (name, url) in [("dashboard_url", self.dashboard_url), ("panel_url", self.panel_url), ("silence_url", self.silence_url)] {
            if let Some(url) = link(url) {
                annotations.entry(name.to_owned()).or_insert(url);
            }
        }
        let fingerprint = self.fingerprint.and_then(|given| identity(&given)).unwrap_or_else(|| fingerprint(&labels));
        let (labels, annotations, cut) = cap(labels, annotations);
        let ends_at = self.ends_at.and_then(real).filter(|_| self.status == Status::Resolved);
        Sighting {
            fingerprint,
            status: self.status,
            labels,
            annotations,
            starts_at: self.starts_at.and_then(real).unwrap_or(received_at),
            ends_at,
            generator_url: link(self.generator_url),
            external_url,
            cut,
        }
    }
}

/// A time that is one: Go writes "none" as the first second of year 1.
fn real(time: Timestamp) -> Option<Timestamp> {
    const YEAR_2: i64 = -62_104_060_800;
    (time.as_second() >= YEAR_2).then(|| micros(time))
}

/// The fingerprint that Alertmanager itself computes: FNV-1a (64 bits) over the sorted labels, each name and value followed by 0xff
/// (`prometheus/common/model`, `labelSetToFingerprint`). So an alert keeps its identity when a templated body leaves the field out.
fn fingerprint(labels: &Labels) -> String {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let bytes = labels.iter().flat_map(|(name, value)| name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]));
    format!("{:016x}", bytes.fold(0xcbf2_9ce4_8422_2325, add))
}

/// The alerts of one body, at most [`MAX_ITEMS`]: the count is checked while they are read, not when memory is spent.
struct Alerts<T, L>(Vec<Alert<T, L>>);

impl<'de, T: Deserialize<'de>, L: Deserialize<'de>> Deserialize<'de> for Alerts<T, L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<T, L>(PhantomData<(T, L)>);
        impl<'de, T: Deserialize<'de>, L: Deserialize<'de>> Visitor<'de> for Bounded<T, L> {
            type Value = Alerts<T, L>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of alerts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut alerts = Vec::new();
                while let Some(alert) = seq.next_element()? {
                    if alerts.len() == MAX_ITEMS {
                        return Err(A::Error::custom(format_args!("more than {MAX_ITEMS} alerts")));
                    }
                    alerts.push(alert);
                }
                Ok(Alerts(alerts))
            }
        }
        deserializer.deserialize_seq(Bounded(PhantomData))
    }
}

#[cfg(test)]
#[path = "alertmanager_tests.rs"]
mod tests;
