//! `bench`: how fast this machine, with this store, takes alerts in and acts on them. A whole server is started for it, and really asked over HTTP.

mod bare;
mod bed;
mod ingest;
mod reaction;
mod report;
mod storm;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use crate::cmd::Format;
use crate::config::LogFormat;
use crate::lifecycle::Stop;
use crate::logging;

const EXAMPLES: &str = "Examples:
  watchkeeper bench ingest                                  16 senders, one alert each, for 10 s, on SQLite in a temporary folder
  watchkeeper bench ingest --alerts 20 --store postgres://wk@localhost/bench
  watchkeeper bench ingest --url http://127.0.0.1:8080/hook any other server that takes Alertmanager's webhook
  watchkeeper bench reaction -o json                        from the alert to the chat call, and to the command
  watchkeeper bench storm                                   10,000 alerts in one body, then 50,000 in a minute";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Accepted alerts a second with durable commits, and how long an accept takes.
    Ingest(ingest::Args),
    /// From an alert to the chat call, and to the command that it starts.
    Reaction(reaction::Args),
    /// Very many alerts at once, with people pressing buttons meanwhile.
    Storm(storm::Args),
}

/// What all of them take.
#[derive(clap::Args)]
struct Common {
    /// A store that is empty and may be filled: postgres://…, or sqlite:FILE. Default: SQLite in a temporary folder.
    #[arg(long)]
    store: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs one.
///
/// # Errors
/// If the server cannot be started, or something was lost.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    logging::start(LogFormat::Text, "error");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (format, report) = runtime.block_on(async {
        let stop = Stop::on_signals()?;
        match args.what {
            What::Ingest(args) => Ok((args.common.output, ingest::run(&args, stop).await?)),
            What::Reaction(args) => Ok((args.common.output, reaction::run(&args, stop).await?)),
            What::Storm(args) => anyhow::Ok((args.common.output, storm::run(&args, stop).await?)),
        }
    })?;
    // What still runs in the background is of no interest any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    report.print(format);
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
