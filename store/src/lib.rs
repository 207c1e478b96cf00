//! What lasts: everything that Watchkeeper must not forget, in SQLite or PostgreSQL behind one set of methods in domain words.
//!
//! Every use is a transaction: `let mut tx = store.begin().await?; ..; tx.commit().await?`, or `store.read()` to look.
//! SQL lives here alone, one text for both databases; where they truly differ, a visible branch says so.

mod accept;
mod aging;
mod alerts;
mod approvals;
mod at_once;
mod attempts;
mod audit;
pub mod backup;
mod cards;
mod chain;
mod checkpoint;
mod claims;
mod clock;
mod codec;
mod cut;
mod deliveries;
mod depths;
mod ends;
mod enqueue;
mod epoch;
mod error;
mod events;
mod flags;
mod follow;
mod gate;
mod heartbeats;
mod incidents;
mod inspect;
mod jobs;
mod later;
mod leases;
mod lifecycle;
mod link;
mod locks;
mod met;
mod open;
mod packed;
mod postgres;
mod preload;
mod prepared;
mod prune;
mod relay;
mod reports;
mod rule_sets;
mod runs;
mod samples;
mod schema;
mod screens;
mod sight;
mod signin;
mod sqlite;
#[cfg(test)]
mod tests;
mod timeline;
mod tx;
mod unopened;
mod writer;

use std::sync::Arc;

use domain::id::{IncidentId, RunId};

pub use at_once::{Arrivals, Asks, Decider, Key, Known, Stored};
pub use audit::AuditFilter;
pub use cards::{CardParts, CardPost};
pub use chain::{Place, Sealed};
pub use cut::{AuditPruned, Signature};
pub use depths::Depths;
pub use ends::Did;
pub use enqueue::Take;
pub use epoch::NewEpoch;
pub use error::Error;
pub use events::DeadLetter;
pub use follow::Step;
pub use heartbeats::HeartbeatRow;
pub use incidents::IncidentFilter;
pub use inspect::{Inspection, inspect};

pub use lifecycle::JOB as LIFECYCLE_JOB;
pub use open::{Backend, Options};
pub use prune::{Aging, Pruned};
pub use runs::{RunFilter, ToStart};
pub use samples::Sample;
pub use screens::{Printer, Seen, Watched};
pub use signin::{SessionRow, TokenRow};
pub use tx::Tx;

/// The store. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Store {
    core: Arc<open::Core>,
    intake: accept::Intake,
    ends: ends::Ends,
}

/// What a committed transaction changed, for those who wait for it. A hint: whoever listens still asks the database, and asks it now
/// and then without a hint, because another process may have changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Events are waiting to be handled.
    Events,
    /// Jobs are due that wait for whoever claims them.
    Jobs,
    /// An incident or something on its card changed.
    Incident(IncidentId),
    /// The outcome of this event is known.
    Outcome(i64),
    /// A step of this run printed something. Other replicas are told where somebody there watches it (`relay.rs`).
    Printed(RunId),
    /// Something may have changed that was not told.
    Missed,
}

impl Store {
    /// Tells of changes after their commit, here and in other replicas. A listener that falls behind misses some and is told so.
    pub fn changes(&self) -> tokio::sync::broadcast::Receiver<Change> {
        self.core.changes.subscribe()
    }
}

impl open::Core {
    /// The one place from which committed changes go out: to this process now, to the others a moment later.
    fn announce(&self, changes: Vec<Change>) {
        for change in &changes {
            // Nobody listening is no failure.
            let _ = self.changes.send(*change);
        }
        if let Some(link) = self.link.get()
            && !changes.is_empty()
        {
            link.tell(changes);
        }
    }
}
