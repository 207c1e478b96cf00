//! `watchkeeper agent`: carries out orders on a host that the server does not reach.

use std::path::PathBuf;
use std::process::ExitCode;

use domain::text::clean_line;
use serde_json::Value;

use super::client::Remote;
use super::client::table::{items, table, text};
use crate::agent::settings::Settings;
use crate::agent::{Agent, token};
use crate::config::LogFormat;
use crate::lifecycle::Stop;
use crate::logging;

/// Longest warning, in characters.
const WARNING: usize = 500;

/// Run an agent (`watchkeeper agent --config agent.yaml`), make its keys, or see which are there.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

/// Connect to NATS and carry out orders until stopped.
#[derive(clap::Args)]
struct Run {
    /// The agent's configuration.
    #[arg(long, short, default_value = "/etc/watchkeeper/agent.yaml")]
    config: PathBuf,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Connect to NATS and carry out orders until stopped: the same as without a word.
    Run(Run),
    /// The agents that a server knows: who is there, of which version, for which targets.
    List {
        #[command(flatten)]
        remote: Remote,
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
    match args.command.unwrap_or(Command::Run(args.run)) {
        Command::Keygen { name, dir } => {
            token::generate(&dir, &name)?;
            super::out(&format!(
                "{}: keep it where it is used\n{}: give it to the other side",
                dir.join(format!("{name}.pem")).display(),
                dir.join(format!("{name}.pub")).display()
            ));
        }
        Command::List { remote } => return remote.show("/agents", show),
        Command::Run(Run { config }) => {
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

fn show(answer: &Value) -> String {
    let row = |agent: &Value| {
        let announced = &agent["announced"];
        let list = |field: &str| {
            let all = announced[field].as_array().map_or(&[][..], Vec::as_slice);
            all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        };
        let state = if agent["here"] == true { "here" } else { "away" };
        vec![
            text(agent, "name"),
            state.to_owned(),
            text(announced, "version"),
            text(announced, "host"),
            list("targets"),
            text(agent, "heard_at"),
        ]
    };
    let rows: Vec<Vec<String>> = items(answer).iter().map(row).collect();
    let mut lines = vec![table(&["NAME", "STATE", "VERSION", "HOST", "TARGETS", "HEARD"], &rows)];
    for agent in items(answer) {
        let told = agent["warnings"].as_array().map_or(&[][..], Vec::as_slice);
        // Words about what another host said: its escapes must not reach the terminal.
        lines.extend(told.iter().filter_map(Value::as_str).map(|told| clean_line(&format!("{}: {told}", text(agent, "name")), WARNING)));
    }
    lines.join("\n")
}
