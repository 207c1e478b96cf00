//! How an order ended: kept on the disk, signed, told as soon as NATS is there; and the agent's own audit file.

use std::sync::Arc;

use async_nats::jetstream;
use domain::action::ActionCatalogue;
use domain::order::{Ended, Order, Report, SERVER};
use domain::time::{Clock, SystemClock};
use serde_json::json;

use super::obey::{Agent, RECONNECT};
use super::{find_stream, ledger, put};

impl Agent {
    /// Keeps how an order ended, then tells it.
    pub(super) fn end(self: &Arc<Self>, order: &Order, ended: Ended) {
        let report = self.report(&order.jti, ended);
        match self.ledger.keep_report(&report) {
            // What nobody knows of may go on there: whoever comes next on its target finds it.
            Ok(()) if matches!(report.ended, Ended::Unknown(_)) => {}
            Ok(()) => self.library.forget(&order.jti),
            Err(error) => {
                tracing::error!(error = %format!("{error:#}"), execution = %order.jti, "a report cannot be kept; it is told all the same")
            }
        }
        self.send(report);
    }

    pub(super) fn report(&self, execution: &str, ended: Ended) -> Report {
        Report {
            iss: self.settings.name.clone(),
            aud: SERVER.to_owned(),
            jti: execution.to_owned(),
            iat: SystemClock.now().as_second(),
            ended,
        }
    }

    /// Puts a report on the stream, as soon as NATS is there.
    pub(super) fn send(self: &Arc<Self>, report: Report) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let token = match this.signer.sign(&report) {
                Ok(token) => token,
                Err(error) => return tracing::error!(%error, "a report cannot be signed"),
            };
            let id = format!("{}/report/{}", report.jti, SystemClock.now().as_second());
            loop {
                let sent = async {
                    let context = jetstream::new(this.link.client().await?);
                    find_stream(&context, &this.names).await?;
                    put(&context, this.names.report(&this.settings.name), id.clone(), token.clone()).await
                };
                match sent.await {
                    Ok(()) => return tracing::info!(execution = %report.jti, "reported"),
                    Err(error) => tracing::debug!(error = %format!("{error:#}"), "a report waits for NATS"),
                }
                tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = this.stop.cancelled() => return }
            }
        });
    }

    /// One line in the agent's own audit file; what cannot be written there is in the log.
    pub(super) fn audit(&self, decision: &str, reason: &str, order: Option<&Order>) {
        let row = json!({
            "at": SystemClock.now(),
            "decision": decision,
            "reason": reason,
            "execution": order.map(|order| &order.jti),
            "run": order.map(|order| order.run),
            "step": order.map(|order| &order.step),
            "uses": order.map(|order| &order.uses),
            "target": order.map(|order| &order.target.name),
            "plan_digest": order.map(|order| &order.plan_digest),
            "approvals": order.map(|order| &order.approvals),
            "fence": order.and_then(|order| order.fence).map(|fence| fence.to_string()),
        });
        tracing::info!(decision, reason, execution = order.map(|order| order.jti.as_str()), "order");
        if let Err(error) = ledger::append(&self.settings.data_dir.join("audit.jsonl"), &row) {
            tracing::error!(error = %format!("{error:#}"), %row, "an audit row could not be written");
        }
    }
}
