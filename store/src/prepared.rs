//! A delivery before it is stored: made into rows by whoever brings it, so that the one writer only writes.

use domain::event::{Delivery, EventClass, NewEvent, Payload};
use domain::id::DeliveryId;
use domain::inbox::{InboxError, Sealed};

use crate::Error;
use crate::codec::{clean, micros, to_doc};
use crate::packed::Packed;

/// A delivery that is to be stored.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) id: Vec<u8>,
    pub(crate) source: String,
    pub(crate) received_at: i64,
    pub(crate) body: Body,
    pub(crate) content: Content,
}

/// What it holds.
#[derive(Debug)]
pub(crate) enum Content {
    Rows(Vec<Row>),
    /// What an opener will find in the body: how many events, by the kind and the id of [`Sealed`].
    Sealed {
        events: usize,
        kind: &'static str,
        id: Option<String>,
    },
}

/// The delivery as it was received.
#[derive(Debug)]
pub(crate) enum Body {
    None,
    /// To be kept, if anything in it is new.
    New(Packed),
    /// Kept already; let it go if nothing in it is new.
    Kept,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) key: [u8; 16],
    pub(crate) lane: i64,
    pub(crate) chain: i64,
    pub(crate) person: bool,
    pub(crate) payload: Payload,
    /// As it is stored.
    pub(crate) doc: String,
}

impl Prepared {
    pub(crate) async fn new(delivery: Delivery) -> Result<Self, InboxError> {
        let rows = delivery.events.into_iter().map(Row::new).collect::<Result<_, _>>().map_err(InboxError::from)?;
        Ok(Self {
            id: DeliveryId::new(delivery.received_at).0.as_bytes().to_vec(),
            source: clean(&delivery.source).into_owned(),
            received_at: micros(delivery.received_at),
            body: if delivery.raw.is_empty() { Body::None } else { Body::New(Packed::new(delivery.raw).await?) },
            content: Content::Rows(rows),
        })
    }

    pub(crate) async fn sealed(sealed: Sealed) -> Result<Self, InboxError> {
        Ok(Self {
            id: DeliveryId::new(sealed.received_at).0.as_bytes().to_vec(),
            source: clean(&sealed.source).into_owned(),
            received_at: micros(sealed.received_at),
            body: Body::New(Packed::new(sealed.raw).await?),
            content: Content::Sealed { events: sealed.events, kind: sealed.kind, id: sealed.id },
        })
    }

    /// The rows of its events; none if it is sealed.
    pub(crate) fn rows(&self) -> &[Row] {
        match &self.content {
            Content::Rows(rows) => rows,
            Content::Sealed { .. } => &[],
        }
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.content, Content::Sealed { .. })
    }

    /// How many events it holds.
    pub(crate) fn events(&self) -> usize {
        match &self.content {
            Content::Rows(rows) => rows.len(),
            Content::Sealed { events, .. } => *events,
        }
    }
}

impl Row {
    pub(crate) fn new(event: NewEvent) -> Result<Self, Error> {
        let hash = event.order_hash();
        let [a, b, c, d, e, f, g, h, ..] = hash.0;
        Ok(Self {
            key: event.key.0,
            lane: i64::from(event.class.lane(hash)),
            chain: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            person: event.class == EventClass::Person,
            doc: to_doc(&event.payload)?,
            payload: event.payload,
        })
    }
}

/// The rows of deliveries in the order in which they are decided: people before machines.
pub(crate) fn in_order<'a>(batch: &'a [&'a Prepared]) -> impl Iterator<Item = (&'a Prepared, &'a Row)> + use<'a> {
    let rows = batch.iter().flat_map(|delivery| delivery.rows().iter().map(move |row| (*delivery, row)));
    rows.clone().filter(|(_, row)| row.person).chain(rows.filter(|(_, row)| !row.person))
}
