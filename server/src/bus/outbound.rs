//! Lifecycle events out: CloudEvents 1.0 in structured JSON on a JetStream stream, dropped by it when they come twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::header::HeaderMap;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context, ErrorCode, stream};
use async_trait::async_trait;
use domain::lifecycle::{Bus, Lifecycle};
use serde_json::{Value, json};

use super::{BusState, Link};
use crate::config::Publish;

/// What is told of, and so the subjects of the stream. Requests have subjects of their own below the same prefix and belong to no stream.
const KINDS: [&str; 3] = ["incident", "run", "approval"];
/// How long the stream knows an event by its id. An event that is sent again later than this, by a server that was away between sending it and
/// noting that, comes twice: consumers know it by `id`.
const WINDOW: Duration = Duration::from_mins(30);
/// How long a stream of our making keeps events.
const KEPT: Duration = Duration::from_hours(24 * 30);
/// `publish` in [`BusState`].
const PART: &str = "publish";

/// Publishes on a stream, which it makes if it is not there.
pub(crate) struct Outbound {
    settings: Publish,
    link: Link,
    state: BusState,
    /// Who we are: `source` of every event.
    source: String,
    /// Whether the stream was seen.
    seen: AtomicBool,
}

impl Outbound {
    pub(crate) fn new(settings: Publish, link: Link, source: String) -> Self {
        Self { settings, state: link.state(), link, source, seen: AtomicBool::new(false) }
    }

    async fn send(&self, event: &Lifecycle) -> anyhow::Result<()> {
        let context = jetstream::new(self.link.client().await?);
        if !self.seen.load(Ordering::Relaxed) {
            self.check_stream(&context).await?;
            self.seen.store(true, Ordering::Relaxed);
        }
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", "application/cloudevents+json; charset=utf-8");
        let payload = serde_json::to_vec(&self.envelope(event))?;
        let message = PublishMessage::build()
            .headers(headers)
            .payload(payload.into())
            .message_id(event.id.to_string())
            .expected_stream(&self.settings.stream);
        let subject = format!("{}.{}", self.settings.prefix, event.kind);
        context.send_publish(subject, message).await?.await.context("the stream did not take it")?;
        Ok(())
    }

    /// One event as CloudEvents 1.0 writes it (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>), with the
    /// extension `partitionkey`.
    fn envelope(&self, event: &Lifecycle) -> Value {
        json!({
            "specversion": "1.0",
            "id": event.id,
            "source": self.source,
            "type": format!("watchkeeper.{}.v{}", event.kind, domain::lifecycle::VERSION),
            "subject": event.subject,
            "time": event.at,
            "partitionkey": event.partition,
            "datacontenttype": "application/json",
            "data": event.data,
        })
    }

    async fn check_stream(&self, context: &Context) -> anyhow::Result<()> {
        let name = &self.settings.stream;
        let config = stream::Config {
            name: name.clone(),
            description: Some("Lifecycle events of Watchkeeper".to_owned()),
            subjects: subjects(&self.settings.prefix),
            num_replicas: self.settings.replicas,
            duplicate_window: WINDOW,
            max_age: KEPT,
            ..stream::Config::default()
        };
        let found = match context.get_stream(name).await {
            Ok(stream) => stream,
            Err(error) if is_absent(&error.kind()) => {
                tracing::info!(stream = %name, "the stream for lifecycle events is made");
                context.create_stream(config).await.with_context(|| format!("the stream {name} cannot be made"))?
            }
            Err(error) => return Err(error.into()),
        };
        check_subjects(&found.cached_info().config, &self.settings.prefix)
    }
}

/// The subjects of lifecycle events.
fn subjects(prefix: &str) -> Vec<String> {
    KINDS.iter().map(|kind| format!("{prefix}.{kind}.>")).collect()
}

/// Whether a stream can take the lifecycle events.
///
/// # Errors
/// Says what it should take.
pub(crate) fn check_subjects(stream: &stream::Config, prefix: &str) -> anyhow::Result<()> {
    let (held, whole) = (&stream.subjects, format!("{prefix}.>"));
    if held.contains(&whole) || held.contains(&">".to_owned()) {
        let wanted = subjects(prefix).join(", ");
        bail!("the stream {} takes {whole}, so it would answer requests for runs too: let it take {wanted}", stream.name);
    }
    Ok(())
}

/// Whether a stream is not there, as opposed to not to be asked for.
pub(super) fn is_absent(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

#[async_trait]
impl Bus for Outbound {
    async fn publish(&self, event: &Lifecycle) -> Result<(), String> {
        let sent = self.send(event).await.map_err(|error| format!("{error:#}"));
        if sent.is_err() {
            self.seen.store(false, Ordering::Relaxed);
        }
        self.state.set(PART, sent.clone().err());
        sent
    }
}
