//! NATS JetStream in: messages become events, acknowledged after our own commit. The database is the truth.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;
use domain::event::{Delivery, NewEvent, Sighting, Status};
use domain::inbox::Inbox;
use domain::rules::RuleSet;
use domain::time::Clock;
use futures::StreamExt;
use store::Store;
use tokio_util::sync::CancellationToken;
use webhook_gateway::sources::generic::map;

use crate::config::{NatsConfig, Subscription};

/// A message is offered this often before it is set aside.
const MOST_DELIVERIES: i64 = 5;
/// How long a message may be under way before it is offered again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Waits between two tries to reach the server or its stream.
const RECONNECT: Duration = Duration::from_secs(2);
/// The oldest server whose answers async-nats reads.
const OLDEST: (u64, u64) = (2, 10);

/// What is wrong with the bus; `None` is nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct BusState(Arc<Mutex<BTreeMap<String, String>>>);

impl BusState {
    /// What is wrong now.
    pub(crate) fn get(&self) -> Option<String> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = problems.iter().map(|(source, problem)| format!("{source}: {problem}")).collect::<Vec<_>>().join("; ");
        (!text.is_empty()).then_some(text)
    }

    fn set(&self, source: &str, problem: Option<String>) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(source.to_owned(), problem),
            None => problems.remove(source),
        };
    }
}

/// Takes messages of all subscriptions until told to stop. A server that is away is no failure: it is tried again.
pub(crate) struct Bus {
    settings: NatsConfig,
    store: Store,
    rules: Arc<ArcSwap<RuleSet>>,
    clock: Arc<dyn Clock>,
    state: BusState,
    stop: CancellationToken,
}

impl Bus {
    pub(crate) fn new(
        settings: NatsConfig,
        store: Store,
        rules: Arc<ArcSwap<RuleSet>>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        Self { settings, store, rules, clock, state: BusState::default(), stop }
    }

    pub(crate) fn state(&self) -> BusState {
        self.state.clone()
    }

    /// Runs until stopped.
    pub(crate) async fn run(self) {
        let this = Arc::new(self);
        let mut tasks = tokio::task::JoinSet::new();
        for (source, subscription) in this.settings.subscriptions.clone() {
            let this = Arc::clone(&this);
            tasks.spawn(async move { this.subscribe(&source, &subscription).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn subscribe(&self, source: &str, subscription: &Subscription) {
        while !self.stop.is_cancelled() {
            self.state.set(source, Some("connecting".to_owned()));
            let ended = tokio::select! {
                ended = self.consume(source, subscription) => ended,
                () = self.stop.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::warn!(source, error = %format!("{error:#}"), "NATS is away: trying again");
                self.state.set(source, Some(format!("{error:#}")));
            }
            tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = self.stop.cancelled() => return }
        }
    }

    /// Connects, finds or makes the durable consumer, and takes messages until something breaks.
    async fn consume(&self, source: &str, subscription: &Subscription) -> anyhow::Result<()> {
        let client = self.connect().await?;
        check_version(&client.server_info().version)?;
        let context = jetstream::new(client);
        let stream = context.get_stream(&subscription.stream).await.with_context(|| {
            format!("stream {:?} is not there: create it, e.g. `nats stream add {}`", subscription.stream, subscription.stream)
        })?;
        let config = pull::Config {
            durable_name: Some(subscription.durable.clone()),
            filter_subjects: subscription.subjects.clone(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: 1000,
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(&subscription.durable, config).await.context("the consumer cannot be made")?;
        let mut messages = consumer.stream().heartbeat(Duration::from_secs(5)).expires(Duration::from_secs(20)).messages().await?;
        self.state.set(source, None);
        tracing::info!(source, stream = %subscription.stream, "taking messages from NATS");
        while let Some(message) = messages.next().await {
            // A missed heartbeat or a consumer that vanished ends the stream of messages: everything is set up afresh.
            self.take(source, subscription, &message?).await?;
        }
        bail!("the server ended the subscription")
    }

    async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        let mut options = async_nats::ConnectOptions::new().name("watchkeeper").connection_timeout(Duration::from_secs(3));
        if let Some(file) = &self.settings.credentials {
            options = options.credentials_file(file).await.with_context(|| format!("cannot read {}", file.display()))?;
        }
        options.connect(self.settings.urls.clone()).await.context("cannot connect")
    }

    /// Stores one message's events, then acknowledges; a lost acknowledgement brings it again, and it meets the same keys.
    async fn take(&self, source: &str, subscription: &Subscription, message: &jetstream::Message) -> anyhow::Result<()> {
        let info = message.info().map_err(|error| anyhow::anyhow!("a message without JetStream's reply subject: {error}"))?;
        let now = self.clock.now();
        let mapped = serde_json::from_slice::<serde_json::Value>(&message.payload)
            .map_err(|error| error.to_string())
            .and_then(|body| map(&subscription.map, body, &headers(message), now).map_err(|error| error.to_string()));
        let sightings = match mapped {
            Ok(sightings) => sightings,
            Err(error) if info.delivered < MOST_DELIVERIES => {
                metrics::counter!("watchkeeper_events_rejected_total", "source" => source.to_owned(), "reason" => "unmapped").increment(1);
                tracing::warn!(source, sequence = info.stream_sequence, error, "a message cannot be read: it is offered again");
                let wait = Duration::from_secs(1 << info.delivered.clamp(0, 6));
                return message.ack_with(AckKind::Nak(Some(wait))).await.map_err(|error| anyhow::anyhow!("{error}"));
            }
            Err(error) => return self.set_aside(source, message, info.stream_sequence, &error).await,
        };
        let rules = self.rules.load();
        let delivery_id = format!("{}/{}", info.stream, info.stream_sequence);
        let mut events = webhook_gateway::sources::events(source, rules.sources.get(source), sightings, now, &delivery_id);
        for (index, event) in events.iter_mut().enumerate() {
            event.key = domain::canonical::ContentKey::of(&[b"nats", delivery_id.as_bytes(), &index.to_be_bytes()]);
        }
        let count = events.len() as u64;
        let delivery = Delivery { source: source.to_owned(), events, raw: message.payload.clone(), received_at: now };
        let repeats = self.store.accept(delivery).await?.repeats;
        let labels = [("source", source.to_owned())];
        metrics::counter!("watchkeeper_events_received_total", &labels).increment(count);
        metrics::counter!("watchkeeper_events_deduplicated_total", &labels).increment(u64::from(repeats));
        message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// A message that nobody can read: kept, told as an incident about ourselves, and not offered again.
    async fn set_aside(&self, source: &str, message: &jetstream::Message, sequence: u64, error: &str) -> anyhow::Result<()> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        tx.keep_sample(source, now, &message.payload, error).await?;
        tx.commit().await?;
        let sighting = Sighting {
            fingerprint: format!("poison/{source}"),
            status: Status::Firing,
            labels: [("alertname", "MessageSetAside"), ("severity", "high"), ("source", source)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            annotations: [(
                "summary".to_owned(),
                format!("Message {sequence} on {} was set aside after {MOST_DELIVERIES} attempts: {error}", message.subject),
            )]
            .into(),
            starts_at: now,
            ends_at: None,
            generator_url: None,
            external_url: None,
            cut: 0,
        };
        let events = vec![NewEvent::sighting("watchkeeper", sighting)];
        self.store.accept(Delivery { source: "watchkeeper".to_owned(), events, raw: Bytes::new(), received_at: now }).await?;
        message.ack_with(AckKind::Term).await.map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// What a mapping sees beside the body: the message's subject.
fn headers(message: &jetstream::Message) -> Vec<(String, String)> {
    vec![("subject".to_owned(), message.subject.to_string())]
}

fn check_version(version: &str) -> anyhow::Result<()> {
    let mut parts = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < OLDEST {
        bail!("NATS server {version} is too old: it takes {}.{} or later", OLDEST.0, OLDEST.1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_with_a_clear_word() {
        assert!(check_version("2.10.0").is_ok());
        assert!(check_version("2.15.1").is_ok());
        let error = check_version("2.9.10").unwrap_err().to_string();
        assert_eq!(error, "NATS server 2.9.10 is too old: it takes 2.10 or later");
    }
}
