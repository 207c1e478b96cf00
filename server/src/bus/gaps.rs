//! What a stream dropped before we read it: found by comparing how far we read with where the stream begins now.

use async_nats::jetstream::consumer::Info as ConsumerInfo;
use async_nats::jetstream::stream::{Info as StreamInfo, RetentionPolicy};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::Store;

/// How far a source's stream was read. Kept in the store, because the server's own memory of it goes when the consumer or the stream goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// When the stream was made: its numbers begin anew when it is made again.
    pub(super) made: String,
    /// Everything up to this sequence is read, or was none of ours.
    pub(super) read: u64,
}

/// What was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// The stream's limits dropped messages of these sequences, first and last, before they were read.
    Dropped(u64, u64),
    /// The stream was deleted and made again: what was in it is gone.
    MadeAnew,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dropped(first, last) => write!(
                f,
                "the stream dropped messages {first} to {last} ({}, other subjects' included) before they were read. \
                 Look at its limits (max_age, max_msgs, max_bytes), and at what happened in that time",
                last - first + 1
            ),
            Self::MadeAnew => {
                f.write_str("the stream was deleted and made again: what was not read is gone. Look at what happened in that time")
            }
        }
    }
}

impl Mark {
    /// When a stream was made, as a mark names it.
    pub(super) fn made(stream: &StreamInfo) -> String {
        stream.created.unix_timestamp_nanos().to_string()
    }

    /// Compares what was read with what is there, and says how far it is read now. `stream` was asked for before `consumer`.
    pub(super) fn advance(kept: Option<&Mark>, stream: &StreamInfo, consumer: &ConsumerInfo) -> (Mark, Option<Gap>) {
        let (made, first) = (Self::made(stream), stream.state.first_sequence);
        let floor = consumer.ack_floor.stream_sequence;
        let (mut read, mut gap) = match kept {
            // What was there before we first came is no loss.
            None => (floor.max(first.saturating_sub(1)), None),
            Some(kept) if kept.made == made => (kept.read.max(floor), None),
            Some(_) => (floor, Some(Gap::MadeAnew)),
        };
        // In a stream of another policy, messages go because somebody is done with them.
        if gap.is_none() && stream.config.retention == RetentionPolicy::Limits && first > read + 1 {
            gap = Some(Gap::Dropped(read + 1, first - 1));
        }
        read = read.max(first.saturating_sub(1));
        if consumer.num_pending == 0 && consumer.num_ack_pending == 0 {
            read = read.max(stream.state.last_sequence);
        }
        (Mark { made, read }, gap)
    }

    /// The mark of a source.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub(super) async fn load(store: &Store, source: &str) -> Result<Option<Mark>, store::Error> {
        let kept = store.read().await?.flag(&key(source)).await?;
        Ok(kept.and_then(|value| serde_json::from_value(value).ok()))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub(super) async fn keep(&self, store: &Store, source: &str) -> Result<(), store::Error> {
        let mut tx = store.begin().await?;
        tx.set_flag(&key(source), &json!(self)).await?;
        tx.commit().await
    }
}

fn key(source: &str) -> String {
    format!("nats.read.{source}")
}
