//! A real headless Chromium, driven over WebDriver.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use fantoccini::{Client, ClientBuilder, wd::Capabilities};
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{START, answers};
use crate::{Cmd, Proc, free_port, http, temp_dir};

/// Root needs `--no-sandbox`; the network flags keep it from calling home at every start.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1000",
];

/// One line of the browser's console.
#[derive(Debug, Clone, Deserialize)]
pub struct BrowserLog {
    /// `SEVERE`, `WARNING`, `INFO` or `DEBUG`.
    pub level: String,
    /// What said it: `console-api`, `javascript`, `network`, `security`, ...
    pub source: String,
    /// The text, with address and line in front.
    pub message: String,
}

/// A browser with a fresh profile and one window.
#[derive(Debug)]
pub struct Chromium {
    client: Client,
    session_url: String,
    seen: Mutex<Vec<BrowserLog>>,
    driver: Proc,
    _profile: TempDir,
}

impl Chromium {
    /// Starts chromedriver and a browser.
    pub async fn start() -> anyhow::Result<Self> {
        let profile = temp_dir("chromium")?;
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let driver = Cmd::new("chromedriver").arg(format!("--port={port}")).env("HOME", profile.path()).env("TMPDIR", profile.path());
        let mut driver = driver.spawn()?;
        let (http, status) = (http()?, format!("{url}/status"));
        driver.until_ready(START, async || answers(&http, &status).await).await?;
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities(profile.path())?)
            .connect(&url)
            .await
            .with_context(|| format!("no browser session. chromedriver's log ends with:\n{}", driver.log_tail()))?;
        let id = client.session_id().await?.context("a session without an id")?;
        Ok(Self { client, session_url: format!("{url}/session/{id}"), seen: Mutex::default(), driver, _profile: profile })
    }

    /// The page: `goto`, `find`, `wait`, `execute` and the rest of fantoccini.
    pub fn page(&self) -> &Client {
        &self.client
    }

    /// Writes what the window shows to a PNG file.
    pub async fn screenshot(&self, path: impl AsRef<Path>) -> anyhow::Result<()> {
        Ok(fs::write(path, self.client.screenshot().await?)?)
    }

    /// Everything that the console has said since the start.
    pub async fn logs(&self) -> anyhow::Result<Vec<BrowserLog>> {
        // Chromedriver's own command: each call hands out what is new.
        let ask = http()?.post(format!("{}/se/log", self.session_url)).json(&json!({"type": "browser"}));
        let mut answer: Value = ask.send().await?.error_for_status()?.json().await?;
        let new: Vec<BrowserLog> = serde_json::from_value(answer["value"].take())?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(new);
        Ok(seen.clone())
    }

    /// The console lines that tell of a violated Content-Security-Policy.
    pub async fn csp_violations(&self) -> anyhow::Result<Vec<String>> {
        let logs = self.logs().await?.into_iter().map(|line| line.message);
        Ok(logs.filter(|message| message.contains("Content Security Policy")).collect())
    }

    /// The driver's process, to read its log.
    pub fn proc(&mut self) -> &mut Proc {
        &mut self.driver
    }
}

fn capabilities(profile: &Path) -> anyhow::Result<Capabilities> {
    let mut args: Vec<String> = FLAGS.map(str::to_owned).into();
    args.push(format!("--user-data-dir={}", profile.join("profile").display()));
    let wanted = json!({
        "browserName": "chrome",
        "goog:chromeOptions": {"args": args},
        "goog:loggingPrefs": {"browser": "ALL"},
    });
    Ok(serde_json::from_value(wanted)?)
}
