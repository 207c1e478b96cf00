//! Where an incident's cards are.

use std::cmp::Reverse;

use domain::alert::Alert;
use domain::approval::Approval;
use domain::id::IncidentId;
use domain::incident::Incident;
use domain::run::Run;
use domain::timeline::Entry;

use crate::codec::{clean, from_doc, id};
use crate::tx::{exec_rows, row, rows};
use crate::{Error, Tx};

/// The one message of an incident in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardPost {
    /// The incident.
    pub incident: IncidentId,
    /// The channel's name in the configuration.
    pub channel: String,
    /// The platform.
    pub platform: String,
    /// The channel's id there.
    pub channel_id: String,
    /// The message's id there; `None` before it is known.
    pub message: Option<String>,
    /// The version of the card that it shows.
    pub posted_version: i64,
    /// The key under which it was posted, for platforms that drop repeats.
    pub delivery: String,
    /// The last timeline entry that its thread tells. Moved by [`crate::Did::Told`] alone.
    pub told: i64,
}

/// What a card shows besides itself.
#[derive(Clone, Debug)]
pub struct CardParts {
    /// The incident.
    pub incident: Incident,
    /// Some of its alerts, the active ones first.
    pub alerts: Vec<Alert>,
    /// Its runs, by their rank.
    pub runs: Vec<Run>,
    /// The newest request for approval of the first run.
    pub approval: Option<Approval>,
    /// Where the card is in the channel that was asked for, if it is there.
    pub post: Option<CardPost>,
}

impl CardParts {
    /// Puts them in order, and finds the approval that counts.
    pub fn new(incident: Incident, mut alerts: Vec<Alert>, mut runs: Vec<Run>, approvals: Vec<Approval>, post: Option<CardPost>) -> Self {
        alerts.sort_by(|a, b| {
            (!a.state.is_active(), a.first_seen, &a.fingerprint).cmp(&(!b.state.is_active(), b.first_seen, &b.fingerprint))
        });
        runs.sort_by_key(|run| Reverse(run.rank()));
        let first = runs.first().map(|run| run.id);
        let approval = approvals.into_iter().filter(|one| Some(one.run) == first).max_by_key(|one| (one.created_at, one.id));
        Self { incident, alerts, runs, approval, post }
    }
}

type Row = (String, String, String, String, Option<String>, i64, String, i64);
/// A card, or a timeline entry with its number before it.
type Untold = (i64, String, String, String, Option<String>, i64, String, i64);

impl Tx {
    /// What an incident's card in `channel` shows, with at most so many alerts; `None` if there is no such incident. One query, because cards are
    /// drawn often.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn card_parts(&mut self, id: IncidentId, channel: &str, alerts: i64) -> Result<Option<CardParts>, Error> {
        let found: Vec<Row> = rows!(
            self,
            "select 'incident', doc, '', '', cast(null as text), 0, '', 0 from incidents where id = $1 \
             union all select 'alert', doc, '', '', null, 0, '', 0 from (select doc from alerts where incident = $1 \
             order by case when state = 'resolved' then 1 else 0 end, first_seen, fingerprint limit $2) a \
             union all select 'run', doc, '', '', null, 0, '', 0 from runs where incident = $1 \
             union all select 'approval', a.doc, '', '', null, 0, '', 0 from approvals a join runs r on r.id = a.run_id where r.incident = $1 \
             union all select 'post', channel, platform, channel_id, message, posted_version, delivery, told from cards \
             where incident = $1 and channel = $3",
            id.to_string(),
            alerts,
            clean(channel)
        );
        let (mut incident, mut alerts, mut runs, mut approvals, mut posted) =
            (None::<Incident>, Vec::<Alert>::new(), Vec::<Run>::new(), Vec::<Approval>::new(), None);
        for (kind, doc, platform, channel_id, message, version, delivery, told) in found {
            match kind.as_str() {
                "incident" => incident = Some(from_doc("incidents", id, &doc)?),
                "alert" => alerts.push(from_doc("alerts", id, &doc)?),
                "run" => runs.push(from_doc("runs", id, &doc)?),
                "post" => posted = Some(post((id.to_string(), doc, platform, channel_id, message, version, delivery, told))?),
                _ => approvals.push(from_doc("approvals", id, &doc)?),
            }
        }
        Ok(incident.map(|incident| CardParts::new(incident, alerts, runs, approvals, posted)))
    }

    /// An incident's card in a channel.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn card(&mut self, incident: IncidentId, channel: &str) -> Result<Option<CardPost>, Error> {
        let found = row!(
            self,
            "select incident, channel, platform, channel_id, message, posted_version, delivery, told from cards where incident = $1 and channel = $2",
            incident.to_string(),
            clean(channel)
        );
        found.map(post).transpose()
    }

    /// Stores where a card is and what it shows. What it shows never goes back.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn put_card(&mut self, card: &CardPost) -> Result<(), Error> {
        self.put_cards(&[card]).await
    }

    /// The same for some, of which no two are one.
    pub(crate) async fn put_cards(&mut self, cards: &[&CardPost]) -> Result<(), Error> {
        exec_rows!(
            self,
            "insert into cards (incident, channel, platform, channel_id, message, posted_version, delivery) ",
            cards,
            |b, card| b
                .push_bind(card.incident.to_string())
                .push_bind(clean(&card.channel))
                .push_bind(clean(&card.platform))
                .push_bind(clean(&card.channel_id))
                .push_bind(card.message.as_deref().map(clean))
                .push_bind(card.posted_version)
                .push_bind(clean(&card.delivery)),
            " on conflict (incident, channel) do update set platform = excluded.platform, \
             channel_id = excluded.channel_id, message = excluded.message, delivery = excluded.delivery, \
             posted_version = case when cards.message = excluded.message and cards.posted_version > excluded.posted_version \
             then cards.posted_version else excluded.posted_version end"
        );
        Ok(())
    }

    /// An incident's card in a channel, and the newest entries of the timeline that its thread does not tell yet, oldest first, each with its number.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn untold(
        &mut self,
        incident: IncidentId,
        channel: &str,
        limit: i64,
    ) -> Result<Option<(CardPost, Vec<(i64, Entry)>)>, Error> {
        let found: Vec<Untold> = rows!(
            self,
            "select cast(0 as bigint), channel, platform, channel_id, message, posted_version, delivery, told from cards \
             where incident = $1 and channel = $2 \
             union all select id, doc, '', '', null, 0, '', 0 from (select id, doc from timeline where incident = $1 and id > \
             coalesce((select told from cards where incident = $1 and channel = $2), 0) order by id desc limit $3) t",
            incident.to_string(),
            clean(channel),
            limit
        );
        let (mut card, mut entries) = (None, Vec::new());
        for (number, doc, platform, channel_id, message, version, delivery, told) in found {
            match number {
                0 => card = Some(post((incident.to_string(), doc, platform, channel_id, message, version, delivery, told))?),
                _ => entries.push((number, from_doc("timeline", number, &doc)?)),
            }
        }
        entries.sort_by_key(|(number, _)| *number);
        Ok(card.map(|card| (card, entries)))
    }

    /// All cards of an incident.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn cards_of(&mut self, incident: IncidentId) -> Result<Vec<CardPost>, Error> {
        let found: Vec<Row> = rows!(
            self,
            "select incident, channel, platform, channel_id, message, posted_version, delivery, told from cards where incident = $1 order by channel",
            incident.to_string()
        );
        found.into_iter().map(post).collect()
    }

    /// The card that a message is.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn card_at(&mut self, platform: &str, channel_id: &str, message: &str) -> Result<Option<CardPost>, Error> {
        let found = row!(
            self,
            "select incident, channel, platform, channel_id, message, posted_version, delivery, told from cards \
             where platform = $1 and channel_id = $2 and message = $3 limit 1",
            clean(platform),
            clean(channel_id),
            clean(message)
        );
        found.map(post).transpose()
    }
}

fn post((incident, channel, platform, channel_id, message, posted_version, delivery, told): Row) -> Result<CardPost, Error> {
    Ok(CardPost { incident: id("cards", &incident)?, channel, platform, channel_id, message, posted_version, delivery, told })
}
