//! What an action on an agent may ask of its run: the server is far away, so it is the order's folder that answers.

use std::sync::Arc;

use async_trait::async_trait;
use domain::action::RunHost;
use domain::run::Execution;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;

/// One order's host.
pub(super) struct Host {
    pub(super) ledger: Arc<Ledger>,
    pub(super) execution: String,
    pub(super) cancelled: CancellationToken,
}

#[async_trait]
impl RunHost for Host {
    async fn notify(&self, _channel: &str, _text: &str) -> Result<(), String> {
        Err("an agent has no channels: leave out the target, so that the server posts it".to_owned())
    }

    async fn intend(&self, execution: &Execution) -> Result<(), String> {
        if self.cancelled.is_cancelled() {
            return Err("the run was stopped before it began".to_owned());
        }
        self.ledger.keep_intent(&self.execution, execution).map_err(|error| format!("{error:#}"))
    }

    async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }
}
