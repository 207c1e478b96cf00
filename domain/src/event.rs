//! What comes in. Every edge turns what it hears into one of these few shapes before it is stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::act::Act;
use crate::canonical::ContentKey;
use crate::duration::Dur;

/// Label or annotation set. Sorted, so that equal sets have equal bytes.
pub type Labels = BTreeMap<String, String>;

/// A stored event as the handlers see it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place in the inbox: within a lane, events are handled in this order.
    pub seq: i64,
    /// Unique identity: the same thing heard twice has the same key.
    pub key: ContentKey,
    /// The configured source that it came from (`chat`, `api` and `timer` for our own).
    pub source: String,
    /// When it was first accepted.
    pub received_at: Timestamp,
    /// When the same content was last heard.
    pub last_seen: Timestamp,
    /// How many times the same content was heard.
    pub seen: i64,
    /// How often handling was tried before.
    pub attempts: i64,
    /// What it says.
    pub payload: Payload,
}

/// What an event says. Few shapes: a new vendor adds a parser, never a variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Payload {
    /// An alert was seen firing or resolved.
    Alert(Sighting),
    /// A sign of life that must keep coming.
    Heartbeat(Heartbeat),
    /// A person, or a program with a token, asked for something.
    Act(Box<Act>),
}

/// One sighting of an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// Identity within the source.
    pub fingerprint: String,
    /// Firing or resolved.
    pub status: Status,
    /// What routes match on. Untrusted.
    pub labels: Labels,
    /// Text for people. Untrusted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Labels,
    /// When the source says that it began. Not an identity: a flap changes it.
    pub starts_at: Timestamp,
    /// When the source says that it ended; only on resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// Link to the graph behind the alert. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator_url: Option<String>,
    /// Address of the sender's own page (Alertmanager's `externalURL`). Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_url: Option<String>,
    /// How many labels or annotations were cut to the limits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: u32,
}

/// What a source says of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It holds now.
    Firing,
    /// It no longer holds.
    Resolved,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// What must keep coming, e.g. `Watchdog`.
    pub name: String,
    /// Silence longer than this is an incident.
    pub within: Dur,
    /// When it was sent, if the sender says so.
    pub at: Timestamp,
}

/// One request body (or chat act, or message) on its way into the inbox.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The configured source.
    pub source: String,
    /// The events that it holds, in order.
    pub events: Vec<NewEvent>,
    /// The body as received, kept once for evidence; empty where there is none.
    pub raw: bytes::Bytes,
    /// When the edge received it.
    pub received_at: Timestamp,
}

/// An event not yet stored.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Unique identity; see [`Event::key`].
    pub key: ContentKey,
    /// Events with the same order key are handled in order. It is hashed to a lane.
    pub order_key: String,
    /// Which lanes it queues in.
    pub class: EventClass,
    /// What it says.
    pub payload: Payload,
}

/// People are served before machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventClass {
    /// Alerts and heartbeats: lanes 0 to 63.
    Machine,
    /// Acts of people: lanes of their own, served first.
    Person,
}

impl EventClass {
    /// The number of lanes of each class.
    pub const LANES: u16 = 64;

    /// The lane for an order key's hash ([`NewEvent::order_hash`]): 0..64 for machines, 64..128 for people.
    pub fn lane(self, order_hash: ContentKey) -> u16 {
        let lane = u16::from(order_hash.0[0]) % Self::LANES;
        match self {
            Self::Machine => lane,
            Self::Person => Self::LANES + lane,
        }
    }
}

impl NewEvent {
    /// An alert sighting: its key covers everything that the source said, never who sent it or when it arrived, so that two
    /// Alertmanagers of one cluster, and their retries, meet the same key.
    pub fn sighting(source: &str, sighting: Sighting) -> Self {
        // Canonical JSON as it is: the labels are sorted, and there are no numbers.
        let content =
            serde_json::to_vec(&(&sighting.status, &sighting.labels, &sighting.annotations, &sighting.starts_at, &sighting.ends_at))
                .unwrap_or_default();
        Self {
            key: ContentKey::of(&[b"alert", source.as_bytes(), sighting.fingerprint.as_bytes(), &content]),
            order_key: format!("{source}/{}", sighting.fingerprint),
            class: EventClass::Machine,
            payload: Payload::Alert(sighting),
        }
    }

    /// The hash of the order key, by which its lane and its chain are found.
    pub fn order_hash(&self) -> ContentKey {
        ContentKey::of(&[self.order_key.as_bytes()])
    }

    /// A heartbeat. Every one is an event of its own.
    pub fn heartbeat(source: &str, heartbeat: Heartbeat, nonce: &[u8]) -> Self {
        let order_key = format!("{source}/heartbeat/{}", heartbeat.name);
        Self {
            key: ContentKey::of(&[b"heartbeat", order_key.as_bytes(), nonce]),
            order_key,
            class: EventClass::Machine,
            payload: Payload::Heartbeat(heartbeat),
        }
    }

    /// A person's act. `identity` names it uniquely on its platform (Slack's trigger id, Discord's interaction id, an
    /// idempotency key), so that a redelivery meets the same key.
    pub fn act(source: &str, identity: &str, act: Act) -> Self {
        Self {
            key: ContentKey::of(&[b"act", source.as_bytes(), identity.as_bytes()]),
            order_key: act.order_key(),
            class: EventClass::Person,
            payload: Payload::Act(Box::new(act)),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sightings_key_is_that_of_its_canonical_json() {
        let labels = [("Z", "1"), ("é", "\u{202e}\n\"\\"), ("a", "</script>"), ("alertname", "\u{0}\u{7f}😀")];
        let sighting = Sighting {
            fingerprint: "f".to_owned(),
            status: Status::Resolved,
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            annotations: [("summary".to_owned(), "a\tb".to_owned())].into(),
            starts_at: "2026-03-01T12:00:00.000001Z".parse().unwrap(),
            ends_at: Some("2026-03-01T12:00:01Z".parse().unwrap()),
            generator_url: None,
            external_url: None,
            cut: 0,
        };
        let told = (&sighting.status, &sighting.labels, &sighting.annotations, &sighting.starts_at, &sighting.ends_at);
        let content = crate::canonical::canonical_json(&serde_json::to_value(told).unwrap());
        let key = ContentKey::of(&[b"alert", b"am", b"f", content.as_bytes()]);
        assert_eq!(NewEvent::sighting("am", sighting).key, key);
    }
}
