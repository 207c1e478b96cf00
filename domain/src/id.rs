//! Typed identifiers: UUIDv7, so that ids sort by the time of their birth.

use jiff::Timestamp;
use uuid::Uuid;

/// Declares an identifier type around a UUID. `new` takes the time, so that nothing here reads a clock.
#[macro_export]
macro_rules! define_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A fresh id whose leading bits are `now`.
            pub fn new(now: jiff::Timestamp) -> Self {
                Self($crate::id::uuid_at(now))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

define_id!(
    /// One stored request body; its events refer to it.
    DeliveryId
);
define_id!(
    /// One incident. People see its number (`#142`) instead.
    IncidentId
);
define_id!(
    /// One execution of a runbook.
    RunId
);
define_id!(
    /// One request for approval of one run.
    ApprovalId
);
define_id!(
    /// One obligation of the worker.
    JobId
);
define_id!(
    /// One row of the audit log.
    AuditId
);
define_id!(
    /// One signed-in browser.
    SessionId
);
define_id!(
    /// One API token (the id is public, the secret is stored hashed).
    TokenId
);
define_id!(
    /// One start of the server process; claims name it.
    StartId
);

/// A version 7 UUID for `now`.
pub fn uuid_at(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}
