//! PostgreSQL: a server, and any number of processes of ours.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, PgPool, Postgres, Transaction};

use crate::gate::Line;
use crate::{Backend, Error, schema};

/// How long to wait for a connection; a sender of alerts must hear within a second that there is none.
const ACQUIRE: Duration = Duration::from_secs(2);
const ACQUIRE_INGEST: Duration = Duration::from_millis(800);

/// Connections to a server.
#[derive(Debug)]
pub(crate) struct Server {
    /// Deliveries wait for no worker and no page.
    ingest: PgPool,
    other: PgPool,
}

impl Server {
    /// Connects, and brings the tables up to date; also says what the server promises.
    pub(crate) async fn open(url: &str) -> Result<(Self, String), Error> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| Error::Config(format!("the store's address is no PostgreSQL address: {error}")))?
            .application_name("watchkeeper")
            .statement_cache_capacity(512);
        // Without the others' time limits: a migration may take as long as it needs, and wait for another replica's.
        let mut conn = options.connect().await?;
        schema::migrator(Backend::Postgres).run(&mut conn).await.map_err(schema::explain)?;
        settle(&mut conn).await?;
        let promise = "select current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')";
        let (version, fsync, commit): (String, String, String) = sqlx::query_as(promise).fetch_one(&mut conn).await?;
        let durability = match fsync.as_str() {
            "on" => format!("PostgreSQL {version} (synchronous_commit={commit}): what was accepted survives kill -9 and power loss"),
            _ => format!("PostgreSQL {version} with fsync={fsync}: what was accepted can be LOST at a power loss; set fsync=on"),
        };
        let pool = |connections, acquire| {
            let settled = PgPoolOptions::new().after_connect(|conn, _| Box::pin(settle(conn)));
            settled.max_connections(connections).acquire_timeout(acquire).connect_lazy_with(options.clone())
        };
        Ok((Self { ingest: pool(2, ACQUIRE_INGEST), other: pool(8, ACQUIRE) }, durability))
    }

    pub(crate) async fn begin(&self, line: Line) -> Result<Transaction<'static, Postgres>, Error> {
        match line {
            Line::Ingest => Ok(self.ingest.begin().await?),
            Line::Other => Ok(self.other.begin().await?),
        }
    }

    pub(crate) async fn read(&self) -> Result<Transaction<'static, Postgres>, Error> {
        Ok(self.other.begin_with("begin isolation level repeatable read read only").await?)
    }

    pub(crate) async fn ping(&self) -> Result<(), Error> {
        sqlx::query("select 1").execute(&self.other).await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.ingest.close().await;
        self.other.close().await;
    }
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
