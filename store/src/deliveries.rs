//! A delivery as rows: what is new, what is a repeat, and what of it waits to be handled.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use domain::canonical::ContentKey;
use domain::event::{Event, Payload};
use domain::inbox::Accepted;

use crate::at_once::{Asks, Known};
use crate::codec::{from_doc, time};
use crate::open::Core;
use crate::preload::Answer;
use crate::prepared::{Body, Prepared, Row, in_order};
use crate::tx::{Conn, MANY, exec_rows, row, rows, rows_of};
use crate::{Backend, Error, Tx};

/// Among so many waiting rows an earlier one of a chain is looked for, so that a repeat costs no more when very much waits.
const RECENT: i64 = 65_536;

const INSERT_EVENTS: &str = "insert into events (seq, key, delivery_id, source, lane, received_at, payload) ";

/// The values of a row of [`INSERT_EVENTS`]: its number if it has one, its delivery, and what it says.
macro_rules! bind_event {
    ($b:ident, $r:ident) => {
        $b.push_bind($r.0)
            .push_bind(&$r.2.key[..])
            .push_bind((!matches!($r.1.body, Body::None)).then_some(&$r.1.id[..]))
            .push_bind(&$r.1.source)
            .push_bind($r.2.lane)
            .push_bind($r.1.received_at)
            .push_bind($r.2.doc.as_bytes())
    };
}

/// A row on its way into the queue.
struct Pending {
    seq: i64,
    lane: i64,
    chain: i64,
    seen_at: i64,
    seen: i64,
}

/// The last row of a chain: in the database, or among those about to be inserted.
#[derive(Clone, Copy)]
enum Last {
    Stored { id: i64, seq: i64 },
    New(usize),
}

impl Tx {
    /// Stores deliveries and queues their events; or claims them at once, in the order in which they are to be decided, if they are to be decided here, all are
    /// new and nothing waits in the queue. What decisions ask is read on the way. None may be unopened that came before, and these may not be sealed.
    pub(crate) async fn insert_deliveries(
        &mut self,
        batch: &[&Prepared],
        at_once: Option<&Asks>,
    ) -> Result<(Vec<Accepted>, Option<(Vec<Event>, Known)>), Error> {
        let all: Vec<(&Prepared, &Row)> =
            batch.iter().flat_map(|delivery| delivery.rows().iter().map(move |row| (*delivery, row))).collect();
        let (mut fresh, some_wait, known) = self.insert_events(&all, at_once).await?;
        if at_once.is_some() && !some_wait && fresh.len() == all.len() {
            let (accepted, events) = self.claim_fresh(batch, &fresh).await?;
            return Ok((accepted, Some((events, known))));
        }
        let repeated: Vec<&Row> = all.iter().map(|(_, row)| *row).filter(|row| !fresh.contains_key(&row.key)).collect();
        let known = self.seqs(&repeated).await?;
        let mut last = self.chain_ends(&repeated).await?;

        let mut new = Vec::with_capacity(all.len());
        let mut bumps: HashMap<i64, (i64, i64)> = HashMap::new();
        let mut new_evidence = Vec::new();
        let mut seqs_of_fresh = HashMap::new();
        let mut answers = Vec::with_capacity(batch.len());
        for delivery in batch.iter().copied() {
            let (mut seqs, mut repeats) = (Vec::with_capacity(delivery.events()), 0);
            let mut evidence = false;
            for row in delivery.rows() {
                let pending = |seq, seen| Pending { seq, lane: row.lane, chain: row.chain, seen_at: delivery.received_at, seen };
                if let Some(seq) = fresh.remove(&row.key) {
                    seqs_of_fresh.insert(row.key, seq);
                    last.insert(row.chain, Last::New(new.len()));
                    new.push(pending(seq, 1));
                    seqs.push(seq);
                    evidence = true;
                    continue;
                }
                let Some(&seq) = seqs_of_fresh.get(&row.key).or_else(|| known.get(&row.key)) else {
                    return Err(Error::Retry);
                };
                seqs.push(seq);
                repeats += 1;
                if row.person {
                    continue;
                }
                match last.get(&row.chain) {
                    Some(&Last::New(at)) if new[at].seq == seq => {
                        new[at].seen += 1;
                        new[at].seen_at = new[at].seen_at.max(delivery.received_at);
                    }
                    Some(&Last::Stored { id, seq: stored }) if stored == seq => {
                        let (n, at) = bumps.entry(id).or_insert((0, delivery.received_at));
                        *n += 1;
                        *at = (*at).max(delivery.received_at);
                    }
                    _ => {
                        last.insert(row.chain, Last::New(new.len()));
                        new.push(pending(seq, 2));
                    }
                }
            }
            new_evidence.push((delivery, evidence));
            if repeats > 0 {
                self.repeats.push((delivery.source.clone(), repeats));
            }
            answers.push(Accepted { seqs, repeats: Some(repeats) });
        }
        self.insert_pending(&new, bumps).await?;
        self.keep_bodies(&new_evidence).await?;
        Ok((answers, None))
    }

    /// Stores deliveries of which nothing was ever heard as far as this process knows, and claims their events; in the trip to the database that comes next, whatever it
    /// is. If it is otherwise (something of it is a repeat or known by another name for it, or something waits in the queue), that trip is a conflict and nothing lasts.
    /// Nothing is done where that is not likely to be true, or not to save a trip.
    pub(crate) async fn insert_strangers(
        &mut self,
        batch: &[&Prepared],
        asks: &Asks,
    ) -> Result<Option<(Vec<Accepted>, Vec<Event>)>, Error> {
        let rows: Vec<(&Prepared, &Row)> =
            batch.iter().flat_map(|delivery| delivery.rows().iter().map(move |row| (*delivery, row))).collect();
        // Each event about an alert of its own: those are not repeats of each other, and nobody has to be asked about anything else.
        if self.is_postgres()
            || rows.is_empty()
            || rows.len() >= MANY
            || rows.len() != asks.alerts.len()
            || !self.core.met.are_strangers(asks)
        {
            return Ok(None);
        }
        let Conn::Sqlite(tx) = &mut self.conn else { return Ok(None) };
        let Some(later) = tx.later() else { return Ok(None) };
        later.add_none(|sql| asks.push(sql.push("select 1 from queue) or exists (")));
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        // Nobody else writes before this transaction ends; if it does not last, numbers stay unused.
        let first = self.core.last_event.fetch_add(count, Ordering::Relaxed) + 1;
        let numbered: Vec<_> = (first..).zip(rows).map(|(seq, (delivery, row))| (Some(seq), delivery, row)).collect();
        exec_rows!(self, INSERT_EVENTS, numbered, |b, r| bind_event!(b, r), "");
        let fresh = numbered.iter().filter_map(|(seq, _, row)| Some((row.key, (*seq)?))).collect();
        self.claim_fresh(batch, &fresh).await.map(Some)
    }

    /// Claims events that are new, without a way through the queue.
    async fn claim_fresh(&mut self, batch: &[&Prepared], fresh: &HashMap<[u8; 16], i64>) -> Result<(Vec<Accepted>, Vec<Event>), Error> {
        let seq = |row: &Row| fresh.get(&row.key).copied().ok_or(Error::Retry);
        let mut accepted = Vec::with_capacity(batch.len());
        for delivery in batch {
            accepted.push(Accepted { seqs: delivery.rows().iter().map(seq).collect::<Result<_, _>>()?, repeats: Some(0) });
        }
        let mut events = Vec::with_capacity(fresh.len());
        for (delivery, row) in in_order(batch) {
            let seq = seq(row)?;
            debug_assert!(from_doc("events", seq, &row.doc).is_ok_and(|read: Payload| read == row.payload), "{}", row.doc);
            let received_at = time("events", seq, delivery.received_at)?;
            self.claimed.entry(seq).or_default();
            events.push(Event {
                seq,
                key: ContentKey(row.key),
                source: delivery.source.clone(),
                received_at,
                last_seen: received_at,
                seen: 1,
                attempts: 0,
                payload: row.payload.clone(),
            });
        }
        let bodies: Vec<(&Prepared, bool)> = batch.iter().map(|delivery| (*delivery, delivery.events() > 0)).collect();
        self.keep_bodies(&bodies).await?;
        Ok((accepted, events))
    }

    /// Keeps what came as it came, where something in it is new.
    pub(crate) async fn keep_bodies(&mut self, deliveries: &[(&Prepared, bool)]) -> Result<(), Error> {
        let (mut kept, mut let_go) = (Vec::new(), Vec::new());
        for (delivery, new) in deliveries.iter().copied() {
            match &delivery.body {
                Body::New(body) if new => kept.push((delivery, body)),
                Body::Kept if !new => let_go.push(&delivery.id),
                _ => {}
            }
        }
        exec_rows!(
            self,
            "insert into deliveries (id, source, received_at, raw, packed_from) ",
            kept,
            |b, d| b.push_bind(&d.0.id[..]).push_bind(&d.0.source).push_bind(d.0.received_at).push_bind(&d.1.raw[..]).push_bind(d.1.length),
            ""
        );
        exec_rows!(self, "delete from deliveries where id in (", let_go, |b, id| b.push_bind(&id[..]), ")");
        Ok(())
    }

    /// Stores what is new; gives its sequence numbers, whether something waits in the queue, and what was asked. What is known already is left out.
    async fn insert_events(
        &mut self,
        all: &[(&Prepared, &Row)],
        at_once: Option<&Asks>,
    ) -> Result<(HashMap<[u8; 16], i64>, bool, Known), Error> {
        let mut seen = HashSet::with_capacity(all.len());
        let mut numbered: Vec<(Option<i64>, &Prepared, &Row)> =
            all.iter().filter(|(_, row)| seen.insert(row.key)).map(|(delivery, row)| (None, *delivery, *row)).collect();
        if self.is_postgres() && !numbered.is_empty() {
            // Replicas that accept the same alerts wait for each other's keys: taking them in one order avoids deadlocks. The numbers
            // are drawn first, so that they follow the deliveries' order.
            let count = i64::try_from(numbered.len()).unwrap_or(i64::MAX);
            let numbers: Vec<(i64,)> =
                rows!(self, "select nextval(pg_get_serial_sequence('events', 'seq')) from generate_series(1, $1)", count);
            for (row, (number,)) in numbered.iter_mut().zip(numbers) {
                row.0 = Some(number);
            }
            numbered.sort_unstable_by_key(|(_, _, row)| row.key);
        }
        let mut known = Known::default();
        match at_once {
            Some(asks) if numbered.len() < MANY && self.ask_later(asks) => {}
            Some(asks) => known = self.known(asks).await?,
            None => {}
        }
        let some_wait = if at_once.is_some() { "exists (select 1 from queue)" } else { "false" };
        let answers: Vec<Answer> = rows_of!(
            self,
            INSERT_EVENTS,
            numbered,
            |b, r| bind_event!(b, r),
            format!(" on conflict (key) do nothing returning key, seq, {some_wait}")
        );
        let (mut stored, mut found, mut waits) = (Vec::with_capacity(answers.len()), Vec::new(), false);
        for answer in answers {
            match answer {
                Answer::Stored(key, seq, some_wait) => {
                    stored.push((key, seq));
                    waits |= some_wait;
                }
                Answer::Found(row) => found.push(row),
            }
        }
        if !found.is_empty() {
            known = Known::read(found)?;
        }
        let last = stored.iter().map(|(_, seq)| *seq).max();
        self.core.last_event.fetch_max(last.unwrap_or_default(), Ordering::Relaxed);
        Ok((by_key(stored), waits, known))
    }

    async fn seqs(&mut self, rows: &[&Row]) -> Result<HashMap<[u8; 16], i64>, Error> {
        let mut keys: Vec<[u8; 16]> = rows.iter().map(|row| row.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let found: Vec<(Vec<u8>, i64)> =
            rows_of!(self, "select key, seq from events where key in (", keys, |b, key| b.push_bind(&key[..]), ")");
        Ok(by_key(found))
    }

    /// The last waiting row of each chain, as far as it is among the newest [`RECENT`]. On PostgreSQL a row that somebody has claimed does not
    /// count: what it will become is not seen yet. One that is missed makes a row too many, which costs a little work.
    async fn chain_ends(&mut self, rows: &[&Row]) -> Result<HashMap<i64, Last>, Error> {
        let chains: BTreeSet<(i64, i64)> = rows.iter().filter(|row| !row.person).map(|row| (row.lane, row.chain)).collect();
        let chains: Vec<(i64, i64)> = chains.into_iter().collect();
        let lock = self.lock(" for update of q skip locked");
        let found: Vec<(i64, i64, i64)> = rows_of!(
            self,
            "select q.chain, q.id, q.event_seq from queue q join (select max(w.id) as id from (",
            chains,
            |b, chain| b.push_bind(chain.0).push_bind(chain.1),
            format!(
                ") k join queue w on w.lane = k.column1 and w.chain = k.column2 and w.id > (select max(id) from queue) - {RECENT} \
                 group by w.chain) l on q.id = l.id{lock}"
            )
        );
        Ok(found.into_iter().map(|(chain, id, seq)| (chain, Last::Stored { id, seq })).collect())
    }

    async fn insert_pending(&mut self, new: &[Pending], bumps: HashMap<i64, (i64, i64)>) -> Result<(), Error> {
        exec_rows!(
            self,
            "insert into queue (event_seq, lane, chain, seen_at, seen) ",
            new,
            |b, p| b.push_bind(p.seq).push_bind(p.lane).push_bind(p.chain).push_bind(p.seen_at).push_bind(p.seen),
            ""
        );
        let bumps: Vec<(i64, i64, i64)> = bumps.into_iter().map(|(id, (n, at))| (id, n, at)).collect();
        exec_rows!(
            self,
            "update queue set seen = queue.seen + v.column2, \
             seen_at = case when v.column3 > queue.seen_at then v.column3 else queue.seen_at end from (",
            bumps,
            |b, bump| b.push_bind(bump.0).push_bind(bump.1).push_bind(bump.2),
            ") as v where queue.id = v.column1"
        );
        Ok(())
    }
}

impl Core {
    /// Where an earlier start ended.
    pub(crate) async fn look_for_last_event(self: &Arc<Self>) -> Result<(), Error> {
        if self.backend() == Backend::Sqlite {
            let mut tx = self.read().await?;
            let last: Option<(i64,)> = row!(tx, "select seq from sqlite_sequence where name = 'events'");
            self.last_event.fetch_max(last.map_or(0, |(seq,)| seq), Ordering::Relaxed);
        }
        Ok(())
    }
}

fn by_key(rows: Vec<(Vec<u8>, i64)>) -> HashMap<[u8; 16], i64> {
    rows.into_iter().filter_map(|(key, seq)| Some((key.try_into().ok()?, seq))).collect()
}
