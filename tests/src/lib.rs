//! The test harness: real peers on free loopback ports, fakes of the chat platforms, and the few helpers that every test wants.
//!
//! Nothing here sleeps for a fixed time: `eventually` polls with a deadline, and a failure shows the last reason and the peer's log.

mod authority;
mod cmd;
pub mod fake;
mod netns;
pub mod peers;
mod ports;
mod proc;
mod proxy;
mod reaper;
mod sql;
mod tally;
mod wait;
pub mod world;

pub use authority::{Authority, Certificate};
pub use cmd::{Cmd, Done};
/// The WebDriver client, for tests that drive `peers::Chromium`.
pub use fantoccini;
pub use netns::Netns;
pub use ports::free_port;
pub use proc::Proc;
pub use proxy::Proxy;
pub use reaper::temp_dir;
pub use rustix::process::Signal;
pub use sql::sql;
pub use tally::{FAULTS, SWEEPS, Tally, long, rounds, table};
pub use wait::eventually;

use std::{path::PathBuf, time::Duration};

/// The root of the working tree, for tests that read the project's own files.
pub fn repo() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Where `./test` keeps the pinned programs that Debian does not have (see `need_wheel` there).
pub fn tools() -> PathBuf {
    repo().join("target/tools")
}

/// Like [`http`], trusting this certificate (PEM) and no other.
#[expect(clippy::disallowed_methods, reason = "the harness's one home for HTTP clients")]
pub fn http_trusting(pem: &[u8]) -> anyhow::Result<reqwest::Client> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
    Ok(client.tls_certs_only([reqwest::Certificate::from_pem(pem)?]).build()?)
}

/// An HTTP client that never leaves this machine by a proxy, never follows a redirect and gives up after 30 s.
///
/// Make one per test: its idle connections belong to the runtime that opened them.
#[expect(clippy::disallowed_methods, reason = "the harness's one home for HTTP clients")]
pub fn http() -> anyhow::Result<reqwest::Client> {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(Duration::from_secs(30));
    Ok(client.build()?)
}
