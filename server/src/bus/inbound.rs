//! NATS JetStream in: messages become events, acknowledged after our own commit.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, AckKind};
use domain::canonical::ContentKey;
use domain::event::Delivery;
use domain::inbox::Inbox;
use domain::rules::RuleSet;
use domain::time::Clock;
use futures::StreamExt;
use jiff::Timestamp;
use store::Store;
use tokio_util::sync::CancellationToken;
use webhook_gateway::SourceTable;
use webhook_gateway::sources::generic::{GenericMap, map};

use super::gaps::{Gap, Mark};
use super::{BusState, Link, RECONNECT, about_ourselves};
use crate::config::{NatsConfig, Subscription};

mod consumer;

/// A message is offered this often before it is set aside.
const MOST_DELIVERIES: i64 = 5;
/// How long a message may be under way before it is offered again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How often the stream is asked whether it dropped something.
const LOOK: Duration = Duration::from_secs(5);

/// Takes messages of all subscriptions until told to stop. A server that is away is no failure: it is tried again.
pub(crate) struct Inbound {
    settings: NatsConfig,
    link: Link,
    store: Store,
    rules: Arc<ArcSwap<RuleSet>>,
    sources: Arc<ArcSwap<SourceTable>>,
    clock: Arc<dyn Clock>,
    state: BusState,
    stop: CancellationToken,
}

impl Inbound {
    pub(crate) fn new(
        settings: NatsConfig,
        link: Link,
        store: Store,
        rules: Arc<ArcSwap<RuleSet>>,
        sources: Arc<ArcSwap<SourceTable>>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        let state = link.state();
        Self { settings, link, store, rules, sources, clock, state, stop }
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
        let mut started = false;
        while !self.stop.is_cancelled() {
            self.state.set(source, Some("connecting".to_owned()));
            let ended = tokio::select! {
                ended = self.consume(source, subscription, &mut started) => ended,
                () = self.stop.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::warn!(source, error = %format!("{error:#}"), "NATS is away: trying again");
                self.state.set(source, Some(format!("{error:#}")));
            }
            tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = self.stop.cancelled() => return }
        }
    }

    /// Finds or makes the durable consumer, and takes messages until something breaks.
    async fn consume(&self, source: &str, subscription: &Subscription, started: &mut bool) -> anyhow::Result<()> {
        let context = jetstream::new(self.link.client().await?);
        let stream = context.get_stream(&subscription.stream).await.with_context(|| {
            format!("stream {:?} is not there: create it, e.g. `nats stream add {}`", subscription.stream, subscription.stream)
        })?;
        let mut looked = self.consumer(source, subscription, stream, *started).await?;
        *started = true;
        let mut messages = looked.consumer.stream().heartbeat(Duration::from_secs(5)).expires(Duration::from_secs(20)).messages().await?;
        self.state.set(source, looked.refused.clone());
        tracing::info!(source, stream = %subscription.stream, "taking messages from NATS");
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // A missed heartbeat or a consumer that vanished ends the stream of messages: everything is set up afresh.
                message = messages.next() => match message {
                    Some(message) => self.take(source, subscription, &looked, &message?).await?,
                    None => bail!("the server ended the subscription"),
                },
                _ = every.tick() => self.look(source, &mut looked).await?,
            }
        }
    }

    /// Asks the stream whether it dropped something before it was read; that is an incident about ourselves.
    async fn look(&self, source: &str, looked: &mut Looked) -> anyhow::Result<()> {
        let stream = looked.stream.info().await.context("the stream does not answer")?.clone();
        let consumer = looked.consumer.info().await.context("the consumer does not answer")?;
        metrics::gauge!("watchkeeper_nats_pending", "source" => source.to_owned())
            .set((consumer.num_pending + consumer.num_ack_pending as u64) as f64);
        let (mark, gap) = Mark::advance(looked.mark.as_ref(), &stream, consumer);
        if let Some(gap) = gap {
            self.tell_gap(source, &mark, &gap).await?;
        }
        if looked.mark.as_ref() != Some(&mark) {
            mark.keep(&self.store, source).await?;
            looked.mark = Some(mark);
        }
        Ok(())
    }

    async fn tell_gap(&self, source: &str, mark: &Mark, gap: &Gap) -> anyhow::Result<()> {
        let lost = if let Gap::Dropped(first, last) = gap { last - first + 1 } else { 1 };
        metrics::counter!("watchkeeper_nats_lost_messages_total", "source" => source.to_owned()).increment(lost);
        tracing::warn!(source, %gap, "messages were lost before they were read");
        let fingerprint = format!("gap/{source}/{}/{}", mark.made, mark.read);
        let summary = format!("Messages of the source {source} were lost: {gap}.");
        self.store.accept(about_ourselves("MessagesLost", fingerprint, source, summary, self.clock.now())).await?;
        Ok(())
    }

    /// Stores one message's events, then acknowledges; a lost acknowledgement brings it again, and it meets the same keys.
    async fn take(&self, source: &str, subscription: &Subscription, looked: &Looked, message: &jetstream::Message) -> anyhow::Result<()> {
        let info = message.info().map_err(|error| anyhow::anyhow!("a message without JetStream's reply subject: {error}"))?;
        if looked.mark.as_ref().is_some_and(|mark| mark.has_read(&message.subject, info.stream_sequence)) {
            return message.ack().await.map_err(|error| anyhow::anyhow!("{error}"));
        }
        let (made, now) = (Mark::made(looked.stream.cached_info()), self.clock.now());
        let mapped = serde_json::from_slice::<serde_json::Value>(&message.payload)
            .map_err(|error| error.to_string())
            .and_then(|body| map(&self.map(source, subscription), body, &headers(message), now).map_err(|error| error.to_string()));
        let sightings = match mapped {
            Ok(sightings) => sightings,
            Err(error) if info.delivered < MOST_DELIVERIES => {
                metrics::counter!("watchkeeper_events_rejected_total", "source" => source.to_owned(), "reason" => "unmapped").increment(1);
                tracing::warn!(source, sequence = info.stream_sequence, error, "a message cannot be read: it is offered again");
                let wait = Duration::from_secs(1 << info.delivered.clamp(0, 6));
                return message.ack_with(AckKind::Nak(Some(wait))).await.map_err(|error| anyhow::anyhow!("{error}"));
            }
            Err(error) => return self.set_aside(source, message, &format!("{made}/{}", info.stream_sequence), &error).await,
        };
        let rules = self.rules.load();
        let delivery_id = identity(message, &format!("{}/{made}/{}", info.stream, info.stream_sequence));
        let mut events = webhook_gateway::sources::events(source, rules.sources.get(source), sightings, now, &delivery_id);
        for (index, event) in events.iter_mut().enumerate() {
            event.key = ContentKey::of(&[b"nats", source.as_bytes(), delivery_id.as_bytes(), &index.to_be_bytes()]);
        }
        let count = events.len() as u64;
        let delivery = Delivery { source: source.to_owned(), events, raw: message.payload.clone(), received_at: now };
        self.store.accept(delivery).await?;
        metrics::counter!("watchkeeper_events_received_total", "source" => source.to_owned()).increment(count);
        message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// How the source's messages are read: as the configuration that is in force says, or as it last did if the source is not there any more.
    fn map(&self, source: &str, subscription: &Subscription) -> Arc<GenericMap> {
        let now = self.sources.load().get(source).and_then(|settings| settings.map.clone());
        now.unwrap_or_else(|| Arc::clone(&subscription.map))
    }

    /// A message that nobody can read: kept, told as an incident about ourselves, and not offered again.
    async fn set_aside(&self, source: &str, message: &jetstream::Message, place: &str, error: &str) -> anyhow::Result<()> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        tx.keep_sample(source, now, &message.payload, error).await?;
        tx.commit().await?;
        self.store.accept(aside(source, &message.subject, place, error, now)).await?;
        message.ack_with(AckKind::Term).await.map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// The word about a message that was set aside, which comes from `place`: when the stream was made, and the number there. If the server dies before the
/// stream knows of it, the message comes again, and meets the same key.
fn aside(source: &str, subject: &str, place: &str, error: &str, now: Timestamp) -> Delivery {
    let number = place.rsplit('/').next().unwrap_or(place);
    let summary = format!("Message {number} on {subject} was set aside after {MOST_DELIVERIES} attempts: {error}");
    let mut told = about_ourselves("MessageSetAside", format!("poison/{source}"), source, summary, now);
    for event in &mut told.events {
        event.key = ContentKey::of(&[b"poison", source.as_bytes(), place.as_bytes()]);
    }
    told
}

/// What a mapping sees beside the body: the message's subject.
fn headers(message: &jetstream::Message) -> Vec<(String, String)> {
    vec![("subject".to_owned(), message.subject.to_string())]
}

/// What makes two messages the same: the id that their sender gave them, for as long as we remember and not only for the stream's own window; without
/// one, their place in the stream. And what they say: a stream that fell back gives the same place twice.
fn identity(message: &jetstream::Message, place: &str) -> String {
    let given = message.headers.as_ref().and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID));
    let said = hex::encode(ContentKey::of(&[message.subject.as_bytes(), &message.payload]).0);
    given.map_or_else(|| format!("{place}/{said}"), |id| format!("id/{}/{said}", id.as_str()))
}

/// The stream and consumer that a subscription reads, and how far.
struct Looked {
    stream: Stream,
    consumer: PullConsumer,
    mark: Option<Mark>,
    /// Why its subjects are not those of the configuration.
    refused: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_set_aside_is_told_of_once_whenever_it_comes_again() {
        let key = |place, at| aside("tasks", "task.created", place, "no JSON", Timestamp::from_second(at).unwrap()).events.remove(0).key;
        assert_eq!(key("7/1", 100), key("7/1", 131));
        assert_ne!(key("7/1", 100), key("7/2", 100));
        assert_ne!(key("7/1", 100), key("8/1", 100));
    }
}
