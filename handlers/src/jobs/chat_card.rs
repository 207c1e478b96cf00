//! Keeps an incident's card in one channel current: posts it once, then edits it in place. Many changes make one edit, the newest.
//!
//! A card is never given up while its incident matters: a platform that cannot be reached is tried until it can, one that refuses is asked again every
//! minute. What the job shows then is the newest state, not what was missed.

use std::sync::Arc;

use async_trait::async_trait;
use domain::act::Place;
use domain::card::Card;
use domain::chat::{Chat, ChatError, Posting};
use domain::id::IncidentId;
use domain::job::Job as Row;
use jiff::SignedDuration;
use store::{CardParts, CardPost, Did};

use super::{Done, Job, JobError, field};
use crate::Cx;
use crate::batch::thread_job;
use crate::cards::{Spot, card_at, parts_for};

pub(crate) struct ChatCard;

/// The kind of the jobs that keep cards current.
pub(crate) const KIND: &str = "chat.card";

/// The longest pause between two tries of what cannot be reached.
pub(super) const MOST_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// The pause after a refusal: people have to change something first, a token or who is in a channel.
const REFUSED_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// The pause where no channel of that name is configured: nobody outside is asked.
const NO_CHANNEL_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// A card of an incident that was closed so long ago is given up.
const LONG_CLOSED: SignedDuration = SignedDuration::from_hours(7 * 24);

#[async_trait]
impl Job for ChatCard {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn at_once(&self) -> usize {
        32
    }

    fn keeps_trying(&self) -> Option<SignedDuration> {
        Some(MOST_PAUSE)
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let (id, name): (IncidentId, String) = (field(row, "incident")?, field(row, "channel")?);
        let Some(parts) = parts_for(cx, row.id, id, &name).await? else { return Ok(Done::Finished) };
        let closed = parts.incident.closed_at;
        let shown = show(cx, row, &name, parts).await;
        match shown {
            Err(JobError::Retry(error) | JobError::Hold(_, error))
                if closed.is_some_and(|at| cx.clock.now().duration_since(at) > LONG_CLOSED) =>
            {
                Err(JobError::Fail(error))
            }
            shown => shown,
        }
    }
}

async fn show(cx: &Cx, row: &Row, name: &str, parts: CardParts) -> Result<Done, JobError> {
    let rules = cx.rules.load_full();
    let posted = parts.post.clone();
    let configured = Spot::configured(&rules, name);
    // Where it stands it is kept current, whatever the channel's name means by now.
    let standing = posted.as_ref().filter(|post| post.message.is_some()).map(Spot::of).filter(|spot| cx.chat(&spot.platform).is_some());
    let Some(spot) = standing.or_else(|| configured.clone()) else {
        let why = format!("there is no channel {name:?} in the configuration any more");
        return Err(JobError::Hold(cx.clock.now() + NO_CHANNEL_PAUSE, why));
    };
    let Some(chat) = cx.chat(&spot.platform) else {
        // Without a token for the platform the console still shows everything.
        return Ok(Done::Finished);
    };
    let card = card_at(cx, &rules, &parts, &spot);
    // While its decision is on its way to the disk there is time to draw it. Nobody hears of it before.
    let drawn = (posted.is_none() && !cx.claim.is_stored()).then(|| chat.post_card(&spot.channel_id, &card, &delivery(row)));
    if !cx.claim.stored().await {
        return Ok(Done::Finished);
    }
    let is_asked = card.approval.as_ref().is_some_and(|approval| approval.expires_at.is_some())
        || card.buttons.iter().any(|button| button.kind.settlement().is_some());
    let urgent = is_asked || !card.state.is_open();
    if posted.as_ref().is_none_or(|post| post.posted_version < card.version)
        && let Err(at) = cx.wake.pace.draw(&row.key, chat.as_ref(), urgent, cx.clock.now())
    {
        return Ok(Done::Again(at));
    }
    match posted {
        Some(post) if post.message.is_some() && Spot::of(&post) == spot => {
            if post.posted_version >= card.version {
                return Ok(Done::Finished);
            }
            let elsewhere = configured.filter(|there| *there != spot && cx.chat(&there.platform).is_some());
            update(cx, chat, post, &card, elsewhere.is_some()).await
        }
        other => post(cx, row, chat, other, (name, &spot), &card, drawn).await,
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
    chat: &Arc<dyn Chat>,
    before: Option<CardPost>,
    (name, spot): (&str, &Spot),
    card: &Card,
    drawn: Option<Posting<'_>>,
) -> Result<Done, JobError> {
    let tried = before.is_some() || job.attempts > 0;
    let mut row = before.unwrap_or_else(|| CardPost {
        incident: card.incident,
        channel: name.to_owned(),
        platform: spot.platform.clone(),
        channel_id: spot.channel_id.clone(),
        message: None,
        posted_version: 0,
        delivery: delivery(job),
        told: 0,
    });
    if tried
        // On a platform that is configured no more it stands for nobody.
        && let Some(there) = cx.chat(&row.platform)
        && let Some(place) = heard(cx, there, there.find_post(&row.channel_id, &row.delivery).await).map_err(|error| keep_on(cx, error))?
    {
        // It shows what was true then: the newest state follows at once.
        row.message = Some(place.message);
        row.posted_version = 0;
        cx.store.did(posted(cx, row)).await?;
        return Ok(Done::Again(cx.clock.now()));
    }
    row.platform.clone_from(&spot.platform);
    row.channel_id.clone_from(&spot.channel_id);
    let made = drawn.unwrap_or_else(|| chat.post_card(&spot.channel_id, card, &row.delivery)).await;
    match heard(cx, chat, made) {
        Ok(place) => {
            row.message = Some(place.message);
            row.posted_version = card.version;
            Ok(Done::Did(posted(cx, row)))
        }
        Err(error) => {
            // A later job of this card has another id: it must look under this one.
            if matches!(error, ChatError::Retry(_) | ChatError::Ambiguous(_)) {
                row.message = None;
                cx.store.did(Did::Card(row)).await?;
            }
            Err(keep_on(cx, error))
        }
    }
}

/// A card that is there and was nowhere before: its thread begins.
fn posted(cx: &Cx, row: CardPost) -> Did {
    let thread = thread_job(row.incident, &row.channel, cx.clock.now());
    Did::Posted(row, Box::new(thread))
}

async fn update(cx: &Cx, chat: &Arc<dyn Chat>, mut row: CardPost, card: &Card, elsewhere: bool) -> Result<Done, JobError> {
    let place = Place { channel: row.channel_id.clone(), message: row.message.clone().unwrap_or_default() };
    match heard(cx, chat, chat.update_card(&place, card).await) {
        Ok(()) => row.posted_version = card.version,
        // Somebody deleted it, or the channel is gone and another one configured: the next attempt posts a new one.
        Err(error) if matches!(error, ChatError::Gone(_)) || (elsewhere && matches!(error, ChatError::Refused(_))) => {
            row.message = None;
            row.delivery = domain::id::uuid_at(cx.clock.now()).simple().to_string();
            cx.store.did(Did::Card(row)).await?;
            return Ok(Done::Again(cx.clock.now()));
        }
        Err(error) => return Err(keep_on(cx, error)),
    }
    Ok(Done::Did(Did::Card(row)))
}

/// Notes whether a platform can be reached, for everything else that waits for it.
pub(super) fn heard<T>(cx: &Cx, chat: &Arc<dyn Chat>, said: Result<T, ChatError>) -> Result<T, ChatError> {
    let reached = !matches!(said, Err(ChatError::Retry(_) | ChatError::Ambiguous(_)));
    cx.wake.pace.heard(chat.platform(), reached, cx.clock.now());
    said
}

/// What a platform's answer means for a job.
pub(super) fn as_job_error(cx: &Cx, error: ChatError) -> JobError {
    match error {
        ChatError::Wait { platform, after } => {
            metrics::counter!("watchkeeper_chat_rate_limited_total", "platform" => platform).increment(1);
            let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::from_secs(60));
            let until = cx.clock.now() + after;
            cx.wake.pace.close(platform, until);
            JobError::RetryAt(until, error.to_string())
        }
        ChatError::Retry(text) | ChatError::Ambiguous(text) | ChatError::Gone(text) => JobError::Retry(text),
        ChatError::Refused(text) => JobError::Fail(text),
    }
}

/// The same for a job that is not given up: what is refused is asked for again.
pub(super) fn keep_on(cx: &Cx, error: ChatError) -> JobError {
    match error {
        ChatError::Refused(text) => JobError::Hold(cx.clock.now() + REFUSED_PAUSE, text),
        error => as_job_error(cx, error),
    }
}
