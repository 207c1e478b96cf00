//! Posts a plain message into a channel: what a runbook's `notify` asked for.

use async_trait::async_trait;
use domain::card::Message;
use domain::job::Job as Row;

use super::chat_card::as_job_error;
use super::{Done, Job, JobError, field};
use crate::Cx;

pub(crate) struct ChatMessage;

#[async_trait]
impl Job for ChatMessage {
    fn kind(&self) -> &'static str {
        "chat.message"
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let (name, message): (String, Message) = (field(row, "channel")?, field(row, "message")?);
        let rules = cx.rules.load_full();
        let Some(channel) = rules.channels.get(&name) else {
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
            let found = chat.find_post(&channel.id, &row.key).await.map_err(|error| as_job_error(cx, error))?;
            if found.is_some() {
                return Ok(Done::Finished);
            }
        }
        chat.post_message(&channel.id, &message, &row.key).await.map_err(|error| as_job_error(cx, error))?;
        Ok(Done::Finished)
    }
}
