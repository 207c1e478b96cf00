//! Keeps an incident's card in one channel current: posts it once, then edits it in place. Many changes make one edit, the newest.

use async_trait::async_trait;
use domain::act::Place;
use domain::card::Card;
use domain::chat::{Chat, ChatError, Posting};
use domain::id::IncidentId;
use domain::job::Job as Row;
use store::{CardPost, Did};

use super::{Done, Job, JobError, field};
use crate::Cx;
use crate::cards::card_for;

pub(crate) struct ChatCard;

#[async_trait]
impl Job for ChatCard {
    fn kind(&self) -> &'static str {
        "chat.card"
    }

    fn at_once(&self) -> usize {
        32
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let (id, name): (IncidentId, String) = (field(row, "incident")?, field(row, "channel")?);
        let rules = cx.rules.load_full();
        let Some(channel) = rules.channels.get(&name) else {
            return Err(JobError::Fail(format!("there is no channel {name:?} in the configuration any more")));
        };
        let Some(chat) = cx.chat(&channel.platform) else {
            // Without a token for the platform the console still shows everything.
            return Ok(Done::Finished);
        };
        let Some((card, posted)) = card_for(cx, row.id, id, &name, channel).await? else { return Ok(Done::Finished) };
        // While its decision is on its way to the disk there is time to draw it. Nobody hears of it before.
        let drawn = (posted.is_none() && !cx.claim.is_stored()).then(|| chat.post_card(&channel.id, &card, &delivery(row)));
        if !cx.claim.stored().await {
            return Ok(Done::Finished);
        }
        let urgent = !card.state.is_open() || card.approval.as_ref().is_some_and(|approval| approval.expires_at.is_some());
        if posted.as_ref().is_none_or(|post| post.posted_version < card.version) {
            let now = cx.clock.now();
            let turn = cx.wake.pace.draw(&row.key, now).and_then(|()| cx.wake.pace.take(chat.as_ref(), urgent, now));
            if let Err(at) = turn {
                return Ok(Done::Again(at));
            }
        }
        match posted {
            Some(CardPost { posted_version, .. }) if posted_version >= card.version => Ok(Done::Finished),
            Some(post @ CardPost { message: Some(_), .. }) => update(cx, chat.as_ref(), post, &card).await,
            other => post(cx, row, chat.as_ref(), other, (&name, &channel.id), &card, drawn).await,
        }
    }
}

/// Under which a card is posted first: the job's own, so that nothing has to be stored before. The claim is what says that it may have been tried.
fn delivery(job: &Row) -> String {
    job.id.0.simple().to_string()
}

/// The first post, as it was drawn for [`delivery`] or not yet. One whose answer was lost is looked for under its id and not repeated.
async fn post(
    cx: &Cx,
    job: &Row,
    chat: &dyn Chat,
    before: Option<CardPost>,
    (name, channel_id): (&str, &str),
    card: &Card,
    drawn: Option<Posting<'_>>,
) -> Result<Done, JobError> {
    let tried = before.is_some() || job.attempts > 0;
    let mut row = before.unwrap_or_else(|| CardPost {
        incident: card.incident,
        channel: name.to_owned(),
        platform: chat.platform().to_owned(),
        channel_id: channel_id.to_owned(),
        message: None,
        posted_version: 0,
        delivery: delivery(job),
        told: 0,
    });
    let found = if tried { chat.find_post(channel_id, &row.delivery).await.map_err(|error| as_job_error(cx, error))? } else { None };
    let place = match found {
        Some(place) => place,
        None => match drawn.unwrap_or_else(|| chat.post_card(channel_id, card, &row.delivery)).await {
            Ok(place) => place,
            Err(error) => {
                // A later job of this card has another id: it must look under this one.
                if matches!(error, ChatError::Retry(_) | ChatError::Ambiguous(_)) {
                    cx.store.did(Did::Card(row)).await?;
                }
                return Err(as_job_error(cx, error));
            }
        },
    };
    row.message = Some(place.message);
    row.posted_version = card.version;
    Ok(Done::Did(Did::Card(row)))
}

async fn update(cx: &Cx, chat: &dyn Chat, mut row: CardPost, card: &Card) -> Result<Done, JobError> {
    let place = Place { channel: row.channel_id.clone(), message: row.message.clone().unwrap_or_default() };
    match chat.update_card(&place, card).await {
        Ok(()) => row.posted_version = card.version,
        Err(ChatError::Gone(_)) => {
            // Somebody deleted it: the next attempt posts a new one.
            row.message = None;
            row.delivery = domain::id::uuid_at(cx.clock.now()).simple().to_string();
            cx.store.did(Did::Card(row)).await?;
            return Ok(Done::Again(cx.clock.now()));
        }
        Err(error) => return Err(as_job_error(cx, error)),
    }
    Ok(Done::Did(Did::Card(row)))
}

/// What a platform's answer means for a job.
pub(super) fn as_job_error(cx: &Cx, error: ChatError) -> JobError {
    match error {
        ChatError::Wait { platform, after } => {
            metrics::counter!("watchkeeper_chat_rate_limited_total", "platform" => platform).increment(1);
            let after = jiff::SignedDuration::try_from(after).unwrap_or(jiff::SignedDuration::from_secs(60));
            let until = cx.clock.now() + after;
            cx.wake.pace.close(platform, until);
            JobError::RetryAt(until, error.to_string())
        }
        ChatError::Retry(text) | ChatError::Ambiguous(text) | ChatError::Gone(text) => JobError::Retry(text),
        ChatError::Refused(text) => JobError::Fail(text),
    }
}
