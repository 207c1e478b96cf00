//! The floors of `bench reaction`, measured in the same run: the least that a reaction to an alert can be on this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::bed::{Door, folder, request};
use super::wire::{Conn, read};

/// Bodies of one sync, at most.
const BATCH: usize = 256;

/// How often a second a command can be run by so many at once, in the environment of all commands, with its output read and nothing else done.
pub(super) async fn spawns(program: &'static str, arg: &'static str, at_once: u64) -> anyhow::Result<f64> {
    let (begun, mut spawners, mut count) = (Instant::now(), JoinSet::new(), 0_u32);
    for _ in 0..at_once {
        spawners.spawn(async move {
            let mut count = 0;
            while begun.elapsed() < Duration::from_secs(2) {
                #[expect(clippy::disallowed_methods, reason = "the floor: a fixed program without anything around it")]
                let done = tokio::process::Command::new(program)
                    .arg(arg)
                    .env_clear()
                    .envs(actions::ENVIRONMENT)
                    .stdin(Stdio::null())
                    .output()
                    .await?;
                ensure!(done.status.success(), "{program} ended with {}", done.status);
                count += 1;
            }
            Ok(count)
        });
    }
    while let Some(done) = spawners.join_next().await {
        count += done??;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// A server that parses an alert, appends its body to a log that is synced for all who wait, answers, and calls the chat platform over a connection that it
/// keeps. It decides nothing, knows no repeats and forgets a call that fails.
pub(super) struct BareLog {
    pub(super) door: Door,
    server: AbortHandle,
    _folder: TempDir,
}

#[derive(Deserialize)]
struct Webhook {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    labels: BTreeMap<String, String>,
}

/// A body that is to be kept, and whom to tell.
struct Waiting(Vec<u8>, oneshot::Sender<()>);

#[derive(Clone)]
struct Reaction {
    log: mpsc::Sender<Waiting>,
    room: SocketAddr,
    free: Arc<Mutex<Vec<Conn>>>,
}

impl BareLog {
    /// Starts it. It calls the chat platform at `room`.
    pub(super) async fn start(room: SocketAddr) -> anyhow::Result<Self> {
        let folder = folder()?;
        let file = File::create(folder.path().join("floor.log")).context("the floor's log")?;
        let (log, arrivals) = mpsc::channel(4096);
        tokio::task::spawn_blocking(move || keep(arrivals, file));
        let reaction = Reaction { log, room, free: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let door = Door { address: listener.local_addr()?, path: "/hook", token: None };
        let serve = async move {
            // A connection ends when its sender lets go of it.
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(reaction.clone().serve(stream));
            }
        };
        let server = tokio::spawn(serve).abort_handle();
        Ok(Self { door, server, _folder: folder })
    }
}

impl Drop for BareLog {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Reaction {
    async fn serve(self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::new();
        while let Some(message) = read(&mut stream, &mut buffer).await? {
            let status = if self.take(message.body).await.is_some() { "202 Accepted" } else { "503 Service Unavailable" };
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await?;
        }
        Ok(())
    }

    async fn take(&self, body: Vec<u8>) -> Option<()> {
        let webhook: Webhook = serde_json::from_slice(&body).ok()?;
        let (done, kept) = oneshot::channel();
        self.log.send(Waiting(body, done)).await.ok()?;
        kept.await.ok()?;
        let this = self.clone();
        tokio::spawn(async move {
            for alert in webhook.alerts {
                this.call(&alert).await;
            }
        });
        Some(())
    }

    async fn call(&self, alert: &Alert) {
        let instance = alert.labels.get("instance").map(String::as_str).unwrap_or_default();
        let body = serde_json::json!({ "channel": "CBENCH", "text": format!("{instance} does not answer") }).to_string();
        let free = self.lock().pop();
        let mut conn = free.unwrap_or_else(|| Conn::new(self.room));
        if conn.send(&request(self.room, "/api/chat.postMessage", None, &body)).await.is_ok() {
            self.lock().push(conn);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Conn>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(mut arrivals: mpsc::Receiver<Waiting>, mut file: File) -> io::Result<()> {
    let (mut batch, mut bytes) = (Vec::new(), Vec::new());
    while arrivals.blocking_recv_many(&mut batch, BATCH) > 0 {
        bytes.clear();
        for Waiting(body, _) in &batch {
            bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        for Waiting(_, done) in batch.drain(..) {
            // Who went away is kept all the same.
            let _gone = done.send(());
        }
    }
    Ok(())
}
