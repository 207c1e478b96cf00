//! The commands, one file each, and what they share: printing, and reading a configuration.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod completion;
pub(crate) mod demo;
mod demo_browser;
pub(crate) mod demo_service;
pub(crate) mod doctor;
pub(crate) mod evidence;
pub(crate) mod login_link;
pub(crate) mod serve;
pub(crate) mod simulate;

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use domain::rules::Problem;

use crate::config::{self, Config};

/// How a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Prints a line. A reader that went away (`| head`) is no fault.
pub(crate) fn out(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Tells a person something on the error stream: for secrets that must not reach the log.
pub(crate) fn tell(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Prints an error with its causes.
pub(crate) fn fail(error: &anyhow::Error) {
    let red = std::io::stderr().is_terminal();
    let (on, off) = if red { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    drop(writeln!(std::io::stderr().lock(), "{on}error{off}: {error:#}"));
}

/// All findings of a configuration as one error.
pub(crate) fn problems(problems: &[Problem]) -> anyhow::Error {
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n");
    anyhow::anyhow!("the configuration is wrong; nothing was started\n\n{text}")
}

/// Reads a configuration.
///
/// # Errors
/// All findings.
pub(crate) fn load(path: &Path) -> anyhow::Result<Config> {
    Config::load(path, &config::environment).map_err(|found| problems(&found))
}

/// Runs a command that waits for things.
///
/// # Errors
/// What the command says.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// A new file for its owner alone; one that is there already is kept.
///
/// # Errors
/// If it is there, or cannot be made.
pub(crate) fn private_file(path: &Path) -> anyhow::Result<File> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    made.with_context(|| format!("cannot write {}", path.display()))
}

/// An HTTP client for the command line: to the server that the caller named, nowhere else.
pub(crate) fn http_client(timeout: Duration) -> anyhow::Result<reqwest::Client> {
    #[expect(clippy::disallowed_methods, reason = "the home of the command line's client; it asks the server that the caller names")]
    let builder = reqwest::Client::builder();
    Ok(builder.timeout(timeout).redirect(reqwest::redirect::Policy::none()).no_proxy().build()?)
}

/// `schema`: the JSON Schema of the configuration.
///
/// # Errors
/// If it cannot be written as JSON.
pub(crate) fn schema() -> anyhow::Result<ExitCode> {
    out(&serde_json::to_string_pretty(&config::json_schema())?);
    Ok(ExitCode::SUCCESS)
}
