//! The kill switch: stop all automation, and let it go on.

use domain::act::{ActOutcome, PAUSED_FLAG};
use domain::audit::AuditDecision;
use domain::permission::Granted;
use domain::text::clean_line;
use serde_json::json;

use crate::batch::Batch;

/// Stops or restarts every run that has not begun its next step.
pub(super) async fn pause(batch: &mut Batch<'_>, granted: &Granted, paused: bool, reason: &str) -> Result<ActOutcome, store::Error> {
    let who = granted.principal().name.clone();
    let reason = clean_line(reason, 200);
    let reason = if reason.is_empty() { format!("by {who}") } else { format!("{reason} (by {who})") };
    batch.set_flag(PAUSED_FLAG, json!({ "paused": paused, "reason": reason, "at": batch.now })).await?;
    metrics::gauge!("watchkeeper_automation_paused").set(if paused { 1.0 } else { 0.0 });
    let code = if paused { "paused" } else { "resumed" };
    batch.audit(&format!("principal:{who}"), "pause", "automation".to_owned(), AuditDecision::Allowed, code, json!({ "reason": reason }));
    let text = if paused { "Automation is paused: no run starts until it is resumed." } else { "Automation goes on." };
    Ok(ActOutcome::done(code, text))
}
