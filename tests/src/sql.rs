//! SQL for a database that a test breaks on purpose, beside the server that works with it.

use std::{str::FromStr, time::Duration};

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, raw_sql};

/// How long it waits for a turn to write.
const TURN: Duration = Duration::from_secs(10);

/// Carries out these statements in the database at `sqlite:PATH` or `postgres://..`. What they find is dropped.
///
/// # Errors
/// If the database cannot be reached, or refuses one.
pub async fn sql(url: &str, statements: &str) -> anyhow::Result<()> {
    let statements = raw_sql(AssertSqlSafe(statements));
    if let Some(path) = url.strip_prefix("sqlite:") {
        let mut conn = SqliteConnectOptions::new().filename(path).busy_timeout(TURN).connect().await?;
        statements.execute(&mut conn).await?;
        conn.close().await?;
    } else {
        let mut conn = PgConnectOptions::from_str(url)?.connect().await?;
        statements.execute(&mut conn).await?;
        conn.close().await?;
    }
    Ok(())
}
