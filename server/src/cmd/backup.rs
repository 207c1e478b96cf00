//! `backup`: a copy of the store while it is in use, and the way back, which begins a new epoch.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use domain::id::StartId;
use domain::time::{Clock, SystemClock};
use secrecy::ExposeSecret;
use store::{NewEpoch, Options, Store, backup};

use super::out;
use crate::config::Config;
use crate::keys;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Copy the SQLite store to a file, while the server works.
    Create {
        /// Configuration: a file or a folder.
        #[arg(long, short, env = "WATCHKEEPER_CONFIG", default_value_os_t = crate::default_config())]
        config: PathBuf,
        /// The file to write; its description gets the same name with `.json` behind it. Default: a name with the time, here.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Put a backup in the place of the SQLite store. The server must be stopped.
    Restore {
        /// What `backup create` wrote.
        file: PathBuf,
        /// Configuration: a file or a folder.
        #[arg(long, short, env = "WATCHKEEPER_CONFIG", default_value_os_t = crate::default_config())]
        config: PathBuf,
        /// Put a store aside that is there already.
        #[arg(long)]
        force: bool,
    },
    /// Say that the database was restored by other means (pg_restore, a copied file): begins the new epoch. The servers must be stopped.
    Restored {
        /// Configuration: a file or a folder.
        #[arg(long, short, env = "WATCHKEEPER_CONFIG", default_value_os_t = crate::default_config())]
        config: PathBuf,
    },
}

const POSTGRES: &str = "the store is PostgreSQL, whose own tools make better backups: they also keep what was written since\n\
    \n  pg_dump --format=custom --file=watchkeeper.dump DATABASE_URL     a copy, while the servers work\
    \n  pg_basebackup and archived WAL                                   any moment of the past\
    \n\nto restore: stop all servers, pg_restore (or recover), then `watchkeeper backup restored --config ..` before the first one starts";

/// Makes or uses a backup.
///
/// # Errors
/// If it cannot be made or used; says what to do.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Create { config, out } => create(&config, out).await,
            Command::Restore { file, config, force } => restore(&config, &file, force).await,
            Command::Restored { config } => restored(&config).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn create(config: &Path, file: Option<PathBuf>) -> anyhow::Result<()> {
    let config = super::load(config)?;
    if config.store.postgres {
        bail!(POSTGRES);
    }
    let now = SystemClock.now();
    let file = file.unwrap_or_else(|| PathBuf::from(format!("watchkeeper-{}.backup", now.strftime("%Y%m%dT%H%M%SZ"))));
    let info = backup::create(config.store.url.expose_secret(), &file, now).await?;
    out(&format!(
        "{}: {} bytes, verified, of {}\nIts description is {}.json; keep both, away from this machine.\n\
         The keys are not in it: keep {} and the configuration as well, somewhere else.\n\
         To go back to it: stop the server, then `watchkeeper backup restore {} --config ..`",
        file.display(),
        info.bytes,
        info.made_at,
        file.display(),
        config.data_dir.join("keys").display(),
        file.display(),
    ));
    Ok(())
}

async fn restore(config: &Path, file: &Path, force: bool) -> anyhow::Result<()> {
    let config = super::load(config)?;
    if config.store.postgres {
        bail!(POSTGRES);
    }
    std::fs::create_dir_all(&config.data_dir).with_context(|| format!("cannot make the data folder {}", config.data_dir.display()))?;
    let (info, epoch, aside) = backup::restore(options(&config)?, file, force, publishes(&config)).await?;
    out(&format!("The store is as it was at {}.", info.made_at));
    if !aside.is_empty() {
        let names: Vec<String> = aside.iter().map(|name| name.display().to_string()).collect();
        out(&format!("What was there is kept as {}.", names.join(", ")));
    }
    tell(epoch);
    Ok(())
}

async fn restored(config: &Path) -> anyhow::Result<()> {
    let config = super::load(config)?;
    let store = Store::open(options(&config)?).await.context("cannot open the store")?;
    if publishes(&config) {
        store.publish_lifecycle();
    }
    let epoch = store.begin_epoch(0).await?;
    store.close().await;
    tell(epoch);
    Ok(())
}

fn tell(new: NewEpoch) {
    out(&format!(
        "Epoch {}: {} pending approvals expired, {} runs that were under way are unknown, {} that had not begun are off, {} undecided requests of people are \
         dropped, everybody is signed out, and automation is paused.\nNow: start the server, look at what happened after the backup (chat, targets, \
         Alertmanager), settle the unknown runs, withdraw tokens that were withdrawn since, cancel what `watchkeeper run list --active` shows and is \
         not wanted, then `watchkeeper automation resume`.",
        new.epoch, new.expired, new.unknown, new.superseded, new.dropped
    ));
}

/// Whether somebody wants to hear of changes. They go out when the server starts.
fn publishes(config: &Config) -> bool {
    config.nats.as_ref().is_some_and(|nats| nats.publish.is_some())
}

fn options(config: &Config) -> anyhow::Result<Options> {
    let audit_keys = keys::load(&config.keys.audit, &config.data_dir, "audit")?;
    Ok(Options {
        url: config.store.url.expose_secret().to_owned(),
        clock: Arc::new(SystemClock),
        instance: "backup".to_owned(),
        start: StartId::new(SystemClock.now()),
        audit_keys,
        max_waiting: 1,
    })
}
