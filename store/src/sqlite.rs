//! SQLite: one file, one process, one writer, a few readers beside it.

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlSafeStr, SqlStr, Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

use crate::checkpoint::{self, Checkpoints};
use crate::gate::{Gate, Line, Pass};
use crate::later::{Later, UNEXPECTED};
use crate::open::pool;
use crate::writer::{Writer, ride};
use crate::{Backend, Error, schema};

/// How long a transaction waits for its turn. Longer means that somebody waits for himself.
const TURN: Duration = Duration::from_secs(10);
/// Below this SQLite can corrupt its log when it is reset: sqlite.org/wal.html#walresetbug.
const OLDEST: (u32, u32, u32) = (3, 51, 3);

/// An open database file.
#[derive(Debug)]
pub(crate) struct SqliteFile {
    gate: Arc<Gate>,
    writer: Arc<Mutex<Writer>>,
    readers: SqlitePool,
    _checkpoints: Option<Checkpoints>,
    /// Held as long as the store is: one process per file.
    _lock: Option<File>,
    /// A file that goes with the store.
    _temporary: Option<tempfile::TempDir>,
}

/// A transaction: the writer's, or one reader's snapshot.
#[derive(Debug)]
pub(crate) enum SqliteTx {
    /// Fields are dropped in order: the writer is free before the next one is called.
    Writer {
        writer: OwnedMutexGuard<Writer>,
        _pass: Pass,
        gate: Arc<Gate>,
        line: Line,
    },
    Reader(Transaction<'static, Sqlite>),
    /// Without a transaction: every statement sees what is there by then.
    Glance(PoolConnection<Sqlite>),
}

impl SqliteFile {
    /// Opens a file, or a temporary one for `:memory:`, and brings its tables up to date; also says what it promises.
    pub(crate) async fn open(path: &str) -> Result<(Self, String), Error> {
        let temporary = match path {
            ":memory:" => Some(tempfile::tempdir().map_err(|error| Error::Config(format!("no temporary folder for the store: {error}")))?),
            _ => None,
        };
        let path = temporary.as_ref().map_or_else(|| PathBuf::from(path), |dir| dir.path().join("store.db"));
        let lock = lock(&path).await?;
        private(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(if temporary.is_some() { SqliteSynchronous::Off } else { SqliteSynchronous::Full })
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(1024)
            .pragma("cache_size", "-16000")
            .pragma("mmap_size", "0")
            .pragma("temp_store", "memory")
            // Far beyond what `checkpoint` lets it grow to.
            .pragma("wal_autocheckpoint", "50000")
            .thread_name(|n| format!("store-writer-{n}"));
        let cannot = |error: sqlx::Error| Error::Config(format!("cannot open {}: {error}", path.display()));
        let mut conn = options.connect().await.map_err(cannot)?;
        check_version(&mut conn).await?;
        schema::migrator(Backend::Sqlite).run(&mut conn).await.map_err(schema::explain)?;
        sqlx::query(UNEXPECTED).execute(&mut conn).await.map_err(cannot)?;
        if temporary.is_none() {
            let mut log = path.clone().into_os_string();
            log.push("-wal");
            let lengthened = tokio::task::spawn_blocking(move || checkpoint::lengthen(Path::new(&log))).await;
            if let Ok(Err(error)) = lengthened {
                tracing::warn!(%error, "the database's log could not be given its length: commits take longer until it has grown");
            }
        }
        let (gate, written) = (Arc::default(), Arc::new(Notify::new()));
        let checkpoints = Checkpoints::start(
            options.clone().pragma("cache_size", "-1000").connect().await.map_err(cannot)?,
            Arc::clone(&gate),
            written.clone(),
        );
        let reading = options.read_only(true).pragma("cache_size", "-4000").thread_name(|n| format!("store-reader-{n}"));
        let readers =
            pool().max_connections(4).acquire_timeout(Duration::from_secs(2)).test_before_acquire(false).connect_lazy_with(reading);
        let durability = match temporary {
            Some(_) => "SQLite in a temporary file: nothing survives the end of the process".to_owned(),
            None => format!("SQLite at {} (WAL, synchronous=FULL): what was accepted survives kill -9 and power loss", path.display()),
        };
        let writer = Arc::new(Mutex::new(Writer::new(conn, written)));
        Ok((Self { gate, writer, readers, _checkpoints: Some(checkpoints), _lock: Some(lock), _temporary: temporary }, durability))
    }

    /// Opens a file only to look at it, beside a process that writes it or without one.
    pub(crate) async fn look(path: &str) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(Duration::from_secs(5));
        let conn = options.connect().await.map_err(|error| Error::Config(format!("cannot open {path} to read it: {error}")))?;
        let readers = pool().max_connections(2).connect_lazy_with(options);
        let (gate, writer) = (Arc::default(), Arc::new(Mutex::new(Writer::shut_from_the_start(conn))));
        Ok(Self { gate, writer, readers, _checkpoints: None, _lock: None, _temporary: None })
    }

    pub(crate) async fn begin(&self, line: Line) -> Result<SqliteTx, Error> {
        let Ok(pass) = tokio::time::timeout(TURN, self.gate.enter(line)).await else {
            return Err(Error::Unavailable(format!("no turn to write within {TURN:?}: is a transaction begun inside another?")));
        };
        let mut writer = self.writer.clone().lock_owned().await;
        writer.begin().await?;
        Ok(SqliteTx::Writer { writer, _pass: pass, gate: Arc::clone(&self.gate), line })
    }

    pub(crate) async fn read(&self) -> Result<SqliteTx, Error> {
        Ok(SqliteTx::Reader(self.readers.begin().await?))
    }

    pub(crate) async fn glance(&self) -> Result<SqliteTx, Error> {
        Ok(SqliteTx::Glance(self.readers.acquire().await?))
    }

    pub(crate) async fn ping(&self) -> Result<(), Error> {
        sqlx::query("select 1").execute(&self.readers).await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        let _pass = self.gate.enter(Line::Other).await;
        let mut writer = self.writer.lock().await;
        if let Err(error) = writer.shut().await {
            tracing::warn!(%error, "the last transactions may be lost");
        }
        if let Err(error) = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut writer.conn).await {
            tracing::debug!(%error, "the log stays for the next start");
        }
    }
}

impl SqliteTx {
    /// Carries out what waits.
    pub(crate) async fn settle(&mut self) -> sqlx::Result<()> {
        match self {
            Self::Writer { writer, .. } => writer.settle().await,
            Self::Reader(_) | Self::Glance(_) => Ok(()),
        }
    }

    /// Where a statement may wait whose answer nobody needs, or that comes next; a reader has no such place.
    pub(crate) fn later(&mut self) -> Option<&mut Later> {
        match self {
            Self::Writer { writer, .. } => Some(&mut writer.later),
            Self::Reader(_) | Self::Glance(_) => None,
        }
    }

    /// The connection, and a statement with what waits before it.
    pub(crate) async fn with(&mut self, sql: impl SqlSafeStr) -> sqlx::Result<(SqlStr, &mut SqliteConnection)> {
        match self {
            Self::Writer { writer, .. } => {
                let Writer { later, conn, .. } = &mut **writer;
                Ok((later.before(conn, sql).await?, conn))
            }
            Self::Reader(tx) => Ok((sql.into_sql_str(), tx)),
            Self::Glance(conn) => Ok((sql.into_sql_str(), conn)),
        }
    }

    pub(crate) async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Writer { mut writer, _pass, gate, line } => {
                // Senders wait for ingest: it never waits for others.
                let share = line == Line::Other && gate.is_wanted();
                let Some(done) = writer.commit(share).await? else { return Ok(()) };
                let all = OwnedMutexGuard::mutex(&writer).clone();
                drop(writer);
                drop(_pass);
                ride(done, &gate, &all).await
            }
            Self::Reader(tx) => Ok(tx.commit().await?),
            Self::Glance(_) => Ok(()),
        }
    }
}

impl Deref for SqliteTx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        match self {
            Self::Writer { writer, .. } => &writer.conn,
            Self::Reader(tx) => tx,
            Self::Glance(conn) => conn,
        }
    }
}

impl DerefMut for SqliteTx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Writer { writer, .. } => &mut writer.conn,
            Self::Reader(tx) => tx,
            Self::Glance(conn) => conn,
        }
    }
}

/// Takes the file beside the database that says whose it is. An earlier owner in this process may need a moment to let go.
pub(crate) async fn lock(database: &Path) -> Result<File, Error> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let file = private(Path::new(&path))?;
    for _ in 0..40 {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(Error::Config(format!("cannot lock {}: {error}", database.display()))),
        }
    }
    Err(Error::Config(format!(
        "another Watchkeeper has {} open: SQLite serves one process; stop the other one, or use PostgreSQL for several",
        database.display()
    )))
}

/// Opens or makes a file that is its owner's alone: alerts can hold secrets. SQLite makes its other files like the database.
fn private(path: &Path) -> Result<File, Error> {
    let opened = File::options().create(true).append(true).mode(0o600).open(path);
    opened.map_err(|error| Error::Config(format!("cannot open {}: {error}; the store's folder must exist and be writable", path.display())))
}

async fn check_version(conn: &mut SqliteConnection) -> Result<(), Error> {
    let (version,): (String,) = sqlx::query_as("select sqlite_version()").fetch_one(conn).await?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) < OLDEST {
        let (a, b, c) = OLDEST;
        return Err(Error::Config(format!("SQLite {version} can corrupt its log; build with {a}.{b}.{c} or newer")));
    }
    Ok(())
}
