//! The durable consumer of a subscription: found, or made where it was, with the subjects of the configuration.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, FromConsumer, PullConsumer, pull};
use async_nats::jetstream::stream::{ConsumerErrorKind, ConsumerUpdateErrorKind, RetentionPolicy, Stream};
use jiff::SignedDuration;

use super::super::gaps::Mark;
use super::super::subjects::Subjects;
use super::{ACK_WAIT, Inbound, Looked};
use crate::config::Subscription;

/// How long a server that starts keeps the others from the consumer if it does not come to an end.
const TURN: SignedDuration = SignedDuration::from_secs(15);
/// How often they ask meanwhile.
const ASK: Duration = Duration::from_millis(200);

impl Inbound {
    /// Finds or makes it. Its subjects are set by each start of a server, once: of servers over one database the last one that started decides, so
    /// that two of them with different configurations do not take it from each other again and again. Those that start together take turns.
    pub(super) async fn consumer(
        &self,
        source: &str,
        subscription: &Subscription,
        stream: Stream,
        started: bool,
    ) -> anyhow::Result<Looked> {
        if started {
            return self.find(source, subscription, stream).await;
        }
        let turn = format!("nats.consumer.{source}");
        while self.store.take_lease(&turn, TURN).await?.is_none() {
            tokio::time::sleep(ASK).await;
        }
        let looked = self.follow(source, subscription, stream).await;
        self.store.release_lease(&turn).await?;
        looked
    }

    async fn find(&self, source: &str, subscription: &Subscription, stream: Stream) -> anyhow::Result<Looked> {
        let mark = Mark::load(&self.store, source).await?;
        let config = fresh(subscription, &Subjects::of(&subscription.subjects), &stream, mark.as_ref());
        let consumer = stream.get_or_create_consumer(&subscription.durable, config).await.context("the consumer cannot be made")?;
        let mut looked = Looked { stream, consumer, mark, refused: None };
        // How far it was read is kept before anything is changed, and again under what is in force then.
        self.look(source, &mut looked).await?;
        Ok(looked)
    }

    async fn follow(&self, source: &str, subscription: &Subscription, stream: Stream) -> anyhow::Result<Looked> {
        let wanted = Subjects::of(&subscription.subjects);
        let mut looked = self.find(source, subscription, stream).await?;
        if Subjects::of_consumer(&looked.consumer.cached_info().config) == wanted {
            return Ok(looked);
        }
        match changed(&wanted, &looked).await? {
            Changed::Follows(consumer) => {
                tracing::info!(source, subjects = ?subscription.subjects, "the consumer follows the changed subjects");
                looked.consumer = consumer;
            }
            Changed::Stays(consumer, why) => {
                tracing::error!(source, subjects = ?subscription.subjects, why, "NATS refuses the changed subjects: those before are read until the next start");
                looked.consumer = consumer;
                looked.refused = Some(format!("NATS refuses the changed subjects, those before are read: {why}"));
            }
        }
        self.look(source, &mut looked).await?;
        Ok(looked)
    }
}

/// What became of a consumer that was to have other subjects.
enum Changed {
    Follows(PullConsumer),
    /// NATS refused them, as where another consumer of a work queue has one of them. It is as it was, and this is why.
    Stays(PullConsumer, String),
}

/// Gives a consumer other subjects; what else is set about it stays. It hands out nothing behind where it is, so one with new subjects is made again and
/// begins with what of all of them may be unread; messages that were read under the old ones are known by the mark.
async fn changed(wanted: &Subjects, looked: &Looked) -> anyhow::Result<Changed> {
    let (stream, info) = (&looked.stream, looked.consumer.cached_info());
    let found = pull::Config::try_from_consumer_config(info.config.clone()).map_err(|error| anyhow::anyhow!("{error}"))?;
    let before = Subjects::of_consumer(&info.config);
    let config = pull::Config { filter_subject: String::new(), filter_subjects: wanted.to_vec(), ..found.clone() };
    // A stream of this kind keeps only what a consumer waits for: nothing lies behind, and without the consumer all of it would go.
    let interest = stream.cached_info().config.retention == RetentionPolicy::Interest;
    if interest || before.cover_all(wanted) {
        return match stream.update_consumer(config).await {
            Ok(consumer) => Ok(Changed::Follows(consumer)),
            Err(error) if matches!(error.kind(), ConsumerUpdateErrorKind::JetStream(_)) => {
                Ok(Changed::Stays(looked.consumer.clone(), error.to_string()))
            }
            Err(error) => Err(error.into()),
        };
    }
    let begin = |subjects: &Subjects| begin(subjects, stream, looked.mark.as_ref());
    stream.delete_consumer(&info.name).await?;
    match stream.create_consumer(pull::Config { deliver_policy: begin(wanted), ..config }).await {
        Ok(consumer) => Ok(Changed::Follows(consumer)),
        Err(error) if matches!(error.kind(), ConsumerErrorKind::JetStream(_)) => {
            let again = stream.create_consumer(pull::Config { deliver_policy: begin(&before), ..found }).await;
            Ok(Changed::Stays(again.context("the consumer cannot be made again as it was")?, error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// A consumer that vanished goes on where it was: what was read long ago is no news.
fn fresh(subscription: &Subscription, wanted: &Subjects, stream: &Stream, mark: Option<&Mark>) -> pull::Config {
    pull::Config {
        durable_name: Some(subscription.durable.clone()),
        filter_subjects: wanted.to_vec(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: 1000,
        deliver_policy: begin(wanted, stream, mark),
        ..pull::Config::default()
    }
}

/// Where a consumer of these subjects begins.
fn begin(subjects: &Subjects, stream: &Stream, mark: Option<&Mark>) -> DeliverPolicy {
    let info = stream.cached_info();
    let mark = mark.filter(|mark| mark.made == Mark::made(info)).cloned();
    let read = mark.map_or(0, |mark| mark.under(subjects, info.state.first_sequence).read);
    // A work queue lets nobody begin elsewhere than with what is left.
    if read == 0 || info.config.retention == RetentionPolicy::WorkQueue {
        DeliverPolicy::All
    } else {
        DeliverPolicy::ByStartSequence { start_sequence: read + 1 }
    }
}
