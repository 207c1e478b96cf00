//! The queue behind the inbox: claiming events, finishing them, and what happens to those that fail.

use domain::act::ActOutcome;
use domain::canonical::ContentKey;
use domain::event::{Event, EventClass};
use jiff::{SignedDuration, Timestamp};

use crate::codec::{corrupt, from_doc, micros, micros_after, time, to_doc};
use crate::gate::Line;
use crate::tx::{exec, exec_rows, on, row, rows, rows_built};
use crate::{Change, Error, Store, Tx};

/// An event that failed this often goes to the dead letters.
const ATTEMPTS: i64 = 5;
/// The first lane of people's acts.
pub(crate) const PEOPLE: i64 = EventClass::LANES as i64;
/// On PostgreSQL a claim takes at most this many lanes, so that the others find some too.
const LANES_AT_ONCE: i64 = 16;

/// Of queue rows `q` those that nothing holds back: no row of their chain waits for a retry later than the time that follows.
const READY: &str = "q.chain not in (select r.chain from queue r where r.not_before > 0 and r.not_before >";

/// An event that failed too often, kept for people to look at and to replay.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The event.
    pub seq: i64,
    /// Where it came from.
    pub source: String,
    /// What it says, as JSON. Untrusted.
    pub payload: String,
    /// How it failed the last time.
    pub error: String,
    /// When.
    pub at: Timestamp,
}

/// A queue row with its event, as read.
type Claimed = (i64, i64, i64, i64, i64, Vec<u8>, String, i64, Vec<u8>);

impl Tx {
    /// Takes waiting events: people's first, in order within each lane. An event that waits for its retry holds back what was heard later under
    /// its order key, and nothing else. On PostgreSQL a lane that another process has claimed is left alone. The claim lasts as long as this
    /// transaction.
    ///
    /// The same event can come twice, where it was heard again after something else of its order key.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn claim_events(&mut self, limit: i64) -> Result<Vec<Event>, Error> {
        let now = micros(self.core.clock.now());
        let claimed = if self.is_postgres() { self.lanes_waiting(now, limit).await? } else { self.all_waiting(now, limit).await? };
        let mut events = Vec::with_capacity(claimed.len());
        for row in claimed {
            let (id, seq) = (row.0, row.4);
            match event(row) {
                Ok(event) => {
                    self.claimed.entry(seq).or_default().push_back(id);
                    events.push(event);
                }
                // What comes after it must go on.
                Err(error) => self.bury_event(id, seq, &error.to_string(), self.core.clock.now()).await?,
            }
        }
        Ok(events)
    }

    /// Some that were stored in this transaction were not decided in it: whoever decides will hear of them.
    pub fn events_wait(&mut self) {
        self.changed(Change::Events);
    }

    /// The first rows, where nobody else claims any.
    async fn all_waiting(&mut self, now: i64, limit: i64) -> Result<Vec<Claimed>, Error> {
        // The signs say which way to read: people's rows are few, so by lane; machines' may be very many, so in order until it is enough.
        Ok(rows_built!(self, |sql| {
            sql.push(
                "select q.id, q.seen_at, q.seen, q.attempts, e.seq, e.key, e.source, e.received_at, e.payload from ( \
                 select * from (select * from queue q where ",
            );
            sql.push(READY).push_bind(now).push(format!(") and q.lane >= {PEOPLE} order by +q.id limit ")).push_bind(limit);
            sql.push(") union all select * from (select * from queue q where ");
            sql.push(READY).push_bind(now).push(format!(") and +q.lane < {PEOPLE} order by q.id limit ")).push_bind(limit);
            sql.push(format!(")) q join events e on e.seq = q.event_seq order by q.lane < {PEOPLE}, q.id limit ")).push_bind(limit);
        }))
    }

    /// The first rows of lanes that nobody else has claimed.
    async fn lanes_waiting(&mut self, now: i64, limit: i64) -> Result<Vec<Claimed>, Error> {
        let lanes_at_once = limit.clamp(1, LANES_AT_ONCE);
        let lock = self.lock(" for update of l skip locked");
        let sql = format!(
            "select l.lane from lanes l join queue h on h.id = \
             (select q.id from queue q where q.lane = l.lane and {READY} $1) order by q.id limit 1) \
             order by case when l.lane >= {PEOPLE} then 0 else 1 end, h.id limit $2{lock}"
        );
        let lanes: Vec<(i64,)> = rows!(self, sqlx::AssertSqlSafe(sql.as_str()), now, lanes_at_once);
        let (people, machines): (Vec<i64>, Vec<i64>) = lanes.into_iter().map(|(lane,)| lane).partition(|lane| *lane >= PEOPLE);

        let mut claimed = self.waiting(now, &people, limit).await?;
        let rest = limit - i64::try_from(claimed.len()).unwrap_or(limit);
        if rest > 0 {
            claimed.extend(self.waiting(now, &machines, rest).await?);
        }
        Ok(claimed)
    }

    /// The first rows of these lanes, which are at most 128.
    async fn waiting(&mut self, now: i64, lanes: &[i64], limit: i64) -> Result<Vec<Claimed>, Error> {
        if lanes.is_empty() {
            return Ok(Vec::new());
        }
        let lock = self.lock(" for update");
        let head = format!(
            "select q.id, q.seen_at, q.seen, q.attempts, e.seq, e.key, e.source, e.received_at, e.payload \
             from (select * from queue q where {READY} "
        );
        let tail = format!("{lock}) q join events e on e.seq = q.event_seq order by q.id");
        on!(self, conn => {
            let mut sql = sqlx::QueryBuilder::new(head);
            sql.push_bind(now);
            sql.push(") and q.lane in (").push_values(lanes, |mut b, lane| { b.push_bind(lane); });
            sql.push(") order by q.id limit ").push_bind(limit).push(tail).build_query_as().fetch_all(conn).await
        })
    }

    /// These claimed events were handled. An act's outcome is kept, and told to whoever waits for it.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn finish_events(&mut self, finished: &[(i64, Option<ActOutcome>)]) -> Result<(), Error> {
        let mut ids = Vec::with_capacity(finished.len());
        let mut outcomes = Vec::new();
        for (seq, outcome) in finished {
            // One that never was in the queue has no row there.
            ids.extend(self.claimed.get_mut(seq).ok_or(Error::Conflict)?.pop_front());
            if let Some(outcome) = outcome {
                outcomes.push((*seq, to_doc(outcome)?));
            }
        }
        exec_rows!(self, "delete from queue where id in (", ids, |b, id| b.push_bind(id), ")");
        exec_rows!(
            self,
            "insert into outcomes (event_seq, outcome) ",
            outcomes,
            |b, o| b.push_bind(o.0).push_bind(&o.1),
            " on conflict (event_seq) do update set outcome = excluded.outcome"
        );
        for (seq, _) in outcomes {
            self.changed(Change::Outcome(seq));
        }
        Ok(())
    }

    /// What became of an act, if that is known.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn outcome(&mut self, seq: i64) -> Result<Option<ActOutcome>, Error> {
        let found: Option<(String,)> = row!(self, "select outcome from outcomes where event_seq = $1", seq);
        found.map(|(doc,)| from_doc("outcomes", seq, &doc)).transpose()
    }

    /// When the newest event was heard, by the clock as it was then.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn last_heard(&mut self) -> Result<Option<Timestamp>, Error> {
        let found: Option<(i64, i64)> = row!(self, "select seq, received_at from events order by seq desc limit 1");
        found.map(|(seq, at)| time("events", seq, at)).transpose()
    }

    /// Everything that was ever heard after `after_seq`, in the order in which it came: for replay.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn events_since(&mut self, after_seq: i64, limit: i64) -> Result<Vec<Event>, Error> {
        let found: Vec<Claimed> = rows!(
            self,
            "select seq, received_at, cast(1 as bigint), cast(0 as bigint), seq, key, source, received_at, payload \
             from events where seq > $1 order by seq limit $2",
            after_seq,
            limit
        );
        found.into_iter().map(event).collect()
    }

    /// What failed too often, newest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn dead_letters(&mut self, limit: i64) -> Result<Vec<DeadLetter>, Error> {
        let found: Vec<(i64, String, Vec<u8>, String, i64)> = rows!(
            self,
            "select e.seq, e.source, e.payload, d.error, d.at from dead_letters d join events e on e.seq = d.event_seq \
             order by d.at desc, e.seq desc limit $1",
            limit
        );
        let letter = |(seq, source, payload, error, at): (i64, String, Vec<u8>, String, i64)| {
            let payload = String::from_utf8_lossy(&payload).into_owned();
            Ok(DeadLetter { seq, source, payload, error, at: time("dead_letters", seq, at)? })
        };
        found.into_iter().map(letter).collect()
    }

    /// Queues a dead letter again. False if there is none for this event.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn replay_dead_letter(&mut self, seq: i64) -> Result<bool, Error> {
        let now = micros(self.core.clock.now());
        // Whoever takes it away is the one who queues it.
        let letter: Option<(i64, i64)> = row!(self, "delete from dead_letters where event_seq = $1 returning lane, chain", seq);
        let Some((lane, chain)) = letter else { return Ok(false) };
        exec!(self, "insert into queue (event_seq, lane, chain, seen_at, seen) values ($1, $2, $3, $4, 1)", seq, lane, chain, now);
        self.changed(Change::Events);
        Ok(true)
    }

    async fn bury_event(&mut self, id: i64, seq: i64, why: &str, at: Timestamp) -> Result<(), Error> {
        exec!(
            self,
            "insert into dead_letters (event_seq, lane, chain, error, at) select q.event_seq, q.lane, q.chain, $1, $2 from queue q \
             where q.id = $3 on conflict (event_seq) do update set error = excluded.error, at = excluded.at",
            crate::codec::clean(why),
            micros(at),
            id
        );
        exec!(self, "delete from queue where id = $1", id);
        metrics::counter!("watchkeeper_dead_letters_total").increment(1);
        tracing::error!(event.id = seq, error = why, "an event failed too often and went to the dead letters");
        Ok(())
    }
}

impl Store {
    /// A claimed event could not be handled; its claim's transaction was dropped. It is tried again later, what came after it under its
    /// order key waiting for it, and at the fifth time goes to the dead letters: then this returns true.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn fail_event(&self, seq: i64, error: &str, now: Timestamp) -> Result<bool, Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let lock = tx.lock(" for update");
        let sql = format!(
            "select id, attempts from queue where lane = (select e.lane from events e where e.seq = $1) and event_seq = $1 \
             order by id limit 1{lock}"
        );
        let Some((id, attempts)): Option<(i64, i64)> = row!(tx, sqlx::AssertSqlSafe(sql.as_str()), seq) else {
            return Ok(false);
        };
        let attempts = attempts + 1;
        let dead = attempts >= ATTEMPTS;
        if dead {
            tx.bury_event(id, seq, error, now).await?;
        } else {
            // 1, 4, 16, 64 seconds.
            let pause = SignedDuration::from_secs(1 << (2 * (attempts - 1)));
            exec!(tx, "update queue set attempts = $1, not_before = $2 where id = $3", attempts, micros_after(now, pause), id);
        }
        tx.changed(Change::Events);
        tx.commit().await?;
        Ok(dead)
    }
}

fn event(row: Claimed) -> Result<Event, Error> {
    let (_, seen_at, seen, attempts, seq, key, source, received_at, payload) = row;
    let key = key.try_into().map_err(|_| corrupt("events", seq, "its key is not 16 bytes"))?;
    Ok(Event {
        seq,
        key: ContentKey(key),
        source,
        received_at: time("events", seq, received_at)?,
        last_seen: time("queue", seq, seen_at)?,
        seen,
        attempts,
        payload: serde_json::from_slice(&payload).map_err(|error| corrupt("events", seq, error))?,
    })
}
