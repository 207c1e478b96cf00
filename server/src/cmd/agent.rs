//! `watchkeeper agent`: carries out orders on a host that the server does not reach.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::agent::settings::Settings;
use crate::agent::{Agent, token};
use crate::config::LogFormat;
use crate::lifecycle::Stop;
use crate::logging;

/// Run an agent, or make its keys.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Connect to NATS and carry out orders until stopped.
    Run {
        /// The agent's configuration.
        #[arg(long, short, default_value = "/etc/watchkeeper/agent.yaml")]
        config: PathBuf,
    },
    /// Make a key pair, NAME.pem and NAME.pub: one for the server's orders, one for each agent's reports.
    Keygen {
        /// What the files are called.
        name: String,
        /// Where they are put.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
    },
}

/// Runs the agent, or makes keys.
///
/// # Errors
/// If the configuration is wrong, or something cannot be opened.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Keygen { name, dir } => {
            token::generate(&dir, &name)?;
            super::out(&format!(
                "{}: keep it where it is used\n{}: give it to the other side",
                dir.join(format!("{name}.pem")).display(),
                dir.join(format!("{name}.pub")).display()
            ));
        }
        Command::Run { config } => {
            let settings = Settings::load(&config)?;
            logging::start(LogFormat::Json, &settings.level);
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(async {
                let stop = Stop::on_signals()?;
                Agent::open(settings, stop.soft.clone()).await?.run().await
            })?;
            // What was begun goes on under its shim.
            runtime.shutdown_background();
        }
    }
    Ok(ExitCode::SUCCESS)
}
