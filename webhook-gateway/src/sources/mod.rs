//! The kinds of event sources: each file turns one vendor's JSON into sightings, and vendor JSON goes no further.
//!
//! To add one: a file with a `KIND`, its fixtures, and its name in `sources!`.

use std::fmt::Debug;
use std::sync::Arc;

use arc_swap::ArcSwap;
use domain::canonical::ContentKey;
use domain::event::{Heartbeat, Labels, NewEvent, Sighting, Status};
use domain::inbox::Opener;
use domain::rules::{RuleSet, SourceRule};
use jiff::Timestamp;

use self::generic::GenericMap;
use crate::settings::Limits;

/// Declares the modules and the list of kinds.
macro_rules! sources {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*

        /// Every kind of source.
        pub static KINDS: &[&dyn Source] = &[$(&$name::KIND),*];
    };
}

sources! { alertmanager, generic }

/// A kind of source. Requests come to `POST /api/v1/webhooks/{kind}/{source}`.
pub trait Source: Send + Sync + Debug {
    /// Its word in the configuration and in the path.
    fn kind(&self) -> &'static str;

    /// Further paths; the source's name is then the kind's, or follows as `/{source}`.
    fn short_paths(&self) -> &'static [&'static str] {
        &[]
    }

    /// Largest body, in bytes.
    fn body_limit(&self, limits: &Limits) -> usize {
        limits.body
    }

    /// What a body says.
    ///
    /// # Errors
    /// Says what cannot be read, for whoever looks at the sample.
    fn parse(&self, cx: &ParseCx<'_>, body: &[u8]) -> Result<Parsed, ParseError>;

    /// How much a body says: for one that is read when it is its turn. Takes and refuses what [`Source::parse`] does.
    ///
    /// # Errors
    /// As [`Source::parse`].
    fn count(&self, cx: &ParseCx<'_>, body: &[u8]) -> Result<Counted, ParseError> {
        self.parse(cx, body).map(|parsed| Counted { sightings: parsed.sightings.len(), left_out: parsed.left_out })
    }
}

/// What a parser is told besides the body.
#[derive(Clone, Copy, Debug)]
pub struct ParseCx<'a> {
    /// When the request arrived: stands in for times that the sender leaves out.
    pub received_at: Timestamp,
    /// Header names in lower case and values; without credentials.
    pub headers: &'a [(String, String)],
    /// The source's own mapping, where its kind has one.
    pub map: Option<&'a GenericMap>,
}

/// What a body says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// In the body's order.
    pub sightings: Vec<Sighting>,
    /// How many alerts the sender says that it left out. They are unknown, not resolved.
    pub left_out: u64,
}

/// How much a body says; see [`Parsed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Sightings in it.
    pub sightings: usize,
    /// Alerts that the sender says it left out.
    pub left_out: u64,
}

/// Why a body is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// Alerts or items that one body may hold.
pub const MAX_ITEMS: usize = 100_000;
/// Longest fingerprint that is kept as it is, in bytes.
const MAX_FINGERPRINT: usize = 128;
/// Longest link, in bytes.
const MAX_LINK: usize = 2048;

/// The kind of this name.
pub fn kind(name: &str) -> Option<&'static dyn Source> {
    KINDS.iter().copied().find(|kind| kind.kind() == name)
}

/// Sightings as events of `source`. Alerts that the source's rule names as signs of life become heartbeats; `delivery` names this
/// delivery uniquely, so that each sign of life counts and a redelivery does not.
pub fn events(source: &str, rule: Option<&SourceRule>, sightings: Vec<Sighting>, received_at: Timestamp, delivery: &str) -> Vec<NewEvent> {
    let sign_of_life = |sighting: &Sighting| {
        let name = sighting.labels.get("alertname").filter(|_| sighting.status == Status::Firing)?;
        let within = *rule?.heartbeats.get(name)?;
        Some(Heartbeat { name: name.clone(), within, at: received_at })
    };
    let event = |sighting: Sighting| match sign_of_life(&sighting) {
        Some(heartbeat) => {
            let nonce = [delivery, &sighting.fingerprint].join("/");
            NewEvent::heartbeat(source, heartbeat, nonce.as_bytes())
        }
        None => NewEvent::sighting(source, sighting),
    };
    sightings.into_iter().map(event).collect()
}

/// Finds the events of sealed deliveries by the rules in force.
pub struct Reader(pub Arc<ArcSwap<RuleSet>>);

impl Opener for Reader {
    fn open(&self, source: &str, kind: &str, id: &str, received_at: Timestamp, raw: &[u8]) -> Result<Vec<NewEvent>, String> {
        let kind = self::kind(kind).ok_or_else(|| format!("no kind of source is called {kind}"))?;
        let parsed = kind.parse(&ParseCx { received_at, headers: &[], map: None }, raw).map_err(|error| error.to_string())?;
        Ok(events(source, self.0.load().sources.get(source), parsed.sightings, received_at, id))
    }
}

/// The identity that a sender gives, if it is usable; a long one by its digest. NUL is what PostgreSQL refuses.
fn identity(given: &str) -> Option<String> {
    match given.len() {
        0 => None,
        1..=MAX_FINGERPRINT if !given.contains('\0') => Some(given.to_owned()),
        _ => Some(ContentKey::of(&[given.as_bytes()]).to_string()),
    }
}

/// A link that people may be shown: http or https, short, without blanks and control characters.
fn link(given: Option<String>) -> Option<String> {
    let scheme = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    let odd = |c: char| c.is_control() || c.is_whitespace();
    given.filter(|url| scheme(url) && url.len() <= MAX_LINK && !url.contains(odd))
}

/// As the databases hold it: microseconds.
fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// Bounds labels and annotations; see [`domain::text`]. Returns how much was cut.
fn cap(labels: Labels, annotations: Labels) -> (Labels, Labels, u32) {
    let (labels, cut_labels) = domain::text::cap_labels(labels);
    let (annotations, cut_annotations) = domain::text::cap_annotations(annotations);
    (labels, annotations, cut_labels + cut_annotations)
}
