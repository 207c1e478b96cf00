//! A NATS server with JetStream on a file store, from the pinned wheel that `./test` installs.

use std::fs;
use std::path::PathBuf;

use anyhow::ensure;
use futures::future::try_join_all;
use tempfile::TempDir;

use super::{START, answers};
use crate::{Cmd, Proc, free_port, http, temp_dir, tools};

/// A NATS server on loopback. Killing and restarting it keeps its ports and its store.
#[derive(Debug)]
pub struct Nats {
    proc: Proc,
    dir: TempDir,
    host: String,
    port: u16,
    monitor: u16,
}

impl Nats {
    /// A server that anybody on loopback may use.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with_config("").await
    }

    /// A server with more lines in its configuration, for example `authorization { token: s3cret }`.
    pub async fn with_config(lines: &str) -> anyhow::Result<Self> {
        Self::at("127.0.0.1", lines).await
    }

    /// The same, on another address of this host.
    pub async fn at(host: &str, lines: &str) -> anyhow::Result<Self> {
        Self::begin(temp_dir("nats")?, host, lines).await
    }

    /// So many servers that keep their streams together, and sync before they acknowledge: `node-0`, `node-1`, ... Each may be killed and restarted.
    pub async fn cluster(size: usize) -> anyhow::Result<Vec<Self>> {
        let routes: Vec<String> = (0..size).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let all = routes.iter().map(|route| format!("nats://{route}")).collect::<Vec<_>>().join(", ");
        let nodes = routes.iter().enumerate().map(async |(number, route)| {
            let dir = temp_dir("nats")?;
            // It takes the place of the block that every server has.
            let lines = format!(
                "server_name: node-{number}\ncluster {{ name: harness, listen: {route}, routes: [{all}] }}\n\
                 jetstream {{ store_dir: \"{}\", sync_interval: always }}",
                store(&dir).display()
            );
            Self::begin(dir, "127.0.0.1", &lines).await
        });
        // None of them gets ready alone.
        try_join_all(nodes).await
    }

    async fn begin(dir: TempDir, host: &str, lines: &str) -> anyhow::Result<Self> {
        let (port, monitor) = (free_port(), free_port());
        configure(&dir, (host, port), monitor, lines)?;
        let proc = launch(&dir, monitor).await?;
        Ok(Self { proc, dir, host: host.to_owned(), port, monitor })
    }

    /// The address for clients.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.host, self.port)
    }

    /// The address of the monitoring endpoints (`/varz`, `/jsz`).
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// The process, to signal it or to read its log.
    pub fn proc(&mut self) -> &mut Proc {
        &mut self.proc
    }

    /// `kill -9`.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.proc.kill9()
    }

    /// Removes the JetStream store. The server must be dead.
    pub fn delete_store(&mut self) -> anyhow::Result<()> {
        ensure!(!self.proc.is_running(), "kill the server before its store is deleted");
        Ok(fs::remove_dir_all(store(&self.dir))?)
    }

    /// Copies the JetStream store. The server must be dead.
    pub async fn copy_store(&mut self) -> anyhow::Result<TempDir> {
        ensure!(!self.proc.is_running(), "kill the server before its store is copied");
        let copy = temp_dir("nats-store")?;
        Cmd::new("cp").arg("-a").arg(store(&self.dir).join(".")).arg(copy.path()).run(START).await?.ok()?;
        Ok(copy)
    }

    /// Puts such a copy in the place of the store. The server must be dead.
    pub fn put_back(&mut self, copy: TempDir) -> anyhow::Result<()> {
        self.delete_store()?;
        Ok(fs::rename(copy.keep(), store(&self.dir))?)
    }

    /// Starts it again with other lines in its configuration.
    pub async fn reconfigure(&mut self, lines: &str) -> anyhow::Result<()> {
        configure(&self.dir, (&self.host, self.port), self.monitor, lines)?;
        self.restart().await
    }

    /// Starts it again with the same ports and what is left of its store; kills it first when it runs.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.proc.kill9()?;
        self.proc = launch(&self.dir, self.monitor).await?;
        Ok(())
    }
}

fn store(dir: &TempDir) -> PathBuf {
    dir.path().join("store")
}

fn configure(dir: &TempDir, (host, port): (&str, u16), monitor: u16, lines: &str) -> anyhow::Result<()> {
    let store = store(dir);
    let config = format!("listen: {host}:{port}\nhttp: 127.0.0.1:{monitor}\njetstream {{ store_dir: \"{}\" }}\n{lines}\n", store.display());
    Ok(fs::write(dir.path().join("nats.conf"), config)?)
}

async fn launch(dir: &TempDir, monitor: u16) -> anyhow::Result<Proc> {
    let server = Cmd::new(tools().join("bin/nats-server")).arg("-c").arg(dir.path().join("nats.conf"));
    let mut proc = server.spawn()?;
    let (client, url) = (http()?, format!("http://127.0.0.1:{monitor}/healthz"));
    proc.until_ready(START, async || answers(&client, &url).await).await?;
    Ok(proc)
}
