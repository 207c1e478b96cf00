//! Answers a person in private. Worth nothing after some minutes: then it is dropped.

use async_trait::async_trait;
use domain::act::{ActOutcome, ReplyTo};
use domain::job::Job as Row;
use jiff::SignedDuration;

use super::chat_card::as_job_error;
use super::{Done, Job, JobError, field};
use crate::Cx;

pub(crate) struct ChatReply;

/// Discord's interaction tokens live 15 minutes, Slack's response addresses 30.
const WORTH: SignedDuration = SignedDuration::from_mins(14);

#[async_trait]
impl Job for ChatReply {
    fn kind(&self) -> &'static str {
        "chat.reply"
    }

    fn at_once(&self) -> usize {
        16
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let (to, outcome): (ReplyTo, ActOutcome) = (field(row, "to")?, field(row, "outcome")?);
        if cx.clock.now().duration_since(row.due_at) > WORTH {
            return Ok(Done::Finished);
        }
        let Some(chat) = cx.chat(&to.platform) else { return Ok(Done::Finished) };
        chat.reply(&to, &outcome).await.map_err(|error| as_job_error(cx, error))?;
        Ok(Done::Finished)
    }
}
