//! What every platform's inbound side shares: an act is stored, within two seconds, before the person is answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::act::{Act, Verb};
use domain::button::Pressed;
use domain::card::ButtonKind;
use domain::event::{Delivery, NewEvent};
use domain::id::{ApprovalId, IncidentId, RunId};
use domain::inbox::{Inbox, Lookup};
use domain::permission::Right;
use domain::run::Settlement;
use domain::time::Clock;

/// Both platforms give up after three seconds; the rest is for the way there and back.
const STORE_WITHIN: Duration = Duration::from_secs(2);

/// Meanwhile an incident's number is looked up, or a list read.
pub(crate) const LOOKUP_WITHIN: Duration = Duration::from_millis(800);

/// Told when an act was not stored.
pub(crate) const NOT_RECORDED: &str = "Not recorded: Watchkeeper could not store it in time. Press again.";
/// Told when nobody can tell: the disk was still at it.
pub(crate) const PERHAPS_RECORDED: &str =
    "Not recorded in time: Watchkeeper's store is slow. Look whether it took effect all the same before you press again.";
/// Told when a button's token says nothing.
pub(crate) const NO_BUTTON: &str = "Watchkeeper does not know this button. Use one on a current card.";
/// Told to whoever is not of this workspace, or is no person.
pub(crate) const NOT_A_MEMBER: &str = "Only full members of this workspace can ask Watchkeeper. Ask a colleague who is one.";

/// The rest of Watchkeeper, as an edge sees it.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Edge {
    /// Stores an act; `identity` is what the platform calls this very request, so that a redelivery is met as such. The body is not
    /// kept: it holds tokens by which anybody could answer in our name, and the act says everything else.
    ///
    /// # Errors
    /// A sentence for the person.
    pub(crate) async fn store(&self, platform: &'static str, identity: &str, act: Act) -> Result<(), &'static str> {
        let event = NewEvent::act(platform, identity, act);
        let delivery = Delivery { source: "chat".to_owned(), events: vec![event], raw: Bytes::new(), received_at: self.clock.now() };
        match tokio::time::timeout(STORE_WITHIN, self.inbox.accept(delivery)).await {
            Ok(Ok(accepted)) => {
                tracing::debug!(platform, event.id = ?accepted.seqs, "act stored");
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::warn!(platform, %error, "an act was not stored");
                Err(NOT_RECORDED)
            }
            Err(_) => {
                tracing::warn!(platform, "an act was not stored within {STORE_WITHIN:?}");
                Err(PERHAPS_RECORDED)
            }
        }
    }
}

/// What a pressed button asks for; `reason` is what the person wrote where one is asked.
pub(crate) fn verb(pressed: Pressed, reason: String) -> Verb {
    let (incident, approval, run) = (IncidentId(pressed.object), ApprovalId(pressed.object), RunId(pressed.object));
    match pressed.kind {
        ButtonKind::Acknowledge => Verb::Acknowledge { incident },
        ButtonKind::Unacknowledge => Verb::Unacknowledge { incident },
        ButtonKind::Resolve => Verb::Resolve { incident },
        ButtonKind::Reopen => Verb::Reopen { incident },
        ButtonKind::Approve => Verb::Approve { approval },
        ButtonKind::Deny => Verb::Deny { approval, reason },
        ButtonKind::Run => Verb::Run { incident: Some(incident), runbook: String::new(), params: serde_json::Map::new() },
        ButtonKind::Ran => Verb::Settle { run, how: Settlement::Ran, reason },
        ButtonKind::DidNotRun => Verb::Settle { run, how: Settlement::DidNotRun, reason },
        ButtonKind::Again => Verb::Settle { run, how: Settlement::Again, reason },
        ButtonKind::Abort => Verb::Settle { run, how: Settlement::Abort, reason },
    }
}

/// Whether an act is refused as long as nobody can say that the person is a full member.
pub(crate) fn is_grave(verb: &Verb) -> bool {
    matches!(verb.right(), Right::Approve | Right::Run | Right::Pause)
}

/// Counts a request that was turned away at the door.
pub(crate) fn count_rejected(platform: &'static str, reason: &'static str) {
    metrics::counter!("watchkeeper_events_rejected_total", "source" => platform, "reason" => reason).increment(1);
}
