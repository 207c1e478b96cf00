//! The nouns of the command line, over the server's API.

pub(crate) mod approval;
pub(crate) mod automation;
pub(crate) mod incident;
pub(crate) mod run;
pub(crate) mod runbook;
pub(super) mod table;
pub(crate) mod token;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::Value;

use super::{Format, out};

/// How to reach the server.
#[derive(clap::Args)]
pub(crate) struct Remote {
    /// Address of the server.
    #[arg(long, global = true, env = "WATCHKEEPER_SERVER", default_value = "http://127.0.0.1:9095")]
    server: String,
    /// A file with an API token.
    #[arg(long, global = true, env = "WATCHKEEPER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
}

impl Remote {
    /// Asks something and prints the answer: as it is, or as `show` would have it for people.
    pub(crate) fn show(&self, path: &str, show: impl FnOnce(&Value) -> String) -> anyhow::Result<ExitCode> {
        let answer = self.call(Method::GET, path, None)?;
        match self.output {
            Format::Json => out(&serde_json::to_string_pretty(&answer)?),
            Format::Table => out(&show(&answer)),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Asks for something to be done and prints what became of it.
    pub(crate) fn act(&self, path: &str, body: &Value) -> anyhow::Result<ExitCode> {
        let answer = self.call(Method::POST, path, Some(body))?;
        match self.output {
            Format::Json => out(&serde_json::to_string_pretty(&answer)?),
            Format::Table => out(answer["text"].as_str().unwrap_or("Done.")),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Asks something and gives the answer.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None)
    }

    /// Sends something and gives the answer.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body))
    }

    /// Ends something.
    pub(crate) fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.call(Method::DELETE, path, None).map(drop)
    }

    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let file = self.token_file.as_deref().context("name a file with an API token: --token-file FILE, or WATCHKEEPER_TOKEN_FILE")?;
        let token = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let url = format!("{}/api/v1{path}", self.server.trim_end_matches('/'));
            let mut request = super::http_client(Duration::from_secs(15))?.request(method, &url).bearer_auth(token.trim());
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().await.with_context(|| format!("cannot reach the server at {}", self.server))?;
            let status = answer.status();
            let text = answer.text().await?;
            let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            if !status.is_success() {
                bail!("{}", value["detail"].as_str().or(value["title"].as_str()).unwrap_or(&format!("the server answered {status}")));
            }
            Ok(value)
        })
    }
}
