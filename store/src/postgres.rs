//! PostgreSQL: a server, or several of which one takes writes, and any number of processes of ours.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection, PgPool, Postgres};
use tokio::time::error::Elapsed;

use crate::gate::Line;
use crate::{Backend, Error, schema};

/// How long to wait for a connection; a sender of alerts must hear within a second that there is none.
const ACQUIRE: Duration = Duration::from_secs(2);
const ACQUIRE_INGEST: Duration = Duration::from_millis(800);
/// How long a statement may take before the server counts as out of reach: somebody waits for a reader's. A writer may have to wait for locks,
/// which the server itself ends after 5 s.
const LOOKING: Duration = Duration::from_millis(2_500);
const WRITING: Duration = Duration::from_secs(7);
/// A commit ends before the server's own limit for statements: at that one it would give up waiting for a standby and call it done.
const COMMITTING: Duration = Duration::from_secs(8);
/// How long a host may take to let us in before the next one is asked.
const CONNECTING: Duration = Duration::from_secs(2);

/// Connections to a server.
#[derive(Debug)]
pub(crate) struct Server {
    /// One per host of the address, in its order.
    hosts: Vec<PgConnectOptions>,
    pools: ArcSwap<Pools>,
    /// A newer Watchkeeper has changed the tables: what this one would decide could be wrong.
    outdated: AtomicBool,
}

/// Connections to the host that takes writes.
#[derive(Debug)]
struct Pools {
    /// Deliveries wait for no worker and no page.
    ingest: PgPool,
    other: PgPool,
}

/// A transaction. Whoever drops it in the middle of a statement drops the connection too: nobody waits for its answer any more.
#[derive(Debug)]
pub(crate) struct PgTx {
    /// Until it is dropped.
    conn: Option<PoolConnection<Postgres>>,
    patience: Duration,
    state: State,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The last statement was answered well.
    Idle,
    /// A statement was sent and not answered.
    Asking,
    /// A statement failed. The server would answer a commit without an error, and roll back.
    Failed,
    /// It was committed or rolled back.
    Over,
}

impl Server {
    /// Connects, and brings the tables up to date; also gives the host that takes writes, and says what it promises.
    pub(crate) async fn open(url: &str) -> Result<(Self, PgConnectOptions, String), Error> {
        let hosts = hosts(url)?;
        let (mut conn, options) = writable(&hosts).await?;
        // Without the others' time limits: a migration may take as long as it needs, and wait for another replica's.
        schema::migrator(Backend::Postgres).run(&mut conn).await.map_err(schema::explain)?;
        settle(&mut conn).await?;
        let promise = "select current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')";
        let (version, fsync, commit): (String, String, String) = sqlx::query_as(promise).fetch_one(&mut conn).await?;
        let durability = match fsync.as_str() {
            "on" => format!("PostgreSQL {version} (synchronous_commit={commit}): what was accepted survives kill -9 and power loss"),
            _ => format!("PostgreSQL {version} with fsync={fsync}: what was accepted can be LOST at a power loss; set fsync=on"),
        };
        let pools = ArcSwap::from_pointee(Pools::new(&options));
        Ok((Self { hosts, pools, outdated: AtomicBool::new(false) }, options, durability))
    }

    /// Connects only to look: whatever these connections do is read-only.
    pub(crate) async fn look(url: &str) -> Result<Self, Error> {
        let hosts = hosts(url)?;
        let (_, options) = writable(&hosts).await?;
        let pools = Pools::new(&options.options([("default_transaction_read_only", "on")]));
        Ok(Self { hosts, pools: ArcSwap::from_pointee(pools), outdated: AtomicBool::new(false) })
    }

    pub(crate) async fn begin(&self, line: Line) -> Result<PgTx, Error> {
        let pools = self.pools.load_full();
        match line {
            Line::Ingest => PgTx::begin(&pools.ingest, "begin", WRITING).await,
            Line::Other if self.outdated.load(Ordering::Relaxed) => Err(Error::Unavailable(OUTDATED.to_owned())),
            Line::Other => PgTx::begin(&pools.other, "begin", WRITING).await,
        }
    }

    pub(crate) async fn read(&self) -> Result<PgTx, Error> {
        let pools = self.pools.load_full();
        PgTx::begin(&pools.other, "begin isolation level repeatable read read only", LOOKING).await
    }

    pub(crate) async fn ping(&self) -> Result<(), Error> {
        if self.outdated.load(Ordering::Relaxed) {
            return Err(Error::Unavailable(OUTDATED.to_owned()));
        }
        drop(self.read().await?);
        Ok(())
    }

    /// The host that takes writes now. New connections go there, and those to the one before are given up.
    pub(crate) async fn follow(&self) -> Result<PgConnectOptions, Error> {
        let (_, options) = writable(&self.hosts).await?;
        let before = self.pools.swap(Arc::new(Pools::new(&options)));
        tokio::spawn(async move { before.close().await });
        Ok(options)
    }

    /// Compares the tables' version with this program's.
    pub(crate) fn seen_version(&self, version: i64) {
        let outdated = version > schema::newest();
        if outdated && !self.outdated.swap(true, Ordering::Relaxed) {
            tracing::error!(version, known = schema::newest(), "{OUTDATED}");
        }
    }

    pub(crate) async fn close(&self) {
        self.pools.load_full().close().await;
    }
}

const OUTDATED: &str =
    "a newer Watchkeeper has migrated the database: this replica decides nothing any more; stop it and start the new version";

impl Pools {
    fn new(options: &PgConnectOptions) -> Self {
        let pool = |connections, acquire| {
            let settled = crate::open::pool().after_connect(|conn, _| Box::pin(settle(conn)));
            settled.max_connections(connections).acquire_timeout(acquire).connect_lazy_with(options.clone())
        };
        Self { ingest: pool(2, ACQUIRE_INGEST), other: pool(8, ACQUIRE) }
    }

    async fn close(&self) {
        // A connection that hangs is not waited for.
        let all = async { tokio::join!(self.ingest.close(), self.other.close()) };
        let _closed_or_hanging = tokio::time::timeout(COMMITTING, all).await;
    }
}

impl PgTx {
    async fn begin(pool: &PgPool, statement: &'static str, patience: Duration) -> Result<Self, Error> {
        let mut tx = Self { conn: Some(pool.acquire().await?), patience, state: State::Idle };
        tx.say(statement, patience).await?;
        Ok(tx)
    }

    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        self.say("commit", COMMITTING).await?;
        self.state = State::Over;
        Ok(())
    }

    pub(crate) async fn rollback(mut self) -> Result<(), Error> {
        if self.state == State::Failed {
            // This it still takes.
            self.state = State::Idle;
        }
        self.say("rollback", self.patience).await?;
        self.state = State::Over;
        Ok(())
    }

    async fn say(&mut self, statement: &'static str, patience: Duration) -> Result<(), Error> {
        let (_, conn) = self.ask()?;
        let answer = tokio::time::timeout(patience, async { Ok(sqlx::raw_sql(statement).execute(conn).await?) }).await;
        self.answered(answer).map(drop)
    }

    /// A statement is about to be sent: how long to wait for its answer, and the connection. Refused unless all before it were answered well: whatever
    /// became of their errors, nothing of the transaction lasts.
    pub(crate) fn ask(&mut self) -> Result<(Duration, &mut PgConnection), Error> {
        match (self.state, &mut self.conn) {
            (State::Idle, Some(conn)) => {
                self.state = State::Asking;
                Ok((self.patience, &mut **conn))
            }
            (State::Failed, _) => Err(Error::Retry),
            (State::Asking, _) => Err(Error::Unavailable("a statement of the transaction was not answered".to_owned())),
            (State::Over | State::Idle, _) => Err(Error::Unavailable("the transaction is over".to_owned())),
        }
    }

    /// What came of it.
    pub(crate) fn answered<T>(&mut self, answer: Result<Result<T, Error>, Elapsed>) -> Result<T, Error> {
        match answer {
            Ok(answer) => {
                self.state = if answer.is_ok() { State::Idle } else { State::Failed };
                answer
            }
            Err(_) => {
                Err(Error::Unavailable("the database does not answer; whether the last statement took effect is not known".to_owned()))
            }
        }
    }
}

impl Drop for PgTx {
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        match self.state {
            State::Over => return,
            State::Asking => return conn.close_on_drop(),
            State::Idle | State::Failed => {}
        }
        let patience = self.patience;
        tokio::spawn(async move {
            let done = tokio::time::timeout(patience, sqlx::raw_sql("rollback").execute(&mut *conn)).await;
            if !matches!(done, Ok(Ok(_))) {
                conn.close_on_drop();
            }
        });
    }
}

/// `postgres://USER@HOST:PORT,HOST:PORT/DATABASE?..` as one address per host.
fn hosts(url: &str) -> Result<Vec<PgConnectOptions>, Error> {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, list) = authority.rsplit_once('@').map_or((String::new(), authority), |(user, list)| (format!("{user}@"), list));
    // The one that takes writes is found by asking.
    let tail = tail.replace("target_session_attrs=read-write", "");
    let one = |host: &str| {
        let options = PgConnectOptions::from_str(&format!("{scheme}://{user}{host}{tail}"))
            .map_err(|error| Error::Config(format!("the store's address is no PostgreSQL address: {error}")))?;
        Ok(options.application_name("watchkeeper").statement_cache_capacity(512))
    };
    list.split(',').map(one).collect()
}

/// A connection to the first host that takes writes.
async fn writable(hosts: &[PgConnectOptions]) -> Result<(PgConnection, PgConnectOptions), Error> {
    let mut why = Error::Config("the store's address names no host".to_owned());
    for options in hosts {
        let ask = async {
            let mut conn = options.connect().await?;
            let (standby,): (bool,) = sqlx::query_as("select pg_is_in_recovery()").fetch_one(&mut conn).await?;
            Ok::<_, sqlx::Error>((conn, standby))
        };
        match tokio::time::timeout(CONNECTING, ask).await {
            Ok(Ok((conn, false))) => return Ok((conn, options.clone())),
            Ok(Ok((_, true))) => why = Error::Unavailable("the server is a standby: it takes no writes until it is promoted".to_owned()),
            Ok(Err(error)) => why = error.into(),
            Err(_) => why = Error::Unavailable(format!("no answer from the server within {CONNECTING:?}")),
        }
    }
    Err(why)
}

/// What every PostgreSQL connection is told first.
async fn settle(conn: &mut PgConnection) -> sqlx::Result<()> {
    // A commit that is not on disk is no commit, whatever the server's default; stricter settings stay.
    let settings = "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'";
    sqlx::query(settings).execute(&mut *conn).await?;
    for setting in ["set statement_timeout = '10s'", "set lock_timeout = '5s'", "set idle_in_transaction_session_timeout = '30s'"] {
        sqlx::query(setting).execute(&mut *conn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_name_several_hosts() {
        let read = |url: &str| -> Vec<(String, u16, String)> {
            let one = |o: PgConnectOptions| (o.get_host().to_owned(), o.get_port(), o.get_database().unwrap_or_default().to_owned());
            hosts(url).unwrap().into_iter().map(one).collect()
        };
        let expected = [("a".to_owned(), 5432, "wk".to_owned()), ("b".to_owned(), 6432, "wk".to_owned())];
        assert_eq!(read("postgres://me:p%40w,x@a:5432,b:6432/wk?target_session_attrs=read-write"), expected);
        assert_eq!(read("postgres://a/wk"), expected[..1]);
        assert!(matches!(hosts("postgres://["), Err(Error::Config(_))));
    }
}
