//! Backups of SQLite: made while the server works, verified when made and when used. A restore begins a new epoch before anybody sees it.
//!
//! PostgreSQL brings its own tools, which also keep what was written since: see `docs/operations.md`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::epoch::NewEpoch;
use crate::{Error, Options, Store, schema, sqlite};

/// What stands beside a backup, in a file of the same name with `.json` behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInfo {
    /// When it was made: everything that was answered before is in it.
    pub made_at: Timestamp,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// The number of its newest migration.
    pub schema: i64,
    /// The store's epoch.
    pub epoch: i64,
}

/// Copies the store of `url` to a new file while it is in use, and verifies the copy.
///
/// # Errors
/// [`Error::Config`] if that cannot be done, or [`Error::Unavailable`] if the copy is not whole.
pub async fn create(url: &str, out: &Path, now: Timestamp) -> Result<BackupInfo, Error> {
    let path = file_of(url)?;
    if out.exists() {
        return Err(Error::Config(format!("{} is there already: name a new file", out.display())));
    }
    let part = beside(out, ".part");
    remove(&part)?;
    // Before anything is in it: SQLite takes an empty file as it is.
    private(&part).map_err(|error| failed(&part, &error))?;
    let reading = SqliteConnectOptions::new().filename(&path).read_only(true);
    let mut conn = reading.connect().await.map_err(|error| Error::Config(format!("cannot read {}: {error}", path.display())))?;
    let name = part.to_str().ok_or_else(|| Error::Config(format!("{} is no name that SQLite takes", part.display())))?;
    sqlx::query("vacuum into $1").bind(name).execute(&mut conn).await.map_err(|error| failed(&part, &error))?;
    drop(conn);
    sync(&part).map_err(|error| failed(&part, &error))?;
    let (schema, epoch) = look(&part).await?;
    let (bytes, sha256) = digest(part.clone()).await?;
    let info = BackupInfo { made_at: now, bytes, sha256, schema, epoch };
    let text = serde_json::to_string_pretty(&info).map_err(|error| failed(out, &error))?;
    let described = beside(out, ".json");
    fs::write(&described, text + "\n").and_then(|()| sync(&described)).map_err(|error| failed(&described, &error))?;
    fs::rename(&part, out).and_then(|()| sync(parent(out))).map_err(|error| failed(out, &error))?;
    Ok(info)
}

/// Whether a backup is what it was when it was made, and this version can use it.
///
/// # Errors
/// [`Error::Config`] says what is wrong with it.
pub async fn verify(file: &Path) -> Result<BackupInfo, Error> {
    let described = beside(file, ".json");
    let text = fs::read_to_string(&described).map_err(|error| {
        Error::Config(format!("cannot read {}: {error}; without it nobody can say that the backup is whole", described.display()))
    })?;
    let info: BackupInfo =
        serde_json::from_str(&text).map_err(|error| Error::Config(format!("{} is not readable: {error}", described.display())))?;
    if !file.is_file() {
        return Err(Error::Config(format!("there is no backup {}", file.display())));
    }
    let (bytes, sha256) = digest(file.to_owned()).await?;
    if bytes != info.bytes || sha256 != info.sha256 {
        return Err(Error::Config(format!("{} is damaged: it is not the file that was made; use another backup", file.display())));
    }
    let (schema, _) = look(file).await?;
    if schema > schema::newest() {
        return Err(Error::Config(format!("{} was made by a newer Watchkeeper (migration {schema}): use that version", file.display())));
    }
    Ok(info)
}

/// Puts a backup in the place of the store of `options` and begins a new epoch in it. What was there is kept beside it, if `replace` allows
/// that at all; its new names are given back. `publish` says whether the bus is told of what that changes.
///
/// # Errors
/// [`Error::Config`] if a server uses the store, if there is one and it may not be replaced, or if the backup is not whole.
pub async fn restore(options: Options, file: &Path, replace: bool, publish: bool) -> Result<(BackupInfo, NewEpoch, Vec<PathBuf>), Error> {
    let target = file_of(&options.url)?;
    let _lock = sqlite::lock(&target).await?;
    // The lock's own file may be all there is.
    let there = fs::metadata(&target).is_ok_and(|meta| meta.len() > 0);
    if there && !replace {
        return Err(Error::Config(format!("there is a store at {}: give --force to put it aside and restore", target.display())));
    }
    let info = verify(file).await?;
    let replaced_epoch = if there { look(&target).await.map_or(0, |(_, epoch)| epoch) } else { 0 };
    let made = beside(&target, ".restoring");
    for end in ["", "-journal", "-wal", "-shm", ".lock"] {
        remove(&beside(&made, end))?;
    }
    let copied = File::open(file).and_then(|mut from| io::copy(&mut from, &mut private(&made)?));
    copied.map_err(|error| failed(&made, &error))?;
    let now = options.clock.now();
    let store = Store::open(Options { url: format!("sqlite:{}", made.display()), ..options }).await?;
    if publish {
        store.publish_lifecycle();
    }
    let epoch = store.begin_epoch(replaced_epoch).await?;
    store.close().await;
    drop(store);
    settle(&made).await?;
    remove(&beside(&made, ".lock"))?;
    let aside = put_aside(&target, there, now)?;
    fs::rename(&made, &target).and_then(|()| sync(parent(&target))).map_err(|error| failed(&target, &error))?;
    Ok((info, epoch, aside))
}

/// Moves what belongs to the store that was there out of the way; its new names. A log without its database is there too where somebody moved that one
/// away, or an earlier restore got no further: SQLite would take it for the log of whatever stands in that place. So it has to be gone, and that synced,
/// before anything does.
fn put_aside(target: &Path, there: bool, now: Timestamp) -> Result<Vec<PathBuf>, Error> {
    let aside = beside(target, &format!(".replaced-{}", now.as_second()));
    let mut moved = Vec::new();
    for end in ["", "-journal", "-wal", "-shm"] {
        let (from, to) = (beside(target, end), beside(&aside, end));
        if (there || !end.is_empty()) && from.exists() {
            fs::rename(&from, &to).map_err(|error| failed(&from, &error))?;
            moved.push(to);
        }
    }
    sync(parent(target)).map_err(|error| failed(target, &error))?;
    Ok(moved)
}

/// Schema and epoch of a file that is whole.
async fn look(file: &Path) -> Result<(i64, i64), Error> {
    let broken = |error: sqlx::Error| Error::Config(format!("{} is no store of Watchkeeper, or damaged: {error}", file.display()));
    let mut conn = SqliteConnectOptions::new().filename(file).read_only(true).connect().await.map_err(broken)?;
    let (whole,): (String,) = sqlx::query_as("pragma integrity_check(1)").fetch_one(&mut conn).await.map_err(broken)?;
    if whole != "ok" {
        return Err(Error::Config(format!("{} is damaged: {whole}", file.display())));
    }
    let schema = sqlx::query_as("select max(version) from _sqlx_migrations where success").fetch_one(&mut conn).await;
    let (schema,): (i64,) = schema.map_err(broken)?;
    let epoch = sqlx::query_as("select cast(value as bigint) from flags where key = $1").bind(crate::flags::EPOCH);
    let epoch: Option<(i64,)> = epoch.fetch_optional(&mut conn).await.map_err(broken)?;
    Ok((schema, epoch.map_or(1, |(epoch,)| epoch)))
}

/// Brings everything into the one file, so that it can be moved. The connections of the store that was just closed end a moment later.
async fn settle(file: &Path) -> Result<(), Error> {
    let mut tries = 200;
    loop {
        let mut conn: SqliteConnection = SqliteConnectOptions::new().filename(file).connect().await?;
        let settled = sqlx::query("pragma journal_mode = delete").execute(&mut conn).await;
        conn.close().await?;
        match settled {
            Ok(_) => return sync(file).map_err(|error| failed(file, &error)),
            Err(error) if tries == 0 => return Err(error.into()),
            Err(_) => tries -= 1,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn digest(file: PathBuf) -> Result<(u64, String), Error> {
    let shown = file.clone();
    let read = move || -> io::Result<(u64, String)> {
        let (mut from, mut hash, mut bytes) = (File::open(&file)?, Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match from.read(&mut buffer)? {
                0 => return Ok((bytes, hex::encode(hash.finalize()))),
                n => {
                    hash.update(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
    };
    let done = tokio::task::spawn_blocking(read).await.map_err(|error| failed(&shown, &error))?;
    done.map_err(|error| failed(&shown, &error))
}

fn file_of(url: &str) -> Result<PathBuf, Error> {
    match url.strip_prefix("sqlite:") {
        Some(":memory:") | None => Err(Error::Config("only a store in an SQLite file is backed up by this command".to_owned())),
        Some(path) => Ok(PathBuf::from(path.strip_prefix("//").unwrap_or(path))),
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Makes an empty file that is its owner's alone.
fn private(path: &Path) -> io::Result<File> {
    File::options().create_new(true).write(true).mode(0o600).open(path)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}
