//! Takes the agents' reports from the stream into the store, where the waiting steps find them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, AckKind};
use domain::audit::{AuditDecision, NewAudit};
use domain::id::RunId;
use domain::time::{Clock, SystemClock};
use futures::StreamExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Remote, agent_in, find_stream, remote};
use crate::bus::BusState;

/// Waits between two tries.
const RECONNECT: Duration = Duration::from_secs(2);
/// The durable consumer that all servers share.
const DURABLE: &str = "watchkeeper-server";
/// What refusals of strangers are counted under.
const SOURCE: &str = "agents";
/// An execution's name begins with the id of its run, in so many characters.
const RUN_ID: usize = 36;

/// Takes reports until told to stop.
pub(crate) struct Desk {
    remote: Arc<Remote>,
    state: BusState,
    stop: CancellationToken,
}

impl Desk {
    pub(crate) fn new(remote: Arc<Remote>, stop: CancellationToken) -> Self {
        let state = remote.link().state();
        Self { remote, state, stop }
    }

    /// Runs until stopped.
    pub(crate) async fn run(self) {
        while !self.stop.is_cancelled() {
            let ended = tokio::select! {
                ended = self.take() => ended,
                () = self.stop.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::warn!(error = %format!("{error:#}"), "agents' reports wait on NATS");
                self.state.set("reports", Some(format!("{error:#}")));
            }
            tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = self.stop.cancelled() => return }
        }
    }

    async fn take(&self) -> anyhow::Result<()> {
        let client = self.remote.link().client().await?;
        let stream = find_stream(&jetstream::new(client), self.remote.names()).await?;
        let config = pull::Config {
            durable_name: Some(DURABLE.to_owned()),
            filter_subject: self.remote.names().report("*"),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(10),
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(DURABLE, config).await?;
        let mut reports = consumer.stream().heartbeat(Duration::from_secs(5)).expires(Duration::from_secs(20)).messages().await?;
        self.state.set("reports", None);
        while let Some(report) = reports.next().await {
            self.keep(&report?).await?;
        }
        anyhow::bail!("the server ended the subscription")
    }

    async fn keep(&self, message: &jetstream::Message) -> anyhow::Result<()> {
        let agent = agent_in(&message.subject).unwrap_or_default();
        let Some(report) = self.remote.believe(agent, &message.payload) else {
            tracing::warn!(agent, "a report is not signed by its agent: it counts for nothing");
            return self.refuse(message, agent, "forged", json!({ "bytes": message.payload.len() })).await;
        };
        if !self.is_its_own(agent, &report.jti).await? {
            tracing::warn!(agent, execution = %report.jti, "an agent reports what it was not told to do: it counts for nothing");
            return self.refuse(message, agent, "not_its_order", json!({ "execution": report.jti })).await;
        }
        let first = self.remote.store().keep_agent_report(agent, &report).await?;
        tracing::info!(agent, execution = %report.jti, first, "an agent reported");
        message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Whether this agent was given the order. One that does another's work, or was taken over, must not say that it is done.
    async fn is_its_own(&self, agent: &str, execution: &str) -> anyhow::Result<bool> {
        let Some(run) = execution.get(..RUN_ID).and_then(|id| id.parse::<RunId>().ok()) else { return Ok(false) };
        let attempts = self.remote.store().read().await?.attempts(run).await?;
        let mut begun = attempts.iter().filter_map(|attempt| attempt.place.as_ref()?.execution.as_ref());
        Ok(match begun.find(|begun| begun.id == execution) {
            Some(begun) => begun.boot == remote::place(agent),
            // A look leaves no place, and has a name that only its agent knows.
            None => remote::is_look(execution),
        })
    }

    /// A row for whoever is known; strangers, who may have any name and any number of them, are counted.
    async fn refuse(&self, message: &jetstream::Message, agent: &str, reason: &str, detail: serde_json::Value) -> anyhow::Result<()> {
        let row = NewAudit {
            at: SystemClock.now(),
            actor: format!("agent:{agent}"),
            action: "agent.report".to_owned(),
            object: "report".to_owned(),
            decision: AuditDecision::Refused,
            reason: reason.to_owned(),
            detail,
        };
        let mut tx = self.remote.store().begin().await?;
        if self.remote.knows(agent) {
            tx.audit(&row).await?;
        } else {
            tx.count_refusal(SOURCE, reason, row.at, 1).await?;
        }
        tx.commit().await?;
        message.ack_with(AckKind::Term).await.map_err(|error| anyhow::anyhow!("{error}"))
    }
}
