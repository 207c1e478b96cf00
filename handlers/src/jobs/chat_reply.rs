//! Answers a person in private. Worth nothing after some minutes: then it is dropped, and the card says what became of it.

use async_trait::async_trait;
use domain::act::{ActOutcome, ReplyTo};
use domain::job::Job as Row;
use jiff::SignedDuration;

use super::chat_card::{as_job_error, heard};
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
        // When it is due moves with every try.
        let at = field(row, "at").unwrap_or(row.due_at);
        if cx.clock.now().duration_since(at) > WORTH {
            return Ok(Done::Finished);
        }
        let Some(chat) = cx.chat(&to.platform) else { return Ok(Done::Finished) };
        // "Gone" may also mean "not yet": who is quicker than the edge's own answer to the platform tries again.
        heard(cx, chat, chat.reply(&to, &outcome).await).map_err(|error| as_job_error(cx, error))?;
        Ok(Done::Finished)
    }
}
