//! Posts a plain message into a channel: what a runbook's `notify` asked for. It says when it was written, so late is better than never, for a day.

use async_trait::async_trait;
use domain::card::Message;
use domain::job::Job as Row;
use jiff::SignedDuration;

use super::chat_card::{MOST_PAUSE, heard, keep_on};
use super::{Done, Job, JobError, field};
use crate::Cx;

pub(crate) struct ChatMessage;

/// A message that could not be posted for so long is given up.
const WORTH: SignedDuration = SignedDuration::from_hours(24);

#[async_trait]
impl Job for ChatMessage {
    fn kind(&self) -> &'static str {
        "chat.message"
    }

    fn keeps_trying(&self) -> Option<SignedDuration> {
        Some(MOST_PAUSE)
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let (name, message): (String, Message) = (field(row, "channel")?, field(row, "message")?);
        match post(cx, row, &name, &message).await {
            Err(JobError::Retry(error) | JobError::Hold(_, error)) if cx.clock.now().duration_since(message.at) > WORTH => {
                Err(JobError::Fail(error))
            }
            posted => posted,
        }
    }
}

async fn post(cx: &Cx, row: &Row, name: &str, message: &Message) -> Result<Done, JobError> {
    let rules = cx.rules.load_full();
    let Some(channel) = rules.channels.get(name) else {
        return Err(JobError::Fail(format!("there is no channel {name:?} in the configuration any more")));
    };
    let Some(chat) = cx.chat(&channel.platform) else {
        return Err(JobError::Fail(format!("channel {name:?} is on {}, which is not configured", channel.platform)));
    };
    if let Err(at) = cx.wake.pace.take(chat.as_ref(), false, cx.clock.now()) {
        return Ok(Done::Again(at));
    }
    if row.attempts > 0 {
        // The last answer was lost: look before posting again.
        let found = heard(cx, chat, chat.find_post(&channel.id, &row.key).await).map_err(|error| keep_on(cx, error))?;
        if found.is_some() {
            return Ok(Done::Finished);
        }
    }
    heard(cx, chat, chat.post_message(&channel.id, message, &row.key).await).map_err(|error| keep_on(cx, error))?;
    Ok(Done::Finished)
}
