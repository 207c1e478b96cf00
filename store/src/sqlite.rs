//! SQLite: one file, one process, one writer, a few readers beside it.

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlSafeStr, SqlStr, Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot};

use crate::checkpoint::Checkpoints;
use crate::gate::{Gate, Line, Pass};
use crate::later::{Head, Later};
use crate::{Backend, Error, schema};

/// How long a transaction waits for its turn. Longer means that somebody waits for himself.
const TURN: Duration = Duration::from_secs(10);
/// Transactions that share a commit, at most, and how long the first of them may have begun before.
const MOST_RIDERS: usize = 64;
const MOST_SHARED: Duration = Duration::from_millis(3);
/// How long one who is done waits for others to commit before it does so itself.
const RIDE: Duration = Duration::from_millis(5);
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
}

/// The one writing connection. Small transactions that come one after the other share a commit, because its sync takes longer than they do: one that is
/// done stays open for the next, which works within a savepoint, and everybody hears of the commit when it is made.
#[derive(Debug)]
pub(crate) struct Writer {
    conn: SqliteConnection,
    /// A transaction was begun and not committed.
    open: bool,
    /// Somebody works in it, or went away in the middle: whoever begins next takes their part back first.
    busy: bool,
    /// Who is done and waits for the commit. With any, the one at work has a savepoint.
    riders: Vec<oneshot::Sender<Result<(), String>>>,
    /// When the first of those who share it began.
    since: Instant,
    /// The store was closed: nobody begins any more.
    closed: bool,
    /// What waits to be carried out with the next statement.
    later: Later,
    /// Told of every commit.
    written: Arc<Notify>,
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
            .pragma("wal_autocheckpoint", "25000")
            .thread_name(|n| format!("store-writer-{n}"));
        let cannot = |error: sqlx::Error| Error::Config(format!("cannot open {}: {error}", path.display()));
        let mut conn = options.connect().await.map_err(cannot)?;
        check_version(&mut conn).await?;
        schema::migrator(Backend::Sqlite).run(&mut conn).await.map_err(schema::explain)?;
        let (gate, written) = (Arc::default(), Arc::new(Notify::new()));
        let checkpoints = Checkpoints::start(
            options.clone().pragma("cache_size", "-1000").connect().await.map_err(cannot)?,
            Arc::clone(&gate),
            written.clone(),
        );
        let reading = options.read_only(true).pragma("cache_size", "-4000").thread_name(|n| format!("store-reader-{n}"));
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(2))
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(reading);
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
        let readers = SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options);
        // As if closed: nobody writes.
        let writer = Writer { closed: true, ..Writer::new(conn, Arc::new(Notify::new())) };
        let (gate, writer) = (Arc::default(), Arc::new(Mutex::new(writer)));
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

    pub(crate) async fn ping(&self) -> Result<(), Error> {
        sqlx::query("select 1").execute(&self.readers).await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        let _pass = self.gate.enter(Line::Other).await;
        let mut writer = self.writer.lock().await;
        writer.closed = true;
        // What was begun and dropped would keep the log from being moved.
        writer.take_back().await;
        if writer.open
            && let Err(error) = writer.flush().await
        {
            tracing::warn!(%error, "the last transactions may be lost");
        }
        if let Err(error) = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut writer.conn).await {
            tracing::debug!(%error, "the log stays for the next start");
        }
    }
}

impl Writer {
    fn new(conn: SqliteConnection, written: Arc<Notify>) -> Self {
        Self { conn, open: false, busy: false, riders: Vec::new(), since: Instant::now(), closed: false, later: Later::default(), written }
    }

    async fn begin(&mut self) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Unavailable("the store is closed".to_owned()));
        }
        self.take_back().await;
        self.busy = true;
        let head = match (self.open, self.later.head()) {
            (true, Head::Release) => Head::ReleaseAndSavepoint,
            (true, _) => Head::Savepoint,
            (false, _) => Head::Begin,
        };
        self.later.begin(head);
        if !self.open {
            self.open = true;
            self.since = Instant::now();
        }
        Ok(())
    }

    /// Carries out what waits.
    async fn settle(&mut self) -> sqlx::Result<()> {
        self.later.settle(&mut self.conn).await
    }

    /// Takes back what somebody left who went away in the middle; those who are done keep theirs.
    async fn take_back(&mut self) {
        if !std::mem::take(&mut self.busy) || !self.open {
            return;
        }
        // What was not carried out needs not be taken back.
        match self.later.head() {
            Head::None => self.later.reset(Head::None),
            Head::Begin => {
                self.later.reset(Head::None);
                self.open = false;
                return;
            }
            Head::Savepoint => return self.later.reset(Head::None),
            Head::Release | Head::ReleaseAndSavepoint => return self.later.reset(Head::Release),
        }
        if self.riders.is_empty() {
            if sqlx::query("rollback").execute(&mut self.conn).await.is_err() {
                tracing::debug!("the last transaction had ended by itself");
            }
            self.open = false;
            return;
        }
        let back = async {
            sqlx::query("rollback to member").execute(&mut self.conn).await?;
            sqlx::query("release member").execute(&mut self.conn).await
        };
        if back.await.is_err() {
            // There is no savepoint: it was never made, and a commit keeps what is there; or the whole transaction is gone, and a commit fails.
            self.later.reset(Head::None);
            drop(self.flush().await);
        }
    }

    /// Ends the work of the one who is at it: commits, or lets the next one do that for both.
    async fn commit(&mut self, share: bool) -> Result<Option<oneshot::Receiver<Result<(), String>>>, Error> {
        let alone = self.riders.is_empty();
        let share = share && self.riders.len() < MOST_RIDERS && self.since.elapsed() <= MOST_SHARED;
        if share || !alone {
            // What others will commit is carried out by then, so that its errors are its own.
            self.settle().await?;
        }
        if !alone {
            self.later.begin(Head::Release);
        }
        if !share {
            return self.flush().await.map(|()| None);
        }
        self.busy = false;
        let (told, done) = oneshot::channel();
        self.riders.push(told);
        Ok(Some(done))
    }

    /// Commits for everybody, and tells them.
    async fn flush(&mut self) -> Result<(), Error> {
        // Whoever goes away in the middle of it leaves it to the next one to find out.
        self.busy = true;
        let done = if self.later.head() == Head::Begin && !self.later.waits() {
            // Nothing was begun.
            self.later.reset(Head::None);
            Ok(())
        } else {
            self.later.add(false, |sql| {
                sql.push("commit");
            });
            self.settle().await
        };
        for rider in self.riders.drain(..) {
            // One who went away is stored all the same.
            let _gone = rider.send(done.as_ref().map(drop).map_err(ToString::to_string));
        }
        done?;
        (self.open, self.busy) = (false, false);
        self.written.notify_one();
        Ok(())
    }
}

impl SqliteTx {
    /// Carries out what waits.
    pub(crate) async fn settle(&mut self) -> sqlx::Result<()> {
        match self {
            Self::Writer { writer, .. } => writer.settle().await,
            Self::Reader(_) => Ok(()),
        }
    }

    /// Where a statement may wait whose answer nobody needs, or that comes next; a reader has no such place.
    pub(crate) fn later(&mut self) -> Option<&mut Later> {
        match self {
            Self::Writer { writer, .. } => Some(&mut writer.later),
            Self::Reader(_) => None,
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
        }
    }
}

/// Waits for the commit that somebody else makes; makes it if nobody does.
async fn ride(mut done: oneshot::Receiver<Result<(), String>>, gate: &Arc<Gate>, writer: &Arc<Mutex<Writer>>) -> Result<(), Error> {
    if let Ok(told) = tokio::time::timeout(RIDE, &mut done).await {
        return arrived(told);
    }
    {
        let _pass = gate.enter(Line::Ingest).await;
        let mut writer = writer.lock().await;
        writer.take_back().await;
        if !writer.riders.is_empty() {
            // Everybody hears of it by their own channel.
            drop(writer.flush().await);
        }
    }
    arrived(done.await)
}

fn arrived(told: Result<Result<(), String>, oneshot::error::RecvError>) -> Result<(), Error> {
    match told {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(Error::Unavailable(why)),
        Err(_) => Err(Error::Unavailable("nobody can tell whether it was stored".to_owned())),
    }
}

impl Deref for SqliteTx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        match self {
            Self::Writer { writer, .. } => &writer.conn,
            Self::Reader(tx) => tx,
        }
    }
}

impl DerefMut for SqliteTx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Writer { writer, .. } => &mut writer.conn,
            Self::Reader(tx) => tx,
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
