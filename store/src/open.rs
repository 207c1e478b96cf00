//! Opening the store: which database, how it is set up, and what it promises.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use domain::audit::AuditKeys;
use domain::id::StartId;
use domain::time::Clock;
use secrecy::SecretSlice;
use tokio::sync::broadcast;

use crate::clock::ServerClock;
use crate::gate::Line;
use crate::link::{Ear, Ends, Link};
use crate::met::Met;
use crate::postgres::Server;
use crate::screens::Screens;
use crate::sight::Sightings;
use crate::sqlite::SqliteFile;
use crate::tx::{Conn, Tx};
use crate::unopened::Unopened;
use crate::{Change, Error, Store, accept, at_once, ends};

/// What a store needs to know.
#[derive(Clone)]
pub struct Options {
    /// `sqlite:PATH`, `sqlite::memory:` (a temporary file, gone with the store) or `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// Tells when things are due. On PostgreSQL the server's clock takes its place, unless this is one that tests move by hand.
    pub clock: Arc<dyn Clock>,
    /// The name of this instance, the same after a restart: it gets its own claims back.
    pub instance: String,
    /// This start of it.
    pub start: StartId,
    /// Keys of the audit rows' hashes: the first makes them, all of them are believed.
    pub audit_keys: Vec<SecretSlice<u8>>,
    /// How many deliveries may wait to be stored before further ones are refused.
    pub max_waiting: usize,
}

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One file, one process.
    Sqlite,
    /// A server, any number of processes.
    Postgres,
}

/// What all clones of a store share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) database: Database,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) instance: String,
    pub(crate) start: StartId,
    pub(crate) audit_keys: AuditKeys,
    pub(crate) changes: broadcast::Sender<Change>,
    /// The same clock as `clock`, where it is the server's: leases are judged by it then.
    pub(crate) server_clock: Option<Arc<ServerClock>>,
    pub(crate) sightings: Sightings,
    /// The way to other replicas; on PostgreSQL alone.
    pub(crate) link: OnceLock<Link>,
    /// Whether lifecycle events are kept for the bus.
    pub(crate) publishes: AtomicBool,
    /// What running steps print.
    pub(crate) screens: Arc<Screens>,
    /// The last incident number that was given out, on SQLite, where nobody else gives any.
    pub(crate) last_number: Mutex<Option<i64>>,
    /// Who decides what comes in at once.
    pub(crate) decider: Mutex<Option<Weak<dyn at_once::Decider>>>,
    pub(crate) unopened: Unopened,
    pub(crate) met: Met,
    /// The number of the last event, on SQLite, or a higher one.
    pub(crate) last_event: AtomicI64,
    durability: String,
}

#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(SqliteFile),
    Postgres(Arc<Server>),
}

impl Store {
    /// Opens the store and brings its tables up to date. Claims that an earlier start of this instance left behind are freed.
    ///
    /// # Errors
    /// [`Error::Config`] says what to change; [`Error::Unavailable`] if the database cannot be reached.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let mut ear = None;
        let mut server_clock = None;
        let (database, durability) = if let Some(path) = options.url.strip_prefix("sqlite:") {
            let (file, promise) = SqliteFile::open(path.strip_prefix("//").unwrap_or(path)).await?;
            (Database::Sqlite(file), promise)
        } else if options.url.starts_with("postgres:") || options.url.starts_with("postgresql:") {
            let (server, host, promise) = Server::open(&options.url).await?;
            let mut first = Ear::first(&host, &options.instance).await?;
            if !options.clock.is_manual() {
                server_clock = Some(Arc::new(first.clock().await?));
            }
            ear = Some((first, host));
            (Database::Postgres(Arc::new(server)), promise)
        } else {
            return Err(Error::Config("the store's address must begin with sqlite: or postgres://".to_owned()));
        };
        let max_waiting = options.max_waiting;
        let core = Core::new(options, database, server_clock, durability)?;
        // A name that a living process has as well says nothing about whose claims those are.
        if ear.as_ref().is_none_or(|(ear, _)| ear.alone) {
            core.free_left_over().await?;
        }
        core.look_for_unopened().await?;
        core.look_for_last_event().await?;
        if let (Some((ear, host)), Database::Postgres(server)) = (ear, &core.database) {
            let ends = Ends {
                server: Arc::clone(server),
                clock: core.server_clock.clone(),
                changes: core.changes.clone(),
                screens: Arc::clone(&core.screens),
                instance: core.instance.clone(),
                start: core.start.to_string(),
            };
            let _set_once = core.link.set(Link::start(ends, ear, host));
        }
        Ok(Self::of(core, max_waiting))
    }

    /// Opens the store only to look at it, beside a server that has it open or without one: nothing is changed, no tables are brought up to
    /// date, no claims are freed, and every attempt to write fails.
    ///
    /// # Errors
    /// [`Error::Config`] if it is of another version or cannot be opened; [`Error::Unavailable`].
    pub async fn look(options: Options) -> Result<Self, Error> {
        let database = match options.url.strip_prefix("sqlite:") {
            Some(path) => Database::Sqlite(SqliteFile::look(path.strip_prefix("//").unwrap_or(path)).await?),
            None => Database::Postgres(Arc::new(Server::look(&options.url).await?)),
        };
        let max_waiting = options.max_waiting;
        let core = Core::new(options, database, None, "opened to read only".to_owned())?;
        let store = Self::of(core, max_waiting);
        store.read().await?.is_of_this_version().await?;
        Ok(store)
    }

    fn of(core: Arc<Core>, max_waiting: usize) -> Self {
        let (intake, ends) = (accept::Intake::start(core.clone(), max_waiting), ends::Ends::start(core.clone()));
        Self { core, intake, ends }
    }

    /// Which database it is.
    pub fn backend(&self) -> Backend {
        self.core.backend()
    }

    /// The time: on PostgreSQL the server's, which all replicas share, so that what is due does not depend on one machine's clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.core.clock.clone()
    }

    /// The name of this instance, the same after a restart.
    pub fn instance(&self) -> &str {
        &self.core.instance
    }

    /// This start of it.
    pub fn start(&self) -> StartId {
        self.core.start
    }

    /// What an accepted event survives, in a sentence for the log and `/readyz`.
    pub fn durability(&self) -> String {
        self.core.durability.clone()
    }

    /// Whether the database answers, within a second.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn ping(&self) -> Result<(), Error> {
        let ask = async {
            match &self.core.database {
                Database::Sqlite(file) => file.ping().await,
                Database::Postgres(server) => server.ping().await,
            }
        };
        let answer = tokio::time::timeout(Duration::from_secs(1), ask).await;
        answer.unwrap_or_else(|_| Err(Error::Unavailable("no answer within a second".to_owned())))
    }

    /// Says goodbye to the database: nothing is stored or found any more. Call it last.
    pub async fn close(&self) {
        match &self.core.database {
            Database::Sqlite(file) => file.close().await,
            Database::Postgres(server) => {
                self.core.link.get().into_iter().for_each(Link::stop);
                server.close().await;
            }
        }
    }

    /// A transaction that may write. On SQLite there is one at a time, so await nothing but this store while it is open, and never begin
    /// another inside it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn begin(&self) -> Result<Tx, Error> {
        self.core.begin(Line::Other).await
    }

    /// A transaction that only looks: one consistent picture, beside any writer.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn read(&self) -> Result<Tx, Error> {
        self.core.read().await
    }

    /// For one question: a look without a transaction, which on SQLite would be a trip of its own. Several statements may see different states.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn glance(&self) -> Result<Tx, Error> {
        match &self.core.database {
            Database::Sqlite(file) => Ok(Tx::new(self.core.clone(), Conn::Sqlite(file.glance().await?), false)),
            Database::Postgres(_) => self.read().await,
        }
    }
}

impl Core {
    /// What a store begins with. Where the server tells the time, its clock takes the place of the one in `options`.
    fn new(options: Options, database: Database, server_clock: Option<Arc<ServerClock>>, durability: String) -> Result<Arc<Self>, Error> {
        let clock = server_clock.clone().map_or(options.clock, |clock| clock as Arc<dyn Clock>);
        Ok(Arc::new(Self {
            database,
            clock,
            instance: options.instance,
            start: options.start,
            audit_keys: AuditKeys::new(options.audit_keys).map_err(Error::Config)?,
            changes: broadcast::channel(1024).0,
            server_clock,
            sightings: Sightings::default(),
            link: OnceLock::new(),
            publishes: AtomicBool::new(false),
            screens: Arc::default(),
            last_number: Mutex::default(),
            decider: Mutex::default(),
            unopened: Unopened::default(),
            met: Met::default(),
            last_event: AtomicI64::default(),
            durability,
        }))
    }

    /// Whether the database tells the time.
    pub(crate) fn server_time(&self) -> bool {
        self.server_clock.is_some()
    }

    pub(crate) fn backend(&self) -> Backend {
        match self.database {
            Database::Sqlite(_) => Backend::Sqlite,
            Database::Postgres(_) => Backend::Postgres,
        }
    }

    pub(crate) async fn begin(self: &Arc<Self>, line: Line) -> Result<Tx, Error> {
        let conn = match &self.database {
            Database::Sqlite(file) => Conn::Sqlite(file.begin(line).await?),
            Database::Postgres(server) => Conn::Postgres(server.begin(line).await?),
        };
        Ok(Tx::new(self.clone(), conn, true))
    }

    pub(crate) async fn read(self: &Arc<Self>) -> Result<Tx, Error> {
        let conn = match &self.database {
            Database::Sqlite(file) => Conn::Sqlite(file.read().await?),
            Database::Postgres(server) => Conn::Postgres(server.read().await?),
        };
        Ok(Tx::new(self.clone(), conn, false))
    }
}

impl fmt::Debug for Options {
    /// Without the address, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("instance", &self.instance).field("start", &self.start).finish_non_exhaustive()
    }
}

/// A pool whose connections stay. Without sqlx's reaper, which runs when a pool is made and then now and then: it goes through as many idle connections as are
/// counted, and at the moment in which one is taken before it was counted as given back that is 2^64, on a thread that is never free again (sqlx-core 0.9,
/// `pool/inner.rs`).
pub(crate) fn pool<DB: sqlx::Database>() -> sqlx::pool::PoolOptions<DB> {
    sqlx::pool::PoolOptions::new().idle_timeout(None).max_lifetime(None)
}
