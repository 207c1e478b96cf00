//! What the gateway is told at start: the sources and their secrets, and the bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::auth::{HashedSecret, SourceAuth};
use crate::sources::Source;
use crate::sources::generic::GenericMap;

/// What the gateway is told at start.
#[derive(Clone)]
pub struct Settings {
    /// The sources by name. Swapped on reload.
    pub sources: Arc<ArcSwap<SourceTable>>,
    /// The bounds.
    pub limits: Limits,
    /// If set, `/metrics` wants it as a bearer token: the names of the sources are labels there.
    pub metrics_token: Option<HashedSecret>,
    /// What `/version` and `/health` say.
    pub version: String,
    /// Whether people reach it by HTTPS: answers then say `Strict-Transport-Security`.
    pub https: bool,
}

/// The sources by name, as they stand in the path of their requests.
pub type SourceTable = BTreeMap<String, SourceSettings>;

/// One configured source.
#[derive(Clone)]
pub struct SourceSettings {
    /// Which parser reads it; see [`crate::sources::kind`].
    pub kind: &'static dyn Source,
    /// Who may send.
    pub auth: SourceAuth,
    /// How its JSON becomes alerts; only kind `generic` needs one.
    pub map: Option<Arc<GenericMap>>,
}

/// The bounds of requests and answers. Tests make them smaller.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest body on routes without a limit of their own, in bytes.
    pub body: usize,
    /// Largest body on the Alertmanager routes, in bytes: one POST may carry a whole storm.
    pub alertmanager_body: usize,
    /// Largest body that is read before its signature can be checked, in bytes.
    pub signed_body: usize,
    /// Bodies held at once, of senders who have proved who they are, in bytes.
    pub in_flight: usize,
    /// Bodies held at once, of senders who have not yet, in bytes.
    pub unproven_in_flight: usize,
    /// From a body's first byte to its last.
    pub body_time: Duration,
    /// How long the store may take to accept; it grows with the number of events.
    pub store_time: Duration,
    /// How long an API call waits for the outcome of its act.
    pub outcome_time: Duration,
    /// How often refusals are written down.
    pub refusals_every: Duration,
    /// Live streams at once.
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            body: MIB,
            alertmanager_body: 32 * MIB,
            signed_body: 8 * MIB,
            in_flight: 64 * MIB,
            unproven_in_flight: 16 * MIB,
            body_time: Duration::from_secs(10),
            store_time: Duration::from_secs(3),
            outcome_time: Duration::from_secs(5),
            refusals_every: Duration::from_secs(10),
            streams: 256,
        }
    }
}
