//! What an action on an agent may ask of its run: the server is far away, so it is the order's folder that answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::action::RunHost;
use domain::order::{Output, SERVER};
use domain::printed::Printed;
use domain::run::Execution;
use domain::time::{Clock, SystemClock};
use tokio_util::sync::CancellationToken;

use super::Agent;

/// One order's host.
pub(super) struct Host {
    agent: Arc<Agent>,
    execution: String,
    pub(super) cancelled: CancellationToken,
    /// The hails that were heeded.
    heeded: AtomicU64,
}

impl Host {
    pub(super) fn new(agent: &Arc<Agent>, execution: &str, cancelled: CancellationToken) -> Self {
        let heeded = AtomicU64::new(agent.hails.load(Ordering::Relaxed));
        Self { agent: Arc::clone(agent), execution: execution.to_owned(), cancelled, heeded }
    }

    async fn publish(&self, piece: &Printed) -> anyhow::Result<()> {
        let name = &self.agent.settings.name;
        let output = Output {
            iss: name.clone(),
            aud: SERVER.to_owned(),
            jti: self.execution.clone(),
            iat: SystemClock.now().as_second(),
            source: piece.source,
            offset: piece.offset,
            oldest: piece.oldest,
            text: STANDARD.encode(&piece.bytes),
        };
        let token = self.agent.signer.sign(&output)?;
        Ok(self.agent.link.client().await?.publish(self.agent.names.output(name), token.into()).await?)
    }
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
        self.agent.ledger.keep_intent(&self.execution, execution).map_err(|error| format!("{error:#}"))
    }

    async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    async fn printed(&self, piece: &Printed) -> bool {
        let sent = self.publish(piece).await;
        if let Err(error) = &sent {
            tracing::debug!(error = %format!("{error:#}"), "what is printed cannot be shown now");
        }
        sent.is_ok()
    }

    fn anew(&self) -> bool {
        let hails = self.agent.hails.load(Ordering::Relaxed);
        self.heeded.swap(hails, Ordering::Relaxed) != hails
    }
}
