//! Opening the store: which database, how it is set up, and what it promises.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use domain::id::StartId;
use domain::time::Clock;
use secrecy::SecretSlice;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, PgConnection, PgPool, SqlitePool};
use tokio::sync::{Mutex, broadcast};

use crate::gate::{Gate, Line};
use crate::tx::{Conn, SqliteTx, Tx, Writer};
use crate::{Change, Error, Store, accept, schema};

/// How long a transaction waits for its turn. Longer means that somebody waits for himself.
const TURN: Duration = Duration::from_secs(10);
/// How long to wait for a PostgreSQL connection; a sender of alerts must hear within a second that there is none.
const ACQUIRE: Duration = Duration::from_secs(2);
const ACQUIRE_INGEST: Duration = Duration::from_millis(800);
/// SQLite below this can corrupt its log when it is reset: sqlite.org/wal.html#walresetbug.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// What a store needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// `sqlite:PATH`, `sqlite::memory:` (a temporary file, gone with the store) or `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// Tells when things are due.
    pub clock: Arc<dyn Clock>,
    /// The name of this instance, the same after a restart: it gets its own claims back.
    pub instance: String,
    /// This start of it.
    pub start: StartId,
    /// Key of the audit rows' hashes.
    pub audit_key: SecretSlice<u8>,
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
    pub(crate) audit_key: SecretSlice<u8>,
    pub(crate) changes: broadcast::Sender<Change>,
    durability: String,
}

#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Deliveries have connections of their own: they wait for no worker and no page.
#[derive(Debug)]
pub(crate) struct Postgres {
    ingest: PgPool,
    other: PgPool,
}

#[derive(Debug)]
pub(crate) struct Sqlite {
    gate: Arc<Gate>,
    writer: Arc<Mutex<Writer>>,
    readers: SqlitePool,
    /// Held as long as the store is: one process per file.
    _lock: std::fs::File,
    /// A file that goes with the store.
    _temporary: Option<tempfile::TempDir>,
}

impl Store {
    /// Opens the store and brings its tables up to date. Claims that an earlier start of this instance left behind are freed.
    ///
    /// # Errors
    /// [`Error::Config`] says what to change; [`Error::Unavailable`] if the database cannot be reached.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let (database, durability) = if let Some(path) = options.url.strip_prefix("sqlite:") {
            open_sqlite(path.strip_prefix("//").unwrap_or(path)).await?
        } else if options.url.starts_with("postgres:") || options.url.starts_with("postgresql:") {
            open_postgres(&options.url).await?
        } else {
            return Err(Error::Config("the store's address must begin with sqlite: or postgres://".to_owned()));
        };
        let core = Arc::new(Core {
            database,
            clock: options.clock,
            instance: options.instance,
            start: options.start,
            audit_key: options.audit_key,
            changes: broadcast::channel(1024).0,
            durability,
        });
        core.free_claims().await?;
        let intake = accept::Intake::start(core.clone(), options.max_waiting);
        Ok(Self { core, intake })
    }

    /// Which database it is.
    pub fn backend(&self) -> Backend {
        self.core.backend()
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
                Database::Sqlite(sqlite) => sqlx::query("select 1").execute(&sqlite.readers).await.map(|_| ()),
                Database::Postgres(pools) => sqlx::query("select 1").execute(&pools.other).await.map(|_| ()),
            }
        };
        match tokio::time::timeout(Duration::from_secs(1), ask).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Error::Unavailable("no answer within a second".to_owned())),
        }
    }

    /// Says goodbye to the database: nothing is stored or found any more. Call it last.
    pub async fn close(&self) {
        match &self.core.database {
            Database::Sqlite(sqlite) => {
                sqlite.readers.close().await;
                let _pass = sqlite.gate.enter(Line::Other).await;
                let mut writer = sqlite.writer.lock().await;
                writer.closed = true;
                if let Err(error) = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut writer.conn).await {
                    tracing::debug!(%error, "the log stays for the next start");
                }
            }
            Database::Postgres(pools) => {
                pools.ingest.close().await;
                pools.other.close().await;
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
}

impl Core {
    pub(crate) fn backend(&self) -> Backend {
        match self.database {
            Database::Sqlite(_) => Backend::Sqlite,
            Database::Postgres(_) => Backend::Postgres,
        }
    }

    pub(crate) async fn begin(self: &Arc<Self>, line: Line) -> Result<Tx, Error> {
        let conn = match &self.database {
            Database::Sqlite(sqlite) => {
                let turn = tokio::time::timeout(TURN, sqlite.gate.enter(line)).await;
                let pass =
                    turn.map_err(|_| Error::Unavailable(format!("no turn to write within {TURN:?}: is a transaction begun in another?")))?;
                let mut writer = sqlite.writer.clone().lock_owned().await;
                writer.begin().await?;
                Conn::Sqlite(SqliteTx::Writer { writer, _pass: pass })
            }
            Database::Postgres(pools) => Conn::Postgres(match line {
                Line::Ingest => pools.ingest.begin().await?,
                Line::Other => pools.other.begin().await?,
            }),
        };
        Ok(Tx::new(self.clone(), conn, true))
    }

    pub(crate) async fn read(self: &Arc<Self>) -> Result<Tx, Error> {
        let conn = match &self.database {
            Database::Sqlite(sqlite) => Conn::Sqlite(SqliteTx::Reader(sqlite.readers.begin().await?)),
            Database::Postgres(pools) => Conn::Postgres(pools.other.begin_with("begin isolation level repeatable read read only").await?),
        };
        Ok(Tx::new(self.clone(), conn, false))
    }
}

async fn open_sqlite(path: &str) -> Result<(Database, String), Error> {
    let temporary = match path {
        ":memory:" => Some(tempfile::tempdir().map_err(|error| Error::Config(format!("no temporary folder for the store: {error}")))?),
        _ => None,
    };
    let path = match &temporary {
        Some(dir) => dir.path().join("store.db"),
        None => PathBuf::from(path),
    };
    let lock = lock(&path).await?;
    let synchronous = if temporary.is_some() { SqliteSynchronous::Off } else { SqliteSynchronous::Full };
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .statement_cache_capacity(1024)
        .pragma("cache_size", "-16000")
        .pragma("mmap_size", "0")
        .pragma("temp_store", "memory")
        .pragma("wal_autocheckpoint", "4000")
        .thread_name(|_| "store-writer".to_owned());
    let cannot = |error: sqlx::Error| Error::Config(format!("cannot open {}: {error}", path.display()));
    let mut writer = options.connect().await.map_err(cannot)?;
    check_version(&mut writer).await?;
    schema::migrator(Backend::Sqlite).run(&mut writer).await.map_err(schema::explain)?;
    let readers = SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(
            options.read_only(true).create_if_missing(false).pragma("cache_size", "-4000").thread_name(|n| format!("store-reader-{n}")),
        );
    let durability = match temporary {
        Some(_) => "SQLite in a temporary file: nothing survives the end of the process".to_owned(),
        None => format!("SQLite at {} (WAL, synchronous=FULL): what was accepted survives kill -9 and power loss", path.display()),
    };
    let sqlite =
        Sqlite { gate: Arc::default(), writer: Arc::new(Mutex::new(Writer::new(writer))), readers, _lock: lock, _temporary: temporary };
    Ok((Database::Sqlite(sqlite), durability))
}

/// Takes the file beside the database that says whose it is. An earlier owner in this process may need a moment to let go.
async fn lock(database: &Path) -> Result<std::fs::File, Error> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let cannot = |error: &dyn std::fmt::Display| {
        Error::Config(format!("cannot open {}: {error}; the store's folder must exist and be writable", path.display()))
    };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(|error| cannot(&error))?;
    for _ in 0..40 {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(cannot(&error)),
        }
    }
    Err(Error::Config(format!(
        "another Watchkeeper has {} open: SQLite serves one process; stop the other one, or use PostgreSQL for several",
        database.display()
    )))
}

async fn check_version(conn: &mut sqlx::SqliteConnection) -> Result<(), Error> {
    let (version,): (String,) = sqlx::query_as("select sqlite_version()").fetch_one(conn).await?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) < OLDEST_SQLITE {
        let (a, b, c) = OLDEST_SQLITE;
        return Err(Error::Config(format!("SQLite {version} can corrupt its log; build with {a}.{b}.{c} or newer")));
    }
    Ok(())
}

async fn open_postgres(url: &str) -> Result<(Database, String), Error> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Error::Config(format!("the store's address is no PostgreSQL address: {error}")))?
        .application_name("watchkeeper")
        .statement_cache_capacity(512);
    let pool = |connections, acquire| {
        PgPoolOptions::new().max_connections(connections).acquire_timeout(acquire).after_connect(|conn, _| Box::pin(settle(conn)))
    };
    let other = pool(8, ACQUIRE).connect_with(options.clone()).await?;
    let ingest = pool(2, ACQUIRE_INGEST).connect_lazy_with(options);
    schema::migrator(Backend::Postgres).run(&other).await.map_err(schema::explain)?;
    let (version, fsync, commit): (String, String, String) =
        sqlx::query_as("select current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')")
            .fetch_one(&other)
            .await?;
    let durability = match fsync.as_str() {
        "on" => format!("PostgreSQL {version} (synchronous_commit={commit}): what was accepted survives kill -9 and power loss"),
        _ => format!("PostgreSQL {version} with fsync={fsync}: what was accepted can be LOST at a power loss; set fsync=on"),
    };
    Ok((Database::Postgres(Postgres { ingest, other }), durability))
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
