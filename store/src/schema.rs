//! The migrations, embedded: `migrations/{sqlite,postgres}/NNNN_name.sql`, the same names in both.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::tx::row;
use crate::{Backend, Error, Tx};

/// One migration: its number, its name and its text for each database.
struct Step {
    number: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! steps {
    ($($number:literal $name:literal,)*) => {
        &[$(Step {
            number: $number,
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
        },)*]
    };
}

const STEPS: &[Step] = steps! {
    1 "0001_inbox",
    2 "0002_incidents",
    3 "0003_runs",
    4 "0004_jobs",
    5 "0005_chat",
    6 "0006_upkeep",
    7 "0007_audit",
    8 "0008_signin",
    9 "0009_fences",
    10 "0010_seals",
    11 "0011_replicas",
    12 "0012_lifecycle",
    13 "0013_agents",
    14 "0014_retention",
    15 "0015_audit_cut",
    16 "0016_unopened",
    17 "0017_packed",
    18 "0018_listed",
    19 "0019_fewer_pages",
};

/// The migrator for a database.
pub(crate) fn migrator(backend: Backend) -> Migrator {
    let migrations = STEPS.iter().map(|step| {
        let sql = match backend {
            Backend::Sqlite => step.sqlite,
            Backend::Postgres => step.postgres,
        };
        Migration::new(step.number, Cow::Borrowed(step.name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// The number of the newest migration that this program knows.
pub(crate) fn newest() -> i64 {
    STEPS.iter().map(|step| step.number).max().unwrap_or(0)
}

impl Tx {
    /// Whether the tables are those of this program: for readers, who bring nothing up to date.
    pub(crate) async fn is_of_this_version(&mut self) -> Result<(), Error> {
        let found: Option<(Option<i64>, i64)> = row!(self, "select max(version), count(*) from _sqlx_migrations where success");
        let (found, count) = found.unwrap_or_default();
        if found == Some(newest()) && count == STEPS.len() as i64 {
            return Ok(());
        }
        Err(Error::Config(format!(
            "the database has {count} migrations up to {}, this program {} up to {}: use the program of the server that wrote it, or start the \
             newer server once",
            found.unwrap_or_default(),
            STEPS.len(),
            newest()
        )))
    }
}

/// Says what to do about a migration that failed.
pub(crate) fn explain(error: MigrateError) -> Error {
    match error {
        MigrateError::VersionMissing(number) => Error::Config(format!(
            "the database was written by a newer Watchkeeper (it has migration {number}): start that version, or restore a backup made before it"
        )),
        MigrateError::VersionMismatch(number) => Error::Config(format!(
            "migration {number} of the database is not the one in this program: it was made by a changed build; use the build that made it"
        )),
        MigrateError::Execute(error) => error.into(),
        other => Error::Unavailable(format!("the database's tables could not be brought up to date: {other}")),
    }
}
