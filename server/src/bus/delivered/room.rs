//! Whether the stream takes what is put on it: by what it answered last and, where that was no, by trying again with a message that nobody sent.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use domain::event::Delivery;
use jiff::Timestamp;

use super::Head;

/// Whoever kept something within this time is not called full for what was refused in between.
const FRESH: Duration = Duration::from_secs(5);
/// A try is made at most this often.
const EVERY: Duration = Duration::from_secs(1);
/// The largest try, in bytes. Only larger deliveries being refused is no reason to send nobody here.
const LARGEST: usize = 16 * 1024;

/// What was answered lately.
#[derive(Default)]
pub(super) struct Room(Mutex<Answers>);

#[derive(Default)]
struct Answers {
    kept: Option<Instant>,
    /// The size of the smallest message that was refused since then, and why the last one was.
    refused: Option<(usize, String)>,
    tried: Option<Instant>,
}

/// Whether something could be kept now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// As far as anybody knows.
    None,
    /// Not a moment ago: why.
    Refused(String),
    /// It was refused: a message of this size says whether it still would be.
    Try(usize),
}

impl Room {
    /// Notes what the stream answered to a message of this size. One that it can never take says nothing about the others.
    pub(super) fn note<T>(&self, size: usize, answer: &Result<T, PublishError>) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(_) => *answers = Answers { kept: Some(Instant::now()), ..Answers::default() },
            Err(error) if is_about_the_message(error) => {}
            Err(error) => {
                let smallest = answers.refused.take().map_or(size, |(before, _)| before.min(size));
                answers.refused = Some((smallest, error.to_string()));
            }
        }
    }

    pub(super) fn doubt(&self) -> Doubt {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((size, why)) = answers.refused.clone() else { return Doubt::None };
        let within = |at: Option<Instant>, time| at.is_some_and(|at| at.elapsed() < time);
        if within(answers.kept, FRESH) {
            return Doubt::None;
        }
        if within(answers.tried, EVERY) {
            return Doubt::Refused(why);
        }
        answers.tried = Some(Instant::now());
        Doubt::Try(size.min(LARGEST))
    }
}

fn is_about_the_message(error: &PublishError) -> bool {
    let told =
        std::error::Error::source(error).and_then(|error| error.downcast_ref::<jetstream::Error>()).map(jetstream::Error::error_code);
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || told == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
        || told == Some(ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM)
}

/// A message of this size that is of no source: whoever takes it lets it go.
pub(super) fn nobodys(size: usize) -> anyhow::Result<Bytes> {
    let head = Head { version: 1, source: String::new(), received_at: Timestamp::UNIX_EPOCH, events: Vec::new() };
    let mut message = serde_json::to_vec(&head)?;
    message.push(b'\n');
    message.resize(message.len().max(size), b' ');
    Ok(message.into())
}

/// Whether it is one of these.
pub(super) fn is_nobodys(delivery: &Delivery) -> bool {
    delivery.source.is_empty() && delivery.events.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(room: &Room, size: usize) {
        room.note::<()>(size, &Err(PublishError::new(PublishErrorKind::Other)));
    }

    #[test]
    fn what_was_refused_is_tried_again_and_not_too_often() {
        let room = Room::default();
        assert_eq!(room.doubt(), Doubt::None);
        refuse(&room, 900);
        refuse(&room, 1_000_000);
        assert_eq!(room.doubt(), Doubt::Try(900), "the smallest of them");
        assert!(matches!(room.doubt(), Doubt::Refused(_)), "a moment later");
        room.note(900, &Ok(()));
        assert_eq!(room.doubt(), Doubt::None);
        refuse(&room, 900);
        assert_eq!(room.doubt(), Doubt::None, "another one was kept a moment ago");
    }

    #[test]
    fn a_large_one_is_not_tried_and_one_that_never_fits_says_nothing() {
        let room = Room::default();
        room.note::<()>(2_000_000, &Err(PublishError::new(PublishErrorKind::MaxPayloadExceeded)));
        assert_eq!(room.doubt(), Doubt::None);
        refuse(&room, 900_000);
        assert_eq!(room.doubt(), Doubt::Try(LARGEST));
    }

    #[test]
    fn a_try_is_a_message_of_its_size_that_is_known_again() {
        for size in [0, 5000] {
            let message = nobodys(size).unwrap();
            assert!(message.len() >= size && message.len() <= size.max(200), "{}", message.len());
            assert!(is_nobodys(&super::super::read(&message).unwrap()));
        }
    }
}
