//! The floor that `bench ingest` is compared with: the least that a durable ingest can be. A bare axum handler parses Alertmanager's body, hands it to one
//! writer that commits for all who wait, and answers after the sync.
//!
//! `cargo run --release -p harness --example floor -- none|log|sqlite 127.0.0.1:9800 FOLDER`: with `none` nothing is kept, with `log` bodies go to a file that
//! is synced, with `sqlite` each alert becomes an event row and an upsert of a small incident row (WAL, `synchronous=FULL`).

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use tokio::sync::{mpsc, oneshot};

/// Bodies of one commit, at most.
const BATCH: usize = 256;

#[derive(Deserialize)]
struct Webhook {
    alerts: Vec<Alert>,
}

/// What a handler has to look at, at least.
#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed because a real handler has to")]
struct Alert {
    status: String,
    labels: std::collections::BTreeMap<String, String>,
    annotations: std::collections::BTreeMap<String, String>,
    #[serde(rename = "startsAt")]
    starts_at: String,
    fingerprint: String,
}

struct Waiting {
    body: Bytes,
    fingerprints: Vec<String>,
    done: oneshot::Sender<()>,
}

type Line = Option<mpsc::Sender<Waiting>>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, what, listen, folder] = &args[..] else { anyhow::bail!("arguments: none|log|sqlite, address, folder") };
    let (line, arrivals) = mpsc::channel(4096);
    let line = match what.as_str() {
        "none" => None,
        "log" => {
            let file = File::create(Path::new(folder).join("floor.log"))?;
            tokio::task::spawn_blocking(move || log(arrivals, file));
            Some(line)
        }
        "sqlite" => {
            let database = sqlite(&Path::new(folder).join("floor.db")).await?;
            tokio::spawn(store(arrivals, database));
            Some(line)
        }
        other => anyhow::bail!("{other}: none, log or sqlite"),
    };
    let app = Router::new().route("/hook", post(take)).with_state(line).layer(axum::extract::DefaultBodyLimit::max(32 << 20));
    axum::serve(tokio::net::TcpListener::bind(listen).await.context("the address")?, app).await?;
    Ok(())
}

async fn take(State(line): State<Line>, body: Bytes) -> StatusCode {
    let Ok(webhook) = serde_json::from_slice::<Webhook>(&body) else { return StatusCode::BAD_REQUEST };
    let Some(line) = line else { return StatusCode::ACCEPTED };
    let (done, stored) = oneshot::channel();
    let fingerprints = webhook.alerts.into_iter().map(|alert| alert.fingerprint).collect();
    if line.send(Waiting { body, fingerprints, done }).await.is_err() || stored.await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    StatusCode::ACCEPTED
}

fn log(mut arrivals: mpsc::Receiver<Waiting>, mut file: File) -> std::io::Result<()> {
    let (mut batch, mut bytes) = (Vec::new(), Vec::new());
    while arrivals.blocking_recv_many(&mut batch, BATCH) > 0 {
        bytes.clear();
        for waiting in &batch {
            bytes.extend_from_slice(&(waiting.body.len() as u64).to_be_bytes());
            bytes.extend_from_slice(&waiting.body);
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        batch.drain(..).for_each(|waiting| {
            // Who went away is stored all the same.
            let _gone = waiting.done.send(());
        });
    }
    Ok(())
}

async fn sqlite(file: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", "-65536");
    let mut database = SqliteConnection::connect_with(&options).await?;
    sqlx::raw_sql(
        "create table bodies (seq integer primary key, raw blob not null);
         create table events (seq integer primary key, body bigint not null, fingerprint text not null);
         create table incidents (fingerprint text primary key, n bigint not null, last bigint not null) without rowid;",
    )
    .execute(&mut database)
    .await?;
    Ok(database)
}

async fn store(mut arrivals: mpsc::Receiver<Waiting>, mut database: SqliteConnection) -> anyhow::Result<()> {
    let (mut batch, mut body) = (Vec::new(), 0_i64);
    while arrivals.recv_many(&mut batch, BATCH).await > 0 {
        let mut tx = database.begin().await?;
        for waiting in &batch {
            body += 1;
            sqlx::query("insert into bodies (seq, raw) values (?, ?)").bind(body).bind(&waiting.body[..]).execute(&mut *tx).await?;
            // Many rows a statement, as few statements as possible: the floor is not to be slower than need be.
            for part in waiting.fingerprints.chunks(500) {
                let mut rows = sqlx::QueryBuilder::new("insert into events (body, fingerprint) ");
                rows.push_values(part, |mut b, fingerprint| {
                    b.push_bind(body).push_bind(fingerprint);
                });
                rows.build().execute(&mut *tx).await?;
                let mut rows = sqlx::QueryBuilder::new("insert into incidents (fingerprint, n, last) ");
                rows.push_values(part, |mut b, fingerprint| {
                    b.push_bind(fingerprint).push_bind(1_i64).push_bind(body);
                });
                rows.push(" on conflict (fingerprint) do update set n = n + 1, last = excluded.last");
                rows.build().execute(&mut *tx).await?;
            }
        }
        tx.commit().await?;
        batch.drain(..).for_each(|waiting| {
            // Who went away is stored all the same.
            let _gone = waiting.done.send(());
        });
    }
    Ok(())
}
