//! How far a stream was read, under which subjects; and what it dropped before that: found by comparing with where the stream begins now.

use async_nats::jetstream::consumer::Info as ConsumerInfo;
use async_nats::jetstream::stream::{Info as StreamInfo, RetentionPolicy};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::Store;

use super::subjects::Subjects;

/// How far a source's stream was read. Kept in the store, because the server's own memory of it goes when the consumer or the stream goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// When the stream was made: its numbers begin anew when it is made again.
    pub(super) made: String,
    /// Everything up to this sequence is read, or was none of ours.
    pub(super) read: u64,
    /// Ours: the subjects of the consumer that read it. None in marks that were kept before this was.
    #[serde(default)]
    subjects: Subjects,
    /// What was read under other subjects, further than under these.
    #[serde(default)]
    before: Vec<Span>,
}

/// A part of a stream that is read: these subjects, up to this sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    subjects: Subjects,
    read: u64,
}

impl Span {
    fn holds(&self, other: &Self) -> bool {
        self.read >= other.read && self.subjects.cover_all(&other.subjects)
    }
}

/// What was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// The stream's limits dropped messages of these sequences, first and last, before they were read.
    Dropped(u64, u64),
    /// The stream was deleted and made again: what was in it is gone.
    MadeAnew,
    /// The stream ends with this sequence, and had been read up to that one.
    FellBack(u64, u64),
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
            Self::FellBack(last, had) => write!(
                f,
                "the stream ends with message {last} and had {had} already, so what NATS had acknowledged was not on its disks, or an older copy of it was \
                 restored. Look at what happened in that time"
            ),
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
        // A consumer may remember more than its stream does.
        let floor = consumer.ack_floor.stream_sequence.min(stream.state.last_sequence);
        let subjects = Subjects::of_consumer(&consumer.config);
        let fresh = |read| Mark { made: made.clone(), read, subjects: subjects.clone(), before: Vec::new() };
        let (mut mark, mut gap) = match kept {
            // What was there before we first came is no loss.
            None => (fresh(first.saturating_sub(1)), None),
            Some(kept) if kept.made == made => kept.clone().within(stream.state.last_sequence),
            Some(_) => (fresh(0), Some(Gap::MadeAnew)),
        };
        let ours = mark.subjects.is_empty() || mark.subjects == subjects;
        if ours {
            mark.read = mark.read.max(floor);
        }
        // In a stream of another policy, messages go because somebody is done with them.
        if gap.is_none() && stream.config.retention == RetentionPolicy::Limits && first > mark.read + 1 {
            gap = Some(Gap::Dropped(mark.read + 1, first - 1));
        }
        mark = mark.under(&subjects, first);
        mark.read = mark.read.max(floor);
        if consumer.num_pending == 0 && consumer.num_ack_pending == 0 {
            mark.read = mark.read.max(stream.state.last_sequence);
        }
        (mark, gap)
    }

    /// What of it holds in a stream that ends here: behind its end other messages will have the numbers of those that are gone.
    fn within(mut self, last: u64) -> (Self, Option<Gap>) {
        let had = self.before.iter().map(|span| span.read).chain([self.read]).max().unwrap_or(0);
        if had <= last {
            return (self, None);
        }
        self.read = self.read.min(last);
        for span in &mut self.before {
            span.read = span.read.min(last);
        }
        (self, Some(Gap::FellBack(last, had)))
    }

    /// The same for other subjects, of a stream that begins with `first`: how far all of them were read, and what of them is read beyond that.
    pub(super) fn under(mut self, subjects: &Subjects, first: u64) -> Self {
        let gone = first.saturating_sub(1);
        if self.subjects.is_empty() {
            self.subjects = subjects.clone();
        }
        if self.subjects != *subjects {
            let mut spans = std::mem::take(&mut self.before);
            let last = Span { subjects: std::mem::replace(&mut self.subjects, subjects.clone()), read: self.read };
            spans.retain(|span| span.read > gone && !last.holds(span));
            spans.push(last);
            self.read = spans.iter().filter(|span| span.subjects.cover_all(subjects)).map(|span| span.read).max().unwrap_or(0);
            self.before = spans;
        }
        self.read = self.read.max(gone);
        self
    }

    /// Whether a message was read before the subjects changed.
    pub(super) fn has_read(&self, subject: &str, sequence: u64) -> bool {
        self.before.iter().any(|span| sequence <= span.read && span.subjects.cover(subject))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(all: &[&str]) -> Subjects {
        Subjects::of(&all.iter().map(|&subject| subject.to_owned()).collect::<Vec<_>>())
    }

    fn mark(read: u64, all: &[&str]) -> Mark {
        Mark { made: "1".to_owned(), read, subjects: subjects(all), before: Vec::new() }
    }

    #[test]
    fn what_was_read_under_other_subjects_stays_read() {
        let added = mark(10, &["a"]).under(&subjects(&["a", "b"]), 3);
        assert_eq!(added.read, 2, "b is read from where the stream begins");
        assert!(added.has_read("a", 10) && !added.has_read("a", 11) && !added.has_read("b", 10));
        let fewer = mark(10, &["a.>"]).under(&subjects(&["a.b"]), 3);
        assert_eq!(fewer.read, 10, "nothing of it is new");

        // Away and there again: what came meanwhile is new.
        let mut mark = mark(10, &["a", "b"]).under(&subjects(&["a"]), 0);
        mark.read = 20;
        let again = mark.under(&subjects(&["a", "b"]), 0);
        assert_eq!(again.read, 10);
        assert!(again.has_read("a", 20) && again.has_read("b", 10) && !again.has_read("b", 11));
    }

    #[test]
    fn only_as_much_is_remembered_as_may_come_again() {
        let mut mark = mark(10, &["a"]);
        for round in 1..10 {
            for all in [&["a", "b"][..], &["b"], &["c.*"], &["a"]] {
                mark = mark.under(&subjects(all), 0);
                mark.read = round * 100;
            }
        }
        assert!(mark.before.len() <= 3, "{:?}", mark.before);
        assert!(mark.under(&subjects(&["d"]), 10_000).before.len() <= 1);
    }

    /// What comes behind the end has numbers that were read once, and is news.
    #[test]
    fn in_a_stream_that_fell_back_nothing_behind_its_end_was_read() {
        let both = mark(10, &["a"]).under(&subjects(&["a", "b"]), 0);
        let (same, gap) = both.clone().within(10);
        assert!(same == both && gap.is_none());
        let (cut, gap) = both.within(7);
        assert_eq!(gap, Some(Gap::FellBack(7, 10)));
        assert!(cut.has_read("a", 7) && !cut.has_read("a", 8));
        assert_eq!(mark(10, &["a"]).within(7).0.read, 7);
    }

    #[test]
    fn a_mark_that_was_kept_before_subjects_were_is_one_of_the_consumer() {
        let old: Mark = serde_json::from_value(json!({ "made": "1", "read": 7 })).unwrap();
        let now = old.under(&subjects(&["a"]), 0);
        assert_eq!((now.read, now.before.len()), (7, 0));
    }
}
