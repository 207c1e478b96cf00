//! What other programs are told of: the turns in the lives of incidents, runs and approvals, one event each.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::approval::{Approval, ApprovalState};
use crate::canonical::ContentKey;
use crate::id::uuid_at;
use crate::incident::{Incident, IncidentState};
use crate::run::Run;

/// Events wait in so many lines; within one they go out in order.
pub const LANES: u8 = 16;
/// Version of what `data` looks like. A field is added without a new one; whatever else changes takes one.
pub const VERSION: u32 = 1;

/// One turn in a life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// Its own id: who hears it twice knows it by this.
    pub id: Uuid,
    /// `incident.opened`, `run.succeeded`, `approval.requested`.
    pub kind: String,
    /// What it is about: `incident/142`, `run/019c..`, `approval/019c..`.
    pub subject: String,
    /// Events with the same one go out in the order in which they happened: the incident's id, or that of a run without one.
    pub partition: String,
    /// When it happened.
    pub at: Timestamp,
    /// What it looked like then. Text in it is untrusted.
    pub data: Value,
}

impl Lifecycle {
    /// The line that it waits in.
    pub fn lane(&self) -> u8 {
        ContentKey::of(&[self.partition.as_bytes()]).0[0] % LANES
    }
}

/// Carries events to whoever listens. `Ok` means that the other side keeps it; the same event may come again, with the same id.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Publishes one event.
    ///
    /// # Errors
    /// Says why it could not be delivered: it will be tried again.
    async fn publish(&self, event: &Lifecycle) -> Result<(), String>;
}

/// What to tell of an incident whose state was `before` (none: it is new). A change within a state is not told.
pub fn of_incident(incident: &Incident, before: Option<&str>, at: Timestamp) -> Option<Lifecycle> {
    let now = incident.state.as_str();
    let word = match (before, incident.state) {
        (Some(before), _) if before == now => return None,
        (None, IncidentState::Open) => "opened",
        (Some("acknowledged"), IncidentState::Open) => "unacknowledged",
        (Some(_), IncidentState::Open) => "reopened",
        (Some("resolved" | "closed"), IncidentState::Acknowledged | IncidentState::Mitigated) => "reopened",
        _ => now,
    };
    let data = json!({
        "version": VERSION,
        "incident": incident.id,
        "number": incident.number,
        "state": incident.state,
        "previous": before,
        "severity": incident.severity_name,
        "title": incident.title,
        "labels": incident.labels,
        "source": incident.source,
        "route": incident.route,
        "opened_at": incident.opened_at,
        "acknowledged_by": incident.acked.as_ref().map(|(_, who)| who),
        "resolved_by": incident.resolved.as_ref().and_then(|(_, who)| who.as_ref()),
        "reopened": incident.reopened,
        "alerts_total": incident.alerts_total,
        "alerts_active": incident.alerts_active,
    });
    Some(event(format!("incident.{word}"), format!("incident/{}", incident.number), incident.id.to_string(), at, data))
}

/// What to tell of a run whose state was `before`.
pub fn of_run(run: &Run, before: Option<&str>, at: Timestamp) -> Option<Lifecycle> {
    let now = run.state.as_str();
    if before == Some(now) {
        return None;
    }
    let data = json!({
        "version": VERSION,
        "run": run.id,
        "incident": run.incident,
        "runbook": run.runbook,
        "state": run.state,
        "previous": before,
        "reason": run.reason,
        "requester": run.requester,
        "targets": run.plan.targets(),
        "plan_digest": run.plan_digest,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    });
    Some(event(format!("run.{now}"), format!("run/{}", run.id), partition(run.incident, run.id), at, data))
}

/// What to tell of a request for approval whose state was `before`.
pub fn of_approval(approval: &Approval, before: Option<&str>, at: Timestamp) -> Option<Lifecycle> {
    let now = approval.state.as_str();
    if before == Some(now) {
        return None;
    }
    let word = if approval.state == ApprovalState::Pending { "requested" } else { now };
    let votes: Vec<Value> = approval
        .votes
        .iter()
        .map(|vote| json!({ "who": vote.who, "approve": vote.approve, "reason": vote.reason, "at": vote.at }))
        .collect();
    let data = json!({
        "version": VERSION,
        "approval": approval.id,
        "run": approval.run,
        "incident": approval.incident,
        "state": approval.state,
        "previous": before,
        "plan_digest": approval.plan_digest,
        "requester": approval.requester,
        "roles": approval.policy.roles,
        "quorum": approval.policy.quorum,
        "votes": votes,
        "created_at": approval.created_at,
        "expires_at": approval.expires_at,
    });
    Some(event(format!("approval.{word}"), format!("approval/{}", approval.id), partition(approval.incident, approval.run), at, data))
}

fn partition(incident: Option<crate::id::IncidentId>, run: crate::id::RunId) -> String {
    incident.map_or_else(|| run.to_string(), |id| id.to_string())
}

fn event(kind: String, subject: String, partition: String, at: Timestamp, data: Value) -> Lifecycle {
    Lifecycle { id: uuid_at(at), kind, subject, partition, at, data }
}
