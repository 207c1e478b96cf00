//! Things to store.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::event::{Delivery, Event, NewEvent, Payload, Sighting, Status};
use jiff::Timestamp;

pub(crate) fn sighting(fingerprint: &str, status: Status, at: Timestamp) -> Sighting {
    Sighting {
        fingerprint: fingerprint.to_owned(),
        status,
        labels: BTreeMap::from([("alertname".to_owned(), "ServiceDown".to_owned()), ("fp".to_owned(), fingerprint.to_owned())]),
        annotations: BTreeMap::new(),
        starts_at: at,
        ends_at: (status == Status::Resolved).then_some(at),
        generator_url: None,
        external_url: None,
        cut: 0,
    }
}

pub(crate) fn delivery(source: &str, sightings: Vec<Sighting>, at: Timestamp) -> Delivery {
    let events = sightings.into_iter().map(|s| NewEvent::sighting(source, s)).collect();
    Delivery { source: source.to_owned(), events, raw: Bytes::from_static(b"{\"raw\":true}"), received_at: at }
}

/// What an alert event is about, as `fp:firing`.
pub(crate) fn told(event: &Event) -> String {
    match &event.payload {
        Payload::Alert(s) => format!("{}:{}", s.fingerprint, if s.status == Status::Firing { "firing" } else { "resolved" }),
        other => format!("{other:?}"),
    }
}
