//! Tells the timeline in the card's thread. What came together is told in one message.
//!
//! At least once: a lost answer may tell a line twice on a platform that drops no repeats. Before the card is posted there is no thread: the post begins it.

use async_trait::async_trait;
use domain::act::Place;
use domain::card::Message;
use domain::chat::ChatError;
use domain::id::IncidentId;
use domain::job::Job as Row;
use domain::text::{clean_block, shorten};
use domain::timeline::Entry;
use jiff::SignedDuration;
use store::Did;

use super::chat_card::{MOST_PAUSE, heard, keep_on};
use super::{Done, Job, JobError, field};
use crate::Cx;

pub(crate) struct ChatThread;

/// The most text of one message, in characters: both platforms take it.
const MOST_TEXT: usize = 1500;
/// What could not be told for so long is given up.
const WORTH: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A platform that says so often that the card is gone means it.
const TRIES_OF_GONE: i64 = 5;
/// Entries read at once.
const MOST_ENTRIES: i64 = 500;

#[async_trait]
impl Job for ChatThread {
    fn kind(&self) -> &'static str {
        "chat.thread"
    }

    fn at_once(&self) -> usize {
        8
    }

    fn keeps_trying(&self) -> Option<SignedDuration> {
        Some(MOST_PAUSE)
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let (id, name): (IncidentId, String) = (field(row, "incident")?, field(row, "channel")?);
        let Some((card, fresh)) = cx.store.glance().await?.untold(id, &name, MOST_ENTRIES).await? else { return Ok(Done::Finished) };
        let Some(message) = card.message.clone() else { return Ok(Done::Finished) };
        let Some(chat) = cx.chat(&card.platform) else { return Ok(Done::Finished) };
        let Some((last, message_text)) = compose(&fresh) else { return Ok(Done::Finished) };
        if let Err(at) = cx.wake.pace.take(chat.as_ref(), false, cx.clock.now()) {
            return Ok(Done::Again(at));
        }
        let place = Place { channel: card.channel_id.clone(), message };
        let delivery = format!("{}-{last}", card.delivery);
        match heard(cx, chat, chat.post_thread(&place, &message_text, &delivery).await) {
            Ok(()) => {}
            // Somebody deleted the card: where it is posted anew its thread begins again.
            Err(ChatError::Gone(why)) if row.attempts >= TRIES_OF_GONE => {
                tracing::warn!(key = %row.key, why, "the thread cannot be told: its card is gone");
                return Ok(Done::Finished);
            }
            Err(error) => {
                let newest = fresh.last().map(|(_, entry)| entry.at);
                return Err(match keep_on(cx, error) {
                    JobError::Retry(error) | JobError::Hold(_, error)
                        if newest.is_some_and(|at| cx.clock.now().duration_since(at) > WORTH) =>
                    {
                        JobError::Fail(error)
                    }
                    error => error,
                });
            }
        }
        let told = Did::Told { incident: id, channel: name, upto: last };
        if fresh.last().is_some_and(|(seq, _)| *seq > last) {
            cx.store.did(told).await?;
            return Ok(Done::Again(cx.clock.now() + SignedDuration::from_secs(1)));
        }
        Ok(Done::Did(told))
    }
}

/// As many entries as fit into one message; one with a block of text ends it.
fn compose(entries: &[(i64, Entry)]) -> Option<(i64, Message)> {
    let mut lines: Vec<String> = Vec::new();
    let mut size = 0;
    let mut told = None;
    let mut block = None;
    for (seq, entry) in entries {
        let line = shorten(&entry.text, MOST_TEXT).into_owned();
        let length = line.chars().count() + 1;
        if told.is_some() && size + length > MOST_TEXT {
            break;
        }
        size += length;
        lines.push(line);
        told = Some((*seq, entry.at));
        if let Some(detail) = &entry.detail {
            block = Some(clean_block(detail, MOST_TEXT));
            break;
        }
    }
    told.map(|(seq, at)| (seq, Message { text: lines.join("\n"), block, at }))
}
