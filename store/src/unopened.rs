//! Sealed deliveries: stored as they came and opened when it is their turn.
//!
//! On SQLite, where one connection writes, a row per event (and the index in which its key is looked up) costs far more than the bytes. While events come faster
//! than they are decided, a delivery is therefore its body alone, and becomes events in the transaction that decides them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::event::Event;
use domain::inbox::{Accepted, Opener};

use crate::at_once::Asks;
use crate::codec::time;
use crate::gate::Line;
use crate::open::Core;
use crate::packed::unpack;
use crate::prepared::{Body, Content, Prepared, Row};
use crate::tx::{exec, exec_rows, rows};
use crate::{Backend, Error, Store, Tx};

/// What is shown of a body that cannot be opened, in bytes. All of it stays with the deliveries.
const SAMPLE: usize = 64 * 1024;

/// Bodies of more bytes than these are not opened together: the one writer waits meanwhile, and memory holds what they say.
const MOST_AT_ONCE: i64 = 4 * 1024 * 1024;

/// More bytes than these are read off the threads that serve everybody: about a millisecond of work.
const LONG: usize = 256 * 1024;

/// Who opens deliveries, and which are not opened.
#[derive(Default)]
pub(crate) struct Unopened(Mutex<State>);

#[derive(Default)]
struct State {
    opener: Option<Arc<dyn Opener>>,
    /// Counts transactions that stored some.
    stored: u64,
    /// The sources that some may be from.
    sources: BTreeSet<String>,
}

impl Unopened {
    pub(crate) fn opener(&self) -> Option<Arc<dyn Opener>> {
        self.state().opener.clone()
    }

    /// Whether there are certainly none. Within a writing transaction that stays so until its end.
    pub(crate) fn is_none(&self) -> bool {
        self.state().sources.is_empty()
    }

    /// Whether some may be from one of these sources.
    fn may_be_of<'a>(&self, mut sources: impl Iterator<Item = &'a str>) -> bool {
        let state = self.state();
        sources.any(|source| state.sources.contains(source))
    }

    /// A transaction stores these.
    fn leave(&self, deliveries: &[&Prepared]) {
        let mut state = self.state();
        state.stored += 1;
        for delivery in deliveries {
            if !state.sources.contains(&delivery.source) {
                state.sources.insert(delivery.source.clone());
            }
        }
    }

    /// A transaction lasts that found none when so many had stored some, and with it whatever took the last of them away before.
    pub(crate) fn found_none(&self, stored: u64) {
        let mut state = self.state();
        if state.stored == stored {
            state.sources.clear();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Unopened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Unopened").field(&self.state().sources).finish()
    }
}

/// A delivery that is not opened, as read: its body's id, source, kind, sender's id, time, and the body with its length if it is packed.
type Left = (Vec<u8>, String, String, Option<String>, i64, Option<Vec<u8>>, Option<i64>);

impl Store {
    /// From now on sealed deliveries are wanted where they cannot be decided at once, for [`Tx::open_deliveries`]. On SQLite alone; on PostgreSQL, where many
    /// write at once, all are opened as they come.
    pub fn open_with(&self, opener: Arc<dyn Opener>) {
        if self.backend() == Backend::Sqlite {
            self.core.unopened.state().opener = Some(opener);
        }
    }

    /// Opens deliveries into the queue, at least so many events of them if there are as many, and decides nothing: for when deciding fails.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn queue_unopened(&self, limit: i64) -> Result<(), Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        tx.open_into_queue(limit).await?;
        tx.commit().await
    }
}

impl Core {
    /// Whether an earlier start left some.
    pub(crate) async fn look_for_unopened(self: &Arc<Self>) -> Result<(), Error> {
        let mut tx = self.read().await?;
        let sources: Vec<(String,)> = rows!(tx, "select distinct source from unopened");
        self.unopened.state().sources.extend(sources.into_iter().map(|(source,)| source));
        Ok(())
    }
}

impl Tx {
    /// Stores deliveries: sealed ones as they are, the events of the others in the queue.
    pub(crate) async fn store_deliveries(&mut self, batch: &[&Prepared]) -> Result<Vec<Accepted>, Error> {
        let mut answers = Vec::with_capacity(batch.len());
        // In runs of one kind, so that each is stored after what came before it.
        for part in batch.chunk_by(|a, b| a.is_sealed() == b.is_sealed()) {
            if part.iter().any(|delivery| delivery.is_sealed()) {
                self.leave_unopened(part).await?;
                answers.extend(part.iter().map(|_| Accepted { seqs: Vec::new(), repeats: None }));
                continue;
            }
            if self.core.unopened.may_be_of(part.iter().map(|delivery| delivery.source.as_str())) {
                // What came before is decided before.
                self.open_into_queue(i64::MAX).await?;
            }
            answers.extend(self.insert_deliveries(part, None).await?.0);
        }
        Ok(answers)
    }

    async fn leave_unopened(&mut self, deliveries: &[&Prepared]) -> Result<(), Error> {
        self.core.unopened.leave(deliveries);
        let bodies: Vec<_> = deliveries.iter().map(|delivery| (*delivery, true)).collect();
        self.keep_bodies(&bodies).await?;
        let sealed = deliveries.iter().filter_map(|delivery| match &delivery.content {
            Content::Sealed { events, kind, id } => Some((*delivery, i64::try_from(*events).unwrap_or(i64::MAX), *kind, id)),
            Content::Rows(_) => None,
        });
        let sealed: Vec<_> = sealed.collect();
        exec_rows!(
            self,
            "insert into unopened (delivery_id, source, received_at, events, kind, sender_id) ",
            sealed,
            |b, s| b.push_bind(&s.0.id[..]).push_bind(&s.0.source).push_bind(s.0.received_at).push_bind(s.1).push_bind(s.2).push_bind(s.3),
            ""
        );
        Ok(())
    }

    /// Opens deliveries that were left so, and claims what they hold: about `limit` events, as [`Tx::claim_events`], which comes first, because what waits in the
    /// queue is older.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn open_deliveries(&mut self, limit: i64) -> Result<Vec<Event>, Error> {
        let deliveries = self.take_unopened(limit).await?;
        if deliveries.is_empty() {
            return Ok(Vec::new());
        }
        // One delivery alone may be larger than what is decided at once.
        let events: usize = deliveries.iter().map(Prepared::events).sum();
        let at_once = i64::try_from(events).is_ok_and(|events| events <= limit.saturating_mul(2));
        let asks = at_once.then(Asks::default);
        let (_, claimed) = self.insert_deliveries(&deliveries.iter().collect::<Vec<_>>(), asks.as_ref()).await?;
        match claimed {
            Some((events, _)) => Ok(events),
            None => self.claim_events(limit).await,
        }
    }

    /// As [`Tx::open_deliveries`], and claims nothing.
    async fn open_into_queue(&mut self, limit: i64) -> Result<(), Error> {
        let deliveries = self.take_unopened(limit).await?;
        self.insert_deliveries(&deliveries.iter().collect::<Vec<_>>(), None).await?;
        self.events_wait();
        Ok(())
    }

    /// Takes the first ones away, of `limit` events or few more.
    async fn take_unopened(&mut self, limit: i64) -> Result<Vec<Prepared>, Error> {
        let Some(opener) = self.core.unopened.opener().filter(|_| !self.core.unopened.is_none()) else {
            return Ok(Vec::new());
        };
        let stored = self.core.unopened.state().stored;
        let first: Vec<(i64, i64, i64)> = rows!(
            self,
            "select u.id, u.events, coalesce(d.packed_from, length(d.raw), 0) from unopened u left join deliveries d on d.id = u.delivery_id \
             order by u.id limit $1",
            limit
        );
        let (mut last, mut events, mut bytes) = (None, 0_i64, 0_i64);
        for (id, held, length) in first {
            (events, bytes) = (events.saturating_add(held), bytes.saturating_add(length));
            if last.is_some() && (events > limit || bytes > MOST_AT_ONCE) {
                break;
            }
            last = Some(id);
        }
        let Some(last) = last else {
            self.found_none = Some(stored);
            return Ok(Vec::new());
        };
        let found: Vec<Left> = rows!(
            self,
            "select u.delivery_id, u.source, u.kind, u.sender_id, u.received_at, d.raw, d.packed_from \
             from unopened u left join deliveries d on d.id = u.delivery_id where u.id <= $1 order by u.id",
            last
        );
        exec!(self, "delete from unopened where id <= $1", last);
        // What was packed is several times as long, and nobody knows how many before it is looked at.
        let bytes: usize = found.iter().map(|(.., raw, packed)| raw.as_ref().map_or(0, Vec::len) * packed.map_or(1, |_| 8)).sum();
        let read = move || found.into_iter().map(|left| (opened(&*opener, &left), left)).collect::<Vec<_>>();
        let read = if bytes <= LONG {
            read()
        } else {
            tokio::task::spawn_blocking(read)
                .await
                .map_err(|error| Error::Unavailable(format!("deliveries could not be opened: {error}")))?
        };
        let mut deliveries = Vec::with_capacity(read.len());
        for (opened, (_, source, _, _, at, raw, length)) in read {
            match opened {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => {
                    metrics::counter!("watchkeeper_dead_letters_total").increment(1);
                    tracing::error!(
                        source,
                        error,
                        "a stored delivery cannot be opened: its body is kept with those that could not be read"
                    );
                    let at = time("unopened", &source, at).unwrap_or_else(|_| self.core.clock.now());
                    let raw = raw.unwrap_or_default();
                    let body = unpack(&raw, length).unwrap_or(Cow::Borrowed(&raw));
                    self.keep_sample(&source, at, &body[..body.len().min(SAMPLE)], &format!("cannot be opened: {error}")).await?;
                }
            }
        }
        Ok(deliveries)
    }
}

/// What a sealed delivery holds, or why nobody can tell.
fn opened(opener: &dyn Opener, (id, source, kind, sender_id, at, raw, length): &Left) -> Result<Prepared, String> {
    let body = unpack(raw.as_ref().ok_or("its body is gone")?, *length)?;
    let received_at = time("unopened", source, *at).map_err(|error| error.to_string())?;
    let name = sender_id.clone().unwrap_or_else(|| hex::encode(id));
    // Whoever brought it has read it without harm, in this version or an earlier one.
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| opener.open(source, kind, &name, received_at, &body)));
    let events = read.unwrap_or_else(|_| Err("the parser failed".to_owned()))?;
    let rows = events.into_iter().map(Row::new).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    Ok(Prepared { id: id.clone(), source: source.clone(), received_at: *at, body: Body::Kept, content: Content::Rows(rows) })
}
