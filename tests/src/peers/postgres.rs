//! PostgreSQL with fsync on: one server per test process to share, or one of your own to stop and kill.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::START;
use crate::{Cmd, Proc, Signal, eventually, free_port, temp_dir};

/// How a server is stopped, in PostgreSQL's own words (`pg_ctl stop -m`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends sessions and writes a checkpoint.
    Fast,
    /// Drops everything; the next start recovers from the log.
    Immediate,
    /// `kill -9` of the postmaster; the next start recovers from the log.
    Kill,
}

/// A PostgreSQL server. Everybody on loopback is trusted; the superuser is `postgres`.
#[derive(Debug)]
pub struct Postgres {
    proc: Option<Proc>,
    data: TempDir,
    port: u16,
}

impl Postgres {
    /// The server that all tests of this process share. Make a database of your own in it.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// A server for one test, which may stop and kill it.
    pub async fn start() -> anyhow::Result<Self> {
        let data = owned_dir("postgres")?;
        copy_template(data.path()).await?;
        let mut server = Self { proc: None, data, port: free_port() };
        server.resume().await?;
        Ok(server)
    }

    /// Makes an empty database with a name of its own and returns its `postgres://` address.
    pub async fn create_database(&self) -> anyhow::Result<String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("create database {name}")).await?;
        Ok(self.url(&name))
    }

    /// The address of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The TCP port, the same through every stop and start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL with psql; returns rows as lines with `|` between the columns. `database` is a name or a `postgres://` address.
    pub async fn psql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let url = match database.contains("://") {
            true => database.to_owned(),
            false => self.url(database),
        };
        let psql = Cmd::new(program("psql")?).args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", &url]);
        let done = psql.stdin(sql).run(START).await?.ok()?;
        Ok(done.trim_end().to_owned())
    }

    /// Stops the server; the data stays.
    pub async fn stop(&mut self, how: Stop) -> anyhow::Result<()> {
        let Some(mut proc) = self.proc.take() else {
            return Ok(());
        };
        match how {
            Stop::Fast => proc.signal(Signal::INT)?,
            Stop::Immediate => proc.signal(Signal::QUIT)?,
            Stop::Kill => proc.kill9()?,
        }
        proc.wait(START).await?;
        // Backends notice a killed postmaster by themselves; the next start refuses while one still holds the shared memory.
        eventually(START, async || {
            ensure!(!anybody_works_in(self.data.path())?, "a backend is still there");
            Ok(())
        })
        .await
    }

    /// Starts the stopped server again on its port and data.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        if self.proc.is_some() {
            return Ok(());
        }
        let port = self.port.to_string();
        let server = Cmd::new(program("postgres")?)
            .arg("-D")
            .arg(self.data.path())
            .args(["-p", &port, "-h", "127.0.0.1", "-k", ""])
            .args(["-c", "fsync=on", "-c", "max_connections=300", "-c", "timezone=UTC"])
            .user(owner()?);
        let mut proc = server.spawn()?;
        proc.until_ready(START, async || self.psql("postgres", "select 1").await.map(|_| ())).await?;
        self.proc = Some(proc);
        Ok(())
    }

    /// A second server that follows this one and answers for its commits: they wait for it.
    pub async fn standby(&self) -> anyhow::Result<Self> {
        let data = owned_dir("postgres-standby")?;
        let port = self.port.to_string();
        let copy = Cmd::new(program("pg_basebackup")?).args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-R", "-X", "stream"]);
        copy.args(["--checkpoint=fast", "--no-sync", "-D"]).arg(data.path()).user(owner()?).run(START).await?.ok()?;
        // It starts in no folder that others can read.
        fs::set_permissions(data.path(), PermissionsExt::from_mode(0o700))?;
        let mut standby = Self { proc: None, data, port: free_port() };
        standby.resume().await?;
        self.psql("postgres", "alter system set synchronous_standby_names = '*'").await?;
        self.psql("postgres", "select pg_reload_conf()").await?;
        eventually(START, async || {
            let states = self.psql("postgres", "select sync_state from pg_stat_replication").await?;
            ensure!(states == "sync", "the standby is {states:?}");
            Ok(())
        })
        .await?;
        Ok(standby)
    }

    /// Puts a copy of one database in the place of another, by pg_dump.
    pub async fn copy(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let dump = Cmd::new(program("pg_dump")?).args(["--clean", "--if-exists", from]).run(START).await?.ok()?;
        self.psql(to, &dump).await.map(|_| ())
    }

    /// Makes a standby take writes.
    pub async fn promote(&self) -> anyhow::Result<()> {
        self.psql("postgres", "alter system set synchronous_standby_names = ''").await.ok();
        self.psql("postgres", "select pg_promote()").await.map(|_| ())
    }

    /// Sets the clock that Watchkeeper sees in this server ahead.
    pub async fn turn_clock(&self, ahead: Duration) -> anyhow::Result<()> {
        let line = format!("watchkeeper.clock_offset_us = '{}'\n", ahead.as_micros());
        let mut conf = fs::read_to_string(self.data.path().join("postgresql.conf"))?;
        conf.push_str(&line);
        fs::write(self.data.path().join("postgresql.conf"), conf)?;
        self.psql("postgres", "select pg_reload_conf()").await.map(|_| ())
    }

    /// The server's log so far; empty while it is stopped.
    pub fn log(&self) -> String {
        self.proc.as_ref().map(Proc::log).unwrap_or_default()
    }
}

impl Drop for Postgres {
    /// An immediate stop first: the postmaster then ends its backends, which have sessions of their own, and frees its shared memory.
    fn drop(&mut self) {
        if let Some(proc) = &mut self.proc {
            proc.signal(Signal::QUIT).ok();
            proc.wait_blocking(Duration::from_secs(5));
        }
    }
}

/// Fills `into` with a fresh cluster. initdb takes a second, so it runs once per test process.
async fn copy_template(into: &Path) -> anyhow::Result<()> {
    static TEMPLATE: OnceCell<TempDir> = OnceCell::const_new();
    let template = TEMPLATE
        .get_or_try_init(async || {
            let dir = owned_dir("postgres-template")?;
            let initdb = Cmd::new(program("initdb")?)
                .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
                .args(["--no-sync", "--no-instructions", "-D"])
                .arg(dir.path());
            initdb.user(owner()?).run(START).await?.ok()?;
            anyhow::Ok(dir)
        })
        .await?;
    let copy = Cmd::new("cp").arg("-a").arg(template.path().join(".")).arg(into);
    copy.user(owner()?).run(START).await?.ok()?;
    Ok(())
}

/// Every process of a cluster has its data folder as working directory.
fn anybody_works_in(data: &Path) -> anyhow::Result<bool> {
    let data = data.canonicalize()?;
    let mut links = fs::read_dir("/proc")?.flatten().map(|entry| entry.path().join("cwd"));
    Ok(links.any(|link| fs::read_link(link).is_ok_and(|cwd| cwd == data)))
}

/// A folder that belongs to whoever runs the server.
fn owned_dir(name: &str) -> anyhow::Result<TempDir> {
    let dir = temp_dir(name)?;
    if let Some((uid, gid)) = owner()? {
        chown(dir.path(), Some(uid), Some(gid))?;
    }
    Ok(dir)
}

/// PostgreSQL refuses to run as root; then it runs as Debian's user `postgres`.
fn owner() -> anyhow::Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:")).context("no user `postgres`; ./test installs PostgreSQL")?;
    let mut ids = line.split(':').skip(2).map(str::parse);
    match (ids.next(), ids.next()) {
        (Some(Ok(uid)), Some(Ok(gid))) => Ok(Some((uid, gid))),
        _ => anyhow::bail!("cannot read the ids of user `postgres` in /etc/passwd"),
    }
}

/// Debian keeps the server's programs out of PATH; the newest installed version is taken.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("no PostgreSQL; ./test installs it")?;
    let number = |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let newest = versions.flatten().map(|entry| entry.path()).filter(|path| path.join("bin").join(name).exists()).max_by_key(number);
    let newest = newest.with_context(|| format!("no {name} below /usr/lib/postgresql; ./test installs it"))?;
    Ok(newest.join("bin").join(name))
}
