//! Alertmanager with a given configuration, alone or clustered.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::{START, answers, post_reload};
use crate::{Cmd, Proc, free_port, http, temp_dir};

/// An Alertmanager on loopback. Killing and restarting it keeps its ports and its data.
#[derive(Debug)]
pub struct Alertmanager {
    proc: Proc,
    dir: TempDir,
    port: u16,
    cluster: u16,
    flags: Vec<String>,
}

impl Alertmanager {
    /// Starts a single instance with a configuration (YAML).
    pub async fn start(config: &str) -> anyhow::Result<Self> {
        Self::launch_new(config, vec!["--cluster.listen-address=".into()], 0).await
    }

    /// Starts with more command-line flags, without a cluster unless they say so.
    pub async fn with_flags(config: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let mut all = vec!["--cluster.listen-address=".into()];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Self::launch_new(config, all, 0).await
    }

    /// Starts one that gossips with the given others, as two replicas in front of one Watchkeeper do.
    pub async fn clustered(config: &str, others: &[&Self]) -> anyhow::Result<Self> {
        let cluster = free_port();
        let mut flags =
            vec![format!("--cluster.listen-address=127.0.0.1:{cluster}"), format!("--cluster.advertise-address=127.0.0.1:{cluster}")];
        let peers = others.iter().map(|other| format!("--cluster.peer=127.0.0.1:{}", other.cluster));
        flags.extend(peers);
        Self::launch_new(config, flags, cluster).await
    }

    async fn launch_new(config: &str, flags: Vec<String>, cluster: u16) -> anyhow::Result<Self> {
        let dir = temp_dir("alertmanager")?;
        fs::write(dir.path().join("alertmanager.yml"), config)?;
        let port = free_port();
        let proc = launch(&dir, port, &flags).await?;
        Ok(Self { proc, dir, port, cluster, flags })
    }

    /// Its address, without a slash at the end.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// Where it listens, as Prometheus's `alerting.alertmanagers.static_configs.targets` wants it.
    pub fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process, to signal it or to read its log.
    pub fn proc(&mut self) -> &mut Proc {
        &mut self.proc
    }

    /// Posts alerts (a JSON array, as API v2 takes them).
    pub async fn post_alerts(&self, alerts: &Value) -> anyhow::Result<()> {
        let post = http()?.post(format!("{}/api/v2/alerts", self.url())).json(alerts);
        post.send().await?.error_for_status()?;
        Ok(())
    }

    /// The alerts that it holds.
    pub async fn alerts(&self) -> anyhow::Result<Vec<Value>> {
        let get = http()?.get(format!("{}/api/v2/alerts", self.url()));
        Ok(get.send().await?.error_for_status()?.json().await?)
    }

    /// Replaces the configuration and reloads it; an error carries Alertmanager's own words.
    pub async fn reload(&self, config: &str) -> anyhow::Result<()> {
        fs::write(self.dir.path().join("alertmanager.yml"), config)?;
        post_reload(&format!("{}/-/reload", self.url())).await
    }

    /// `kill -9`: what it kept in memory only is lost.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.proc.kill9()
    }

    /// Starts it again with the same ports and data; kills it first when it runs.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.proc.kill9()?;
        self.proc = launch(&self.dir, self.port, &self.flags).await?;
        Ok(())
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

async fn launch(dir: &TempDir, port: u16, flags: &[String]) -> anyhow::Result<Proc> {
    let server = Cmd::new("prometheus-alertmanager")
        .arg("--config.file=alertmanager.yml")
        .arg("--storage.path=data")
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(flags)
        .dir(dir.path());
    let mut proc = server.spawn()?;
    let (client, ready) = (http()?, format!("{}/-/ready", url(port)));
    proc.until_ready(START, async || answers(&client, &ready).await).await?;
    Ok(proc)
}
