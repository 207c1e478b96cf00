//! Takes the agents' reports from the stream into the store, where the waiting steps find them; and listens for signs of life.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, AckKind};
use domain::audit::{AuditDecision, NewAudit};
use domain::time::{Clock, SystemClock};
use futures::StreamExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Remote, find_stream};
use crate::bus::BusState;

/// Waits between two tries.
const RECONNECT: Duration = Duration::from_secs(2);
/// How often it is looked who fell silent.
const LOOK: Duration = Duration::from_secs(5);
/// The durable consumer that all servers share.
const DURABLE: &str = "watchkeeper-server";

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
                self.state.set("agents", Some(format!("{error:#}")));
            }
            tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = self.stop.cancelled() => return }
        }
    }

    async fn take(&self) -> anyhow::Result<()> {
        let client = self.remote.link().client().await?;
        let mut signs = client.subscribe(self.remote.names().hello("*")).await?;
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
        self.state.set("agents", None);
        let mut every = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                report = reports.next() => match report {
                    Some(report) => self.keep(&report?).await?,
                    None => anyhow::bail!("the server ended the subscription"),
                },
                Some(sign) = signs.next() => {
                    if let Some(agent) = agent_in(&sign.subject) {
                        self.remote.hear(agent);
                    }
                }
                _ = every.tick() => {
                    let silent = self.remote.silent();
                    metrics::gauge!("watchkeeper_agents_silent").set(silent.len() as f64);
                    let problem = (!silent.is_empty()).then(|| format!("{} not heard of", silent.into_iter().collect::<Vec<_>>().join(", ")));
                    self.state.set("agents", problem);
                }
            }
        }
    }

    async fn keep(&self, message: &jetstream::Message) -> anyhow::Result<()> {
        let agent = agent_in(&message.subject).unwrap_or_default();
        let Some(report) = self.remote.believe(agent, &message.payload) else {
            tracing::warn!(agent, "a report is not signed by its agent: it counts for nothing");
            let row = NewAudit {
                at: SystemClock.now(),
                actor: format!("agent:{agent}"),
                action: "agent.report".to_owned(),
                object: "report".to_owned(),
                decision: AuditDecision::Refused,
                reason: "forged".to_owned(),
                detail: json!({ "bytes": message.payload.len() }),
            };
            let mut tx = self.remote.store().begin().await?;
            tx.audit(&row).await?;
            tx.commit().await?;
            return message.ack_with(AckKind::Term).await.map_err(|error| anyhow::anyhow!("{error}"));
        };
        self.remote.hear(agent);
        let first = self.remote.store().keep_agent_report(agent, &report).await?;
        tracing::info!(agent, execution = %report.jti, first, "an agent reported");
        message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// `PREFIX.agent.NAME.what`: the name.
fn agent_in(subject: &str) -> Option<&str> {
    subject.rsplit('.').nth(1)
}
