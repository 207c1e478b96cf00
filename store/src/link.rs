//! How replicas over one PostgreSQL hear of each other: LISTEN/NOTIFY, the shared clock, which host takes writes, and which names are in use.
//!
//! A notification is a hint: nothing depends on its coming. It is sent after the commit, by a connection of its own, because a transaction
//! that notifies holds a lock that all such transactions share.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::id::{IncidentId, RunId};
use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::{SERVER_NOW, ServerClock};
use crate::postgres::Server;
use crate::screens::Screens;
use crate::{Change, Error, relay};

const CHANNEL: &str = "watchkeeper";
/// Changes within this time travel together.
const GATHER: Duration = Duration::from_millis(3);
/// PostgreSQL carries less than 8000 bytes at once.
const MOST_BYTES: usize = 7_000;
/// After so much silence the server is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Between attempts to connect.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the end of an earlier process of our name is waited for: its connections close with it.
const PREDECESSOR: Duration = Duration::from_secs(1);

/// The tasks that listen and tell. They end with this value.
#[derive(Debug)]
pub(crate) struct Link {
    out: mpsc::UnboundedSender<Told>,
    me: String,
    tasks: [JoinHandle<()>; 3],
}

/// What other replicas are told.
#[derive(Debug)]
pub(crate) enum Told {
    /// What changed.
    Changes(Vec<Change>),
    /// A word about what commands print.
    Printed(String),
}

/// What the tasks work with. Not the store itself: that ends when nobody uses it any more, and they with it.
pub(crate) struct Ends {
    pub(crate) server: Arc<Server>,
    pub(crate) clock: Option<Arc<ServerClock>>,
    pub(crate) changes: broadcast::Sender<Change>,
    pub(crate) screens: Arc<Screens>,
    pub(crate) instance: String,
    pub(crate) start: String,
}

/// A connection that listens.
pub(crate) struct Ear {
    listener: PgListener,
    /// Whether no other living process has our name.
    pub(crate) alone: bool,
}

impl Ear {
    /// Connects, listens and takes our name.
    pub(crate) async fn open(options: &PgConnectOptions, instance: &str, patience: Duration) -> Result<Self, Error> {
        // A pool of its own: a connection that hangs must not keep the next one waiting.
        let pool = crate::open::pool().max_connections(1).acquire_timeout(ANSWER).connect_lazy_with(options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen_all([CHANNEL, relay::CHANNEL]).await?;
        let (began, mut ear) = (Instant::now(), Self { listener, alone: false });
        while !ear.take_name(instance).await? && began.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(ear)
    }

    /// Takes our name, if nobody who lives has it; whoever comes by this name finds it taken as long as this connection lasts.
    async fn take_name(&mut self, instance: &str) -> Result<bool, Error> {
        let taken = sqlx::query_as("select pg_try_advisory_lock(hashtextextended('watchkeeper/instance/' || $1, 0))").bind(instance);
        (self.alone,) = taken.fetch_one(&mut self.listener).await?;
        Ok(self.alone)
    }

    /// The first one of a process: somebody who was killed a moment ago may still be connected.
    pub(crate) async fn first(options: &PgConnectOptions, instance: &str) -> Result<Self, Error> {
        let ear = Self::open(options, instance, PREDECESSOR).await?;
        if !ear.alone {
            tracing::warn!(
                name = instance,
                "another server of this name is connected: give each its own `server.name`, the same after a restart; until then what an earlier \
                 start of this one left is free only when its lease ends"
            );
        }
        Ok(ear)
    }

    /// The server's clock.
    pub(crate) async fn clock(&mut self) -> Result<ServerClock, Error> {
        let asked = Instant::now();
        let (micros,): (i64,) = sqlx::query_as(SERVER_NOW).fetch_one(&mut self.listener).await?;
        ServerClock::heard(asked, micros)
    }

    /// Hears until the connection is lost.
    async fn listen(&mut self, ends: &Ends, out: &mpsc::UnboundedSender<Told>) -> Result<(), Error> {
        let mut asked = None;
        loop {
            if asked.is_none_or(|at: Instant| at.elapsed() >= SILENCE) {
                asked = Some(Instant::now());
                self.ask(ends).await?;
            }
            match tokio::time::timeout(SILENCE, self.listener.try_recv()).await {
                Ok(Ok(Some(told))) if told.channel() == relay::CHANNEL => {
                    let answer = relay::hear(&ends.screens, &ends.changes, told.payload(), &ends.start);
                    // After the end nobody needs to hear.
                    let _ = answer.map(|text| out.send(Told::Printed(text)));
                }
                Ok(Ok(Some(told))) => {
                    for change in read(told.payload(), &ends.start) {
                        // Nobody listening is no failure.
                        let _ = ends.changes.send(change);
                    }
                }
                Ok(Ok(None)) => return Err(Error::Unavailable("the connection was lost".to_owned())),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
    }

    /// Whether the server is there, still takes writes, what time it is, and which version its tables have. A name that was still taken, by a connection of
    /// ours that the server does not know to be lost, is asked for again.
    async fn ask(&mut self, ends: &Ends) -> Result<(), Error> {
        let sql = format!("select ({SERVER_NOW}), pg_is_in_recovery(), (select max(version) from _sqlx_migrations where success)");
        let asked = Instant::now();
        let answer = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_one(&mut self.listener);
        let Ok(answer) = tokio::time::timeout(ANSWER, answer).await else {
            return Err(Error::Unavailable(format!("no answer within {ANSWER:?}")));
        };
        let (micros, standby, version): (i64, bool, i64) = answer?;
        if standby {
            return Err(Error::Unavailable("the server is a standby now".to_owned()));
        }
        if let Some(clock) = &ends.clock {
            clock.hear(asked, micros)?;
        }
        ends.server.seen_version(version);
        if !self.alone {
            let Ok(taken) = tokio::time::timeout(ANSWER, self.take_name(&ends.instance)).await else {
                return Err(Error::Unavailable(format!("no answer within {ANSWER:?}")));
            };
            taken?;
        }
        Ok(())
    }
}

impl Link {
    pub(crate) fn start(ends: Ends, ear: Ear, host: PgConnectOptions) -> Self {
        let (out, changes) = mpsc::unbounded_channel();
        let (moved, hosts) = watch::channel(host);
        let me = ends.start.clone();
        let telling = tokio::spawn(tell(changes, hosts, me.clone()));
        let showing = tokio::spawn(relay::tell(Arc::clone(&ends.screens), out.clone(), me.clone()));
        let listening = tokio::spawn(follow(ends, ear, moved, out.clone()));
        Self { out, me, tasks: [listening, telling, showing] }
    }

    /// Tells the other replicas.
    pub(crate) fn tell(&self, changes: Vec<Change>) {
        // After the end nobody needs to hear.
        let _ = self.out.send(Told::Changes(changes));
    }

    /// Asks the other replicas to tell what this run prints.
    pub(crate) fn ask_for(&self, run: RunId) {
        let _ = relay::wanted(run, &self.me).map(|text| self.out.send(Told::Printed(text)));
    }

    /// Tells the other replicas that this run prints here.
    pub(crate) fn prints(&self, run: RunId) {
        let _ = relay::prints(run, &self.me).map(|text| self.out.send(Told::Printed(text)));
    }

    /// Stops listening and telling.
    pub(crate) fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Listens, and when the connection is lost finds the host that takes writes and listens there.
async fn follow(ends: Ends, mut ear: Ear, moved: watch::Sender<PgConnectOptions>, out: mpsc::UnboundedSender<Told>) {
    loop {
        if let Err(error) = ear.listen(&ends, &out).await {
            tracing::warn!(%error, "the database is lost; connecting again");
        }
        drop(ear);
        ear = loop {
            let again = async {
                let host = ends.server.follow().await?;
                let ear = Ear::open(&host, &ends.instance, Duration::ZERO).await?;
                Ok::<_, Error>((ear, host))
            };
            match again.await {
                Ok((ear, host)) => {
                    tracing::info!(host = host.get_host(), port = host.get_port(), "the database is there again");
                    let _ = moved.send(host);
                    break ear;
                }
                Err(error) => tracing::debug!(%error, "the database is still away"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        // What was told meanwhile was missed.
        for change in [Change::Missed, Change::Events, Change::Jobs] {
            let _ = ends.changes.send(change);
        }
    }
}

/// Sends what changed here. What cannot be sent is forgotten: the others look now and then by themselves.
async fn tell(mut changes: mpsc::UnboundedReceiver<Told>, mut hosts: watch::Receiver<PgConnectOptions>, me: String) {
    let mut conn: Option<PgConnection> = None;
    let mut batch = Vec::new();
    while changes.recv_many(&mut batch, 1024).await > 0 {
        tokio::time::sleep(GATHER).await;
        while let Ok(more) = changes.try_recv() {
            batch.push(more);
        }
        let (mut all, mut printed) = (HashSet::new(), Vec::new());
        for told in batch.drain(..) {
            match told {
                Told::Changes(changes) => all.extend(changes),
                Told::Printed(text) => printed.push(text),
            }
        }
        let changed = if all.is_empty() { Vec::new() } else { written(&all, &me) };
        if hosts.has_changed().unwrap_or(false) {
            conn = None;
        }
        let sent = tokio::time::timeout(ANSWER, async {
            let mut open = match conn.take() {
                Some(conn) => conn,
                None => {
                    let options = hosts.borrow_and_update().clone();
                    options.connect().await?
                }
            };
            let changed = changed.iter().map(|text| (CHANNEL, text));
            for (channel, text) in changed.chain(printed.iter().map(|text| (relay::CHANNEL, text))) {
                sqlx::query("select pg_notify($1, $2)").bind(channel).bind(text).execute(&mut open).await?;
            }
            Ok::<_, sqlx::Error>(open)
        });
        match sent.await {
            Ok(Ok(open)) => conn = Some(open),
            Ok(Err(error)) => tracing::debug!(%error, "the other replicas could not be told"),
            Err(_) => tracing::debug!("the other replicas could not be told in time"),
        }
    }
}

/// Changes as texts that PostgreSQL carries: our start, then `e` for events, `j` for jobs, `iID` for an incident, `oSEQ` for an outcome.
fn written(changes: &HashSet<Change>, me: &str) -> Vec<String> {
    let mut texts = vec![me.to_owned()];
    for change in changes {
        let word = match change {
            Change::Events => "e".to_owned(),
            Change::Jobs => "j".to_owned(),
            Change::Incident(id) => format!("i{id}"),
            Change::Outcome(seq) => format!("o{seq}"),
            Change::Missed | Change::Printed(_) => continue,
        };
        match texts.last_mut() {
            Some(text) if text.len() + word.len() < MOST_BYTES => {
                text.push(' ');
                text.push_str(&word);
            }
            _ => texts.push(format!("{me} {word}")),
        }
    }
    texts
}

/// What another replica says changed; nothing where we said it ourselves. An unknown word is a newer replica's: look at everything.
fn read(text: &str, me: &str) -> Vec<Change> {
    let mut words = text.split(' ');
    if words.next() == Some(me) {
        return Vec::new();
    }
    let one = |word: &str| match word.split_at_checked(1) {
        Some(("e", "")) => Change::Events,
        Some(("j", "")) => Change::Jobs,
        Some(("i", id)) => id.parse::<IncidentId>().map_or(Change::Missed, Change::Incident),
        Some(("o", seq)) => seq.parse().map_or(Change::Missed, Change::Outcome),
        _ => Change::Missed,
    };
    words.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard_by_others_alone_and_fits() {
        let mut all: HashSet<Change> = (0..3_000).map(Change::Outcome).collect();
        all.extend([Change::Events, Change::Jobs, Change::Incident(IncidentId::new(jiff::Timestamp::UNIX_EPOCH))]);
        let texts = written(&all, "me");
        assert!(texts.len() > 1 && texts.iter().all(|text| text.len() < 8_000));
        assert_eq!(texts.iter().flat_map(|text| read(text, "you")).collect::<HashSet<_>>(), all);
        assert!(texts.iter().flat_map(|text| read(text, "me")).next().is_none());
        assert_eq!(read("you zebra", "me"), [Change::Missed]);
    }
}
