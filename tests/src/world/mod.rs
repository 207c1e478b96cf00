//! A whole Watchkeeper for a test: the real program with a configuration of its own, what it supervises, and what people and sources do to it.
//!
//! A [`Plan`] says what it looks like; [`Plan::start`] starts it. It is killed with its children on drop, and its log must hold no error that
//! the plan does not allow.

mod alert;
mod api;
mod console;
mod plan;

pub use alert::{Alert, body};
pub use api::Answer;
pub use console::{Console, Form, forms};
pub use plan::{ANN, BEN, CLEO, GUS, Ledger, OLAF, Plan, ROBO};

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{Cmd, Proc};

/// How long something may take that needs no waiting: generous, because other tests share the machine.
pub const SOON: Duration = Duration::from_secs(60);
/// Lines of the log that a failure shows.
const TAIL: usize = 40;

/// A running Watchkeeper.
pub struct World {
    plan: Plan,
    proc: Option<Proc>,
    /// What servers wrote that have ended.
    earlier: String,
    http: reqwest::Client,
    tokens: Mutex<HashMap<String, String>>,
}

impl World {
    async fn launch(plan: Plan) -> anyhow::Result<Self> {
        let mut world = Self { plan, proc: None, earlier: String::new(), http: crate::http()?, tokens: Mutex::default() };
        world.start().await?;
        Ok(world)
    }

    /// Its address, without a slash at the end.
    pub fn url(&self) -> String {
        self.plan.url()
    }

    /// The address of the supervised service.
    pub fn service_url(&self) -> String {
        format!("http://{}", self.plan.service())
    }

    /// Where the supervised service listens, as Prometheus names its targets.
    pub fn service(&self) -> String {
        self.plan.service()
    }

    /// The folder for everything that belongs to this test.
    pub fn dir(&self) -> &Path {
        self.plan.dir()
    }

    /// The folder of the configuration.
    pub fn config(&self) -> PathBuf {
        self.plan.config_dir()
    }

    /// The secret of the source `am`.
    pub fn source_token(&self) -> &'static str {
        plan::SOURCE_TOKEN
    }

    /// The HTTP client of this world.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The running server.
    ///
    /// # Errors
    /// If none runs.
    pub fn proc(&mut self) -> anyhow::Result<&mut Proc> {
        self.proc.as_mut().context("the server does not run")
    }

    /// Everything that its servers wrote.
    pub fn log(&self) -> String {
        let now = self.proc.as_ref().map(Proc::log).unwrap_or_default();
        format!("{}{now}", self.earlier)
    }

    /// The lines of the log that are JSON, which all are but a few words for the terminal.
    pub fn log_lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// `kill -9` of the server alone; its children live on.
    ///
    /// # Errors
    /// If none runs.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.proc()?.kill9()?;
        self.put_away();
        Ok(())
    }

    /// Stops it as `systemctl stop` would.
    ///
    /// # Errors
    /// If it does not end by itself, or badly.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let proc = self.proc()?;
        proc.term()?;
        let status = proc.wait(SOON).await?;
        ensure!(status.success(), "the server ended with {status}");
        self.put_away();
        Ok(())
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let mut proc = self.plan.serve()?.spawn()?;
        let ready = format!("{}/readyz", self.url());
        let probe = async || -> anyhow::Result<()> {
            self.http.get(&ready).send().await?.error_for_status()?;
            Ok(())
        };
        let came = proc.until_ready(SOON, probe).await;
        self.proc = Some(proc);
        came
    }

    /// Runs another command of the program, with what the plan gives it.
    ///
    /// # Errors
    /// Never; see [`Cmd::run`].
    pub fn command(&self, args: &[&str]) -> Cmd {
        self.plan.command().args(args)
    }

    /// The processes of the supervised service: one if it is well, and never two.
    pub fn service_pids(&self) -> Vec<u32> {
        let place = self.plan.service();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let serves = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.contains(&b"demo-service".as_slice()) && words.contains(&place.as_bytes()) && !words.contains(&b"setsid".as_slice())
        };
        pids.filter(serves).collect()
    }

    /// `kill -9` of the supervised service.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_service(&self) -> anyhow::Result<()> {
        let pids = self.service_pids();
        ensure!(pids.len() == 1, "the service has {} processes", pids.len());
        let pid = rustix::process::Pid::from_raw(i32::try_from(pids[0])?).context("no pid")?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
    }

    /// Whether the supervised service answers.
    pub async fn service_answers(&self) -> bool {
        let answer = self.http.get(format!("{}/health", self.service_url())).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// The errors in the log that the plan does not allow.
    pub fn errors(&self) -> Vec<String> {
        let told = self.log();
        let errors = told.lines().filter(|line| line.contains("\"level\":\"ERROR\"") || line.contains("panicked at"));
        errors.filter(|line| !self.plan.allowed.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
    }

    fn put_away(&mut self) {
        if let Some(proc) = self.proc.take() {
            self.earlier.push_str(&proc.log());
            // Its children live on in its session, which would end with it: they end with the world.
            self.plan.keep(proc);
        }
    }
}

impl Drop for World {
    #[expect(clippy::print_stderr, reason = "the test runner shows it for a failed test only")]
    fn drop(&mut self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("The server's log ends with:\n{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        let errors = self.errors();
        if !errors.is_empty() && !std::thread::panicking() {
            panic!("the server logged errors:\n{}", errors.join("\n"));
        }
    }
}
