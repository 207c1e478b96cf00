//! The conformance suite: every test runs on SQLite and on a real PostgreSQL.

mod aging;
mod at_once;
mod backups;
mod chain;
mod clock;
mod cut;
mod ends;
mod events;
mod incidents;
mod jobs;
mod make;
mod opening;
mod replicas;
mod runs;
mod sharing;
mod small;
mod sqlite;
mod unopened;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use domain::id::StartId;
use domain::time::ManualClock;
use harness::peers::Postgres;
use jiff::Timestamp;

use crate::tx::{exec, row};
use crate::{Backend, Error, Options, Store, Tx};

/// One transaction that does this, and whatever it or its commit says.
pub(crate) async fn commit(store: &Store, body: impl AsyncFnOnce(&mut Tx) -> Result<(), Error>) -> Result<(), Error> {
    let mut tx = store.begin().await?;
    body(&mut tx).await?;
    tx.commit().await
}

/// What a newer version leaves behind: one more migration than this one knows.
pub(crate) async fn migrate_further(store: &Store) {
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 select 9999, 'future', success, checksum, 1 from _sqlx_migrations where version = 1";
    commit(store, async |tx| tx.sql(newer).await.map(drop)).await.unwrap();
}

/// A database of its own and a clock that stands still.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    url: String,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new(backend: Backend) -> Self {
        let dir = harness::temp_dir("store").unwrap();
        let url = match backend {
            Backend::Sqlite => format!("sqlite:{}", dir.path().join("store.db").display()),
            Backend::Postgres => Postgres::shared().await.unwrap().create_database().await.unwrap(),
        };
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        Self { clock: ManualClock::at(now), url, dir }
    }

    pub(crate) fn options(&self, instance: &str) -> Options {
        Options {
            url: self.url.clone(),
            clock: Arc::new(self.clock.clone()),
            instance: instance.to_owned(),
            start: StartId::new(self.now()),
            audit_keys: vec![vec![7; 32].into()],
            max_waiting: 1000,
        }
    }

    pub(crate) async fn open(&self, instance: &str) -> Store {
        Store::open(self.options(instance)).await.unwrap()
    }

    /// Where its SQLite file is, and what a test puts beside it.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn now(&self) -> Timestamp {
        use domain::time::Clock;
        self.clock.now()
    }
}

/// Long enough for somebody to come to where they have to wait, or to do what they should not.
pub(crate) const MOMENT: Duration = Duration::from_millis(150);

impl Tx {
    /// Carries out a statement that no method offers.
    async fn sql(&mut self, sql: &str) -> Result<u64, Error> {
        Ok(exec!(self, sqlx::AssertSqlSafe(sql)))
    }

    /// When the next waiting job is due.
    async fn next_due(&mut self) -> Result<Option<Timestamp>, Error> {
        let found: Option<(Option<i64>,)> = row!(self, "select min(due_at) from jobs where state = 'waiting'");
        found.and_then(|(due,)| due).map(|due| crate::codec::time("jobs", "next", due)).transpose()
    }

    /// Asks for one number.
    async fn number(&mut self, sql: &'static str) -> Result<i64, Error> {
        let found: Option<(i64,)> = row!(self, sql);
        Ok(found.unwrap_or_default().0)
    }
}

/// Declares tests that take a [`World`], and runs each on both databases.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($world:ident) $body:block)*) => {
        $($(#[$meta])* async fn $name($world: &$crate::tests::World) $body)*

        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&$crate::tests::World::new($crate::Backend::Sqlite).await).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&$crate::tests::World::new($crate::Backend::Postgres).await).await;
            })*
        }
    };
}

pub(crate) use on_both;
