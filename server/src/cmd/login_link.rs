//! `login-link`: a one-time link to the console, made from the key file alone, so that it works while the server runs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use domain::duration::Dur;
use domain::time::{Clock, SystemClock};
use secrecy::ExposeSecret;
use webhook_gateway::LoginLinks;

use super::out;
use crate::keys;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Who signs in: a name from `principals`.
    name: String,
    /// Configuration: a file or a folder.
    #[arg(long, short, env = "WATCHKEEPER_CONFIG", default_value_os_t = crate::default_config())]
    config: PathBuf,
    /// How long the link is good, at most 24h.
    #[arg(long, default_value = "15m")]
    life: Dur,
}

/// Prints a link.
///
/// # Errors
/// If there is no such person, or the key cannot be read.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = super::load(&args.config)?;
    if !config.rules.people.principals.contains_key(&args.name) {
        let known = config.rules.people.principals.keys().cloned().collect::<Vec<_>>().join(", ");
        bail!("there is no {:?} under `principals`: it has {known}", args.name);
    }
    let life = jiff::SignedDuration::try_from(args.life.as_std())?;
    if life > jiff::SignedDuration::from_hours(24) {
        bail!("a sign-in link is good for at most 24h");
    }
    let links = LoginLinks::new(keys::load(&config.keys.session, &config.data_dir, "session")?);
    let token = links.mint(&args.name, SystemClock.now(), life)?;
    out(&format!("{}/login?token={}", config.server.public_url.trim_end_matches('/'), token.expose_secret()));
    Ok(ExitCode::SUCCESS)
}
