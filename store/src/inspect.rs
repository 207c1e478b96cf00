//! Looking at a database without opening it as ours: nothing is locked, migrated or written. For `doctor`, beside a running server.

use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::codec::time;
use crate::{Backend, Error, schema};

/// What a database says of itself.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Which it is.
    pub backend: Backend,
    /// Its version, as it writes it.
    pub version: String,
    /// SQLite's file is not there yet: the first start makes it.
    pub absent: bool,
    /// Settings that decide what survives, by name.
    pub settings: Vec<(String, String)>,
    /// The newest migration that was run on it; `None` on an empty database.
    pub schema: Option<i64>,
    /// The newest migration that this program knows.
    pub newest: i64,
    /// What time it is there, and the monotonic time in the middle of asking; for a server only.
    pub clock: Option<(Timestamp, Instant)>,
}

impl Inspection {
    /// A setting, empty if it was not asked for.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }
}

/// Asks the database at `url`; the forms are those of [`crate::Options::url`].
///
/// # Errors
/// If it cannot be reached or read.
pub async fn inspect(url: &str) -> Result<Inspection, Error> {
    let ask = async {
        match url.strip_prefix("sqlite:") {
            Some(path) => sqlite(path.strip_prefix("//").unwrap_or(path)).await,
            None => postgres(url).await,
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), ask).await;
    answer.unwrap_or_else(|_| Err(Error::Unavailable("no answer within ten seconds".to_owned())))
}

async fn sqlite(path: &str) -> Result<Inspection, Error> {
    let absent = path == ":memory:" || !Path::new(path).exists();
    let options =
        if absent { SqliteConnectOptions::new().in_memory(true) } else { SqliteConnectOptions::new().filename(path).read_only(true) };
    let mut conn = options.connect().await.map_err(|error| Error::Config(format!("cannot open {path}: {error}")))?;
    let (version,): (String,) = sqlx::query_as("select sqlite_version()").fetch_one(&mut conn).await?;
    let mut settings = Vec::new();
    let mut ran = None;
    if !absent {
        let (mode,): (String,) = sqlx::query_as("pragma journal_mode").fetch_one(&mut conn).await?;
        settings.push(("journal_mode".to_owned(), mode));
        let (known,): (i64,) =
            sqlx::query_as("select count(*) from sqlite_master where name = '_sqlx_migrations'").fetch_one(&mut conn).await?;
        if known > 0 {
            (ran,) = sqlx::query_as("select max(version) from _sqlx_migrations").fetch_one(&mut conn).await?;
        }
    }
    conn.close().await?;
    Ok(Inspection { backend: Backend::Sqlite, version, absent, settings, schema: ran, newest: schema::newest(), clock: None })
}

async fn postgres(url: &str) -> Result<Inspection, Error> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Error::Config(format!("the store's address is no PostgreSQL address: {error}")))?
        .application_name("watchkeeper doctor");
    let mut conn = options.connect().await?;
    let names = ["server_version", "fsync", "synchronous_commit", "full_page_writes", "max_connections", "default_transaction_read_only"];
    let mut settings = Vec::with_capacity(names.len());
    for name in names {
        let (value,): (String,) = sqlx::query_as("select current_setting($1)").bind(name).fetch_one(&mut conn).await?;
        settings.push((name.to_owned(), value));
    }
    let (standby,): (bool,) = sqlx::query_as("select pg_is_in_recovery()").fetch_one(&mut conn).await?;
    settings.push(("standby".to_owned(), standby.to_string()));
    let (table,): (Option<String>,) = sqlx::query_as("select cast(to_regclass('_sqlx_migrations') as text)").fetch_one(&mut conn).await?;
    let mut ran = None;
    if table.is_some() {
        (ran,) = sqlx::query_as("select max(version) from _sqlx_migrations").fetch_one(&mut conn).await?;
    }
    let asked = Instant::now();
    let (micros,): (i64,) =
        sqlx::query_as("select cast(extract(epoch from clock_timestamp()) * 1000000 as bigint)").fetch_one(&mut conn).await?;
    let clock = Some((time("clock", "now", micros)?, asked + asked.elapsed() / 2));
    conn.close().await?;
    let version = settings.first().map(|(_, version)| version.clone()).unwrap_or_default();
    Ok(Inspection { backend: Backend::Postgres, version, absent: false, settings, schema: ran, newest: schema::newest(), clock })
}
