//! `serve`: runs the server until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::App;
use crate::lifecycle::Stop;
use crate::logging;
use crate::roles::{Role, Roles};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration: a file or a folder.
    #[arg(long, short, env = "WATCHKEEPER_CONFIG", default_value_os_t = crate::default_config())]
    config: PathBuf,
    /// Do only these parts of the work; other servers over the same PostgreSQL do the others.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE,..")]
    only: Vec<Role>,
}

/// Serves.
///
/// # Errors
/// If the configuration is wrong, or something cannot be opened.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = super::load(&args.config)?;
    let roles = Roles::only(&args.only, &config)?;
    logging::start(config.log.format, &config.log.level);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = Stop::on_signals()?;
        let running = App::start(config, roles, stop.clone()).await?;
        running.reload_from(args.config)?;
        // It serves by now: a store that fails for a moment ends nothing.
        if roles.gateway
            && let Err(error) = running.first_login().await
        {
            tracing::warn!(error = %format!("{error:#}"), "the first sign-in link could not be made: run `watchkeeper login-link NAME`");
        }
        stop.soft.cancelled().await;
        running.stop().await;
        anyhow::Ok(())
    })?;
    // What a hard stop left behind is not waited for.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}
