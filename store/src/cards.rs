//! Where an incident's cards are.

use domain::id::IncidentId;

use crate::codec::{clean, id};
use crate::tx::{exec, on, row, rows};
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
    /// The last timeline entry that its thread tells. Moved by [`Tx::set_told`] alone.
    pub told: i64,
}

type Row = (String, String, String, String, Option<String>, i64, String, i64);

impl Tx {
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
        exec!(
            self,
            "insert into cards (incident, channel, platform, channel_id, message, posted_version, delivery) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict (incident, channel) do update set platform = excluded.platform, \
             channel_id = excluded.channel_id, message = excluded.message, delivery = excluded.delivery, \
             posted_version = case when cards.message = excluded.message and cards.posted_version > excluded.posted_version \
             then cards.posted_version else excluded.posted_version end",
            card.incident.to_string(),
            clean(&card.channel),
            clean(&card.platform),
            clean(&card.channel_id),
            card.message.as_deref().map(clean),
            card.posted_version,
            clean(&card.delivery)
        );
        Ok(())
    }

    /// Notes that a card's thread tells the timeline up to this entry. It never goes back.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn set_told(&mut self, incident: IncidentId, channel: &str, told: i64) -> Result<(), Error> {
        exec!(
            self,
            "update cards set told = $1 where incident = $2 and channel = $3 and told < $1",
            told,
            incident.to_string(),
            clean(channel)
        );
        Ok(())
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
