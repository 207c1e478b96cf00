//! What an action on an agent may ask of its run: the server is far away, so it is the order's folder that answers.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use domain::action::RunHost;
use domain::run::Execution;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;

/// Texts that a report may bring along.
const MOST_EVIDENCE: usize = 32;

/// One order's host.
pub(super) struct Host {
    pub(super) ledger: Arc<Ledger>,
    pub(super) execution: String,
    pub(super) cancelled: CancellationToken,
    pub(super) evidence: Mutex<Vec<(String, String)>>,
}

impl Host {
    /// What was put aside for the timeline.
    pub(super) fn evidence(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.evidence.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl RunHost for Host {
    async fn notify(&self, _channel: &str, _text: &str) -> Result<(), String> {
        Err("an agent has no channels: leave out the target, so that the server posts it".to_owned())
    }

    async fn evidence(&self, title: &str, text: &str) -> Result<(), String> {
        let mut evidence = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        if evidence.len() < MOST_EVIDENCE {
            evidence.push((title.to_owned(), text.to_owned()));
        }
        Ok(())
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
