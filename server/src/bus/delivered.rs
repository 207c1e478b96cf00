//! `ingest.via: jetstream`: a delivery is kept on a stream before it is answered, and taken into the store from there.
//!
//! A source's deliveries lie on one of a few subjects, each with one durable consumer. One server at a time takes them, many at once, so that
//! they share commits; they reach the store in the order in which they were answered. What was handed out and not acknowledged would come again
//! behind what is newer: then the consumer is made anew, and begins with the oldest that is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, RetentionPolicy};
use async_nats::jetstream::{self, AckKind, Context};
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use domain::act::ActOutcome;
use domain::canonical::ContentKey;
use domain::event::{Delivery, EventClass, NewEvent, Payload};
use domain::inbox::{Accepted, Inbox, InboxError};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::Store;
use tokio_util::sync::CancellationToken;

use super::outbound::is_absent;
use super::{BusState, Link, RECONNECT};
use crate::alone::alone;
use crate::config::Ingest;
use room::{Doubt, Room};

mod lost;
mod room;

/// Subjects that sources are spread over.
const LANES: u8 = 8;
/// Messages of a lane that are under way at once.
const MOST: usize = 256;
/// Their bytes, unless one message alone may be larger.
const BYTES: usize = 4 * 1024 * 1024;
/// After how long a message is handed out again: longer than any commit takes. Whoever begins anew does not wait for it.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// The lease of whoever takes.
const LEASE: &str = "ingest";
/// Room that a message leaves for its headers, in bytes.
const HEADERS: usize = 4096;

/// The inbox of the HTTP sources: what it accepts is on the stream.
pub(crate) struct Intake {
    settings: Ingest,
    link: Link,
    store: Store,
    seen: AtomicBool,
    room: Room,
}

impl Intake {
    pub(crate) fn new(settings: Ingest, link: Link, store: Store) -> Self {
        Self { settings, link, store, seen: AtomicBool::new(false), room: Room::default() }
    }

    async fn keep(&self, delivery: &Delivery) -> anyhow::Result<()> {
        let client = self.link.client().await?;
        let most = client.max_payload().saturating_sub(HEADERS);
        let context = jetstream::new(client);
        if !self.seen.load(Ordering::Relaxed) {
            find_stream(&context, &self.settings).await?;
            self.seen.store(true, Ordering::Relaxed);
        }
        for message in written(delivery, most)? {
            self.publish(&context, &delivery.source, message).await?;
        }
        Ok(())
    }

    async fn publish(&self, context: &Context, source: &str, message: Bytes) -> anyhow::Result<()> {
        let (size, subject) = (message.len(), format!("{}.{}", self.settings.stream, lane(source)));
        let message = PublishMessage::build().payload(message).expected_stream(&self.settings.stream);
        let answer = async { context.send_publish(subject, message).await?.await }.await;
        self.room.note(size, &answer);
        answer.map(drop).context("the stream did not take it")
    }

    /// The stream's name.
    pub(crate) fn stream(&self) -> &str {
        &self.settings.stream
    }

    /// Whether a delivery could be kept now.
    ///
    /// # Errors
    /// If NATS cannot be reached, has no such stream and cannot make it, or the stream takes nothing.
    pub(crate) async fn can_keep(&self) -> anyhow::Result<()> {
        let context = jetstream::new(self.link.client().await?);
        find_stream(&context, &self.settings).await?;
        match self.room.doubt() {
            Doubt::None => Ok(()),
            Doubt::Refused(why) => Err(anyhow::anyhow!(why).context("the stream did not take it")),
            Doubt::Try(size) => self.publish(&context, "", room::nobodys(size)?).await,
        }
    }
}

#[async_trait]
impl Inbox for Intake {
    async fn accept(&self, delivery: Delivery) -> Result<Accepted, InboxError> {
        // What people ask for is answered with its outcome, so it goes the direct way.
        if delivery.events.iter().any(|event| event.class == EventClass::Person) {
            return self.store.accept(delivery).await;
        }
        match self.keep(&delivery).await {
            Ok(()) => Ok(Accepted { seqs: Vec::new(), repeats: None }),
            Err(error) => {
                self.seen.store(false, Ordering::Relaxed);
                Err(InboxError::Unavailable(format!("NATS: {error:#}")))
            }
        }
    }

    async fn outcome(&self, seq: i64, wait: Duration) -> Result<Option<ActOutcome>, InboxError> {
        self.store.outcome(seq, wait).await
    }
}

/// Takes deliveries from the stream into the store, until told to stop.
pub(crate) struct Taker {
    settings: Ingest,
    link: Link,
    store: Store,
    state: BusState,
    stop: CancellationToken,
}

impl Taker {
    pub(crate) fn new(settings: Ingest, link: Link, store: Store, stop: CancellationToken) -> Self {
        Self { settings, state: link.state(), link, store, stop }
    }

    /// Runs until stopped, whenever no other server does.
    pub(crate) async fn run(self) {
        let (store, stop) = (self.store.clone(), self.stop.clone());
        let this = Arc::new(self);
        alone(store, LEASE, stop, |ours| Arc::clone(&this).lanes(ours)).await;
    }

    async fn lanes(self: Arc<Self>, ours: CancellationToken) {
        let mut lanes = tokio::task::JoinSet::new();
        for lane in 0..LANES {
            let (this, ours) = (Arc::clone(&self), ours.clone());
            lanes.spawn(async move { this.lane(lane, &ours).await });
        }
        lanes.spawn(async move { self.watch(&ours).await });
        while lanes.join_next().await.is_some() {}
    }

    async fn lane(&self, lane: u8, ours: &CancellationToken) {
        let part = format!("ingest.{lane}");
        while !ours.is_cancelled() {
            let ended = tokio::select! {
                ended = self.take(lane, &part) => ended,
                // What is wrong is told by whoever takes now.
                () = ours.cancelled() => return self.state.set(&part, None),
            };
            if let Err(error) = ended {
                tracing::warn!(lane, error = %format!("{error:#}"), "deliveries wait on NATS");
                self.state.set(&part, Some(format!("{error:#}")));
            }
            tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = ours.cancelled() => return self.state.set(&part, None) }
        }
    }

    async fn take(&self, lane: u8, part: &str) -> anyhow::Result<()> {
        let client = self.link.client().await?;
        let bytes = BYTES.max(client.max_payload() + HEADERS);
        let context = jetstream::new(client);
        let stream = find_stream(&context, &self.settings).await?;
        // Another kind of stream, which somebody else made, keeps what is acknowledged: its consumer cannot begin anew.
        let queue = stream.cached_info().config.retention == RetentionPolicy::WorkQueue;
        let most = if queue { MOST } else { 1 };
        let name = format!("watchkeeper-{lane}");
        if queue
            && let Ok(before) = stream.get_consumer::<pull::Config>(&name).await
            && before.cached_info().num_ack_pending > 0
        {
            stream.delete_consumer(&name).await.context("the consumer cannot begin anew")?;
        }
        let config = pull::Config {
            durable_name: Some(name),
            filter_subject: format!("{}.{lane}", self.settings.stream),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: i64::try_from(most)?,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.context("the consumer cannot be made")?;
        let mut last = consumer.cached_info().delivered.consumer_sequence;
        let taken = consumer.stream().max_messages_per_batch(most).max_bytes_per_batch(bytes);
        let mut messages = taken.heartbeat(Duration::from_secs(5)).expires(Duration::from_secs(20)).messages().await?;
        self.state.set(part, None);
        while let Some(message) = messages.next().await {
            let mut all = vec![message?];
            while all.len() < most
                && let Some(Some(message)) = messages.next().now_or_never()
            {
                all.push(message?);
            }
            let follows = |message: &jetstream::Message| {
                last += 1;
                message.info().is_ok_and(|info| info.consumer_sequence == last)
            };
            let (there, count) = (all.len(), all.iter().map(follows).take_while(|follows| *follows).count());
            if queue {
                all.truncate(count);
            }
            self.accept(all).await?;
            anyhow::ensure!(!queue || count == there, "a delivery was handed out and did not come: the oldest that is left comes again");
        }
        anyhow::bail!("the server ended the subscription")
    }

    /// Puts deliveries into the store in this order. Each is acknowledged after its own commit, which it may share with others.
    async fn accept(&self, messages: Vec<jetstream::Message>) -> anyhow::Result<()> {
        let mut waiting = Vec::with_capacity(messages.len());
        for message in messages {
            match read(&message.payload) {
                Ok(delivery) if room::is_nobodys(&delivery) => message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))?,
                Ok(delivery) => {
                    let mut accepted = self.store.accept(delivery);
                    // It takes its place in the store's line now, and hears its answer later.
                    let now = futures::poll!(&mut accepted);
                    waiting.push((message, accepted, now));
                }
                Err(error) => self.set_aside(&message, &error).await?,
            }
        }
        for (message, accepted, now) in waiting {
            let accepted = match now {
                Poll::Ready(accepted) => accepted,
                Poll::Pending => accepted.await,
            };
            accepted?;
            message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        Ok(())
    }

    /// Only we write here: somebody else did, or it is of a version to come.
    async fn set_aside(&self, message: &jetstream::Message, error: &anyhow::Error) -> anyhow::Result<()> {
        tracing::error!(%error, subject = %message.subject, "a message on our own stream is no delivery: it is set aside");
        let mut tx = self.store.begin().await?;
        tx.keep_sample("jetstream", jiff_now(message), &message.payload, &error.to_string()).await?;
        tx.commit().await?;
        message.ack_with(AckKind::Term).await.map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// When the stream got a message.
fn jiff_now(message: &jetstream::Message) -> Timestamp {
    let nanos = message.info().map(|info| info.published.unix_timestamp_nanos()).unwrap_or_default();
    Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn lane(source: &str) -> u8 {
    ContentKey::of(&[source.as_bytes()]).0[0] % LANES
}

async fn find_stream(context: &Context, settings: &Ingest) -> anyhow::Result<stream::Stream> {
    match context.get_stream(&settings.stream).await {
        Ok(stream) => Ok(stream),
        Err(error) if is_absent(&error.kind()) => {
            let config = stream::Config {
                name: settings.stream.clone(),
                description: Some("Deliveries on their way into Watchkeeper's store".to_owned()),
                subjects: vec![format!("{}.*", settings.stream)],
                retention: RetentionPolicy::WorkQueue,
                num_replicas: settings.replicas,
                ..stream::Config::default()
            };
            let name = &settings.stream;
            let made = context.create_stream(config).await;
            made.with_context(|| format!("the stream {name} cannot be made with {} replicas", settings.replicas))
        }
        Err(error) => Err(error.into()),
    }
}

/// What stands before the body in a message, as one line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    source: String,
    received_at: Timestamp,
    events: Vec<Kept>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    key: ContentKey,
    order_key: String,
    payload: Payload,
}

/// A delivery as messages of at most `most` bytes. One that does not fit is cut between its events, and its body at the same number of places:
/// the pieces of the body follow each other in the evidence as they did in the request.
fn written(delivery: &Delivery, most: usize) -> anyhow::Result<Vec<Bytes>> {
    let mut pieces = 1;
    loop {
        let messages = cut(delivery, pieces)?;
        if messages.iter().all(|message| message.len() <= most) {
            return Ok(messages);
        }
        anyhow::ensure!(pieces < delivery.events.len(), "one event alone is larger than NATS takes ({most} bytes): raise its max_payload");
        pieces = (pieces * 2).min(delivery.events.len());
    }
}

fn cut(delivery: &Delivery, pieces: usize) -> anyhow::Result<Vec<Bytes>> {
    let events = delivery.events.len().div_ceil(pieces).max(1);
    let count = delivery.events.chunks(events).len().max(1);
    let raw = delivery.raw.len().div_ceil(count).max(1);
    let mut messages = Vec::with_capacity(count);
    for (index, events) in delivery.events.chunks(events).enumerate() {
        let kept = |event: &NewEvent| Kept { key: event.key, order_key: event.order_key.clone(), payload: event.payload.clone() };
        let head = Head {
            version: 1,
            source: delivery.source.clone(),
            received_at: delivery.received_at,
            events: events.iter().map(kept).collect(),
        };
        let (from, to) = ((index * raw).min(delivery.raw.len()), ((index + 1) * raw).min(delivery.raw.len()));
        let mut message = BytesMut::from(serde_json::to_string(&head)?.as_bytes());
        message.put_u8(b'\n');
        message.put_slice(&delivery.raw[from..to]);
        messages.push(message.freeze());
    }
    Ok(messages)
}

fn read(message: &Bytes) -> anyhow::Result<Delivery> {
    let end = message.iter().position(|byte| *byte == b'\n').context("it has no head")?;
    let head: Head = serde_json::from_slice(&message[..end])?;
    anyhow::ensure!(head.version == 1, "it is of version {}", head.version);
    let event = |kept: Kept| NewEvent { key: kept.key, order_key: kept.order_key, class: EventClass::Machine, payload: kept.payload };
    let events: Vec<NewEvent> = head.events.into_iter().map(event).collect();
    // Nobody who can write on the stream becomes a person by it.
    anyhow::ensure!(!events.iter().any(|event| matches!(event.payload, Payload::Act(_))), "it holds an act");
    Ok(Delivery { source: head.source, events, raw: message.slice(end + 1..), received_at: head.received_at })
}

#[cfg(test)]
mod tests;
