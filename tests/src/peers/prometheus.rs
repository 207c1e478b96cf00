//! Prometheus with a given configuration and rules.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::{START, answers, post_reload};
use crate::{Cmd, Proc, free_port, http, temp_dir};

/// A Prometheus on loopback.
#[derive(Debug)]
pub struct Prometheus {
    proc: Proc,
    dir: TempDir,
    port: u16,
    flags: Vec<String>,
}

impl Prometheus {
    /// Starts with a configuration (YAML). `rule_files: ["rules/*.yml"]` names what `write_rules` writes.
    pub async fn start(config: &str) -> anyhow::Result<Self> {
        Self::with_rules(config, &[]).await
    }

    /// Starts with a configuration and rule files, each a name and its YAML.
    pub async fn with_rules(config: &str, rules: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::with_flags(config, rules, &[]).await
    }

    /// The same with more flags, such as `--rules.alert.resend-delay=1s`.
    pub async fn with_flags(config: &str, rules: &[(&str, &str)], flags: &[&str]) -> anyhow::Result<Self> {
        let dir = temp_dir("prometheus")?;
        fs::create_dir(dir.path().join("rules"))?;
        fs::write(dir.path().join("prometheus.yml"), config)?;
        for (name, yaml) in rules {
            fs::write(dir.path().join("rules").join(name), yaml)?;
        }
        let port = free_port();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let proc = launch(&dir, port, &flags).await?;
        Ok(Self { proc, dir, port, flags })
    }

    /// Its address, without a slash at the end.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// The process, to signal it or to read its log.
    pub fn proc(&mut self) -> &mut Proc {
        &mut self.proc
    }

    /// Replaces the configuration; takes effect with `reload`.
    pub fn write_config(&self, config: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.dir.path().join("prometheus.yml"), config)?)
    }

    /// Writes a rule file; takes effect with `reload`.
    pub fn write_rules(&self, name: &str, yaml: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.dir.path().join("rules").join(name), yaml)?)
    }

    /// `POST /-/reload`; an error carries Prometheus's own words.
    pub async fn reload(&self) -> anyhow::Result<()> {
        post_reload(&format!("{}/-/reload", self.url())).await
    }

    /// An instant query: the `result` array of the answer.
    pub async fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let ask = http()?.get(format!("{}/api/v1/query", self.url())).query(&[("query", expression)]);
        let mut answer: Value = ask.send().await?.error_for_status()?.json().await?;
        Ok(serde_json::from_value(answer["data"]["result"].take())?)
    }

    /// `kill -9`.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.proc.kill9()
    }

    /// Starts it again with the same port and data; kills it first when it runs.
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
    let server = Cmd::new("prometheus")
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=data")
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--web.enable-lifecycle")
        .args(flags)
        .dir(dir.path());
    let mut proc = server.spawn()?;
    let (client, ready) = (http()?, format!("{}/-/ready", url(port)));
    proc.until_ready(START, async || answers(&client, &ready).await).await?;
    Ok(proc)
}
