//! `watchkeeper`: one binary with sub-commands. This file only reads the command line; each command has its file in `cmd/`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod agent;
mod alone;
mod app;
mod audit;
mod beat;
mod bench;
mod bus;
mod cmd;
mod config;
mod doctor;
mod keys;
mod lifecycle;
mod logging;
mod lookup;
mod probe;
mod recorder;
mod reload;
mod roles;
mod running;

/// A decision makes many small things on several threads, which took glibc's allocator a tenth of all time. C libraries keep glibc's: to take its place there
/// meets whatever is preloaded (libfaketime waits for ever).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Event-driven automation for people on call: alerts become incidents, approved remedies run once, and everything is told and kept.
#[derive(Parser)]
#[command(name = "watchkeeper", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  watchkeeper demo                              see it work, on this machine, in a minute
  watchkeeper check /etc/watchkeeper            is the configuration right?
  watchkeeper doctor --config /etc/watchkeeper  will it work on this machine?
  watchkeeper simulate /etc/watchkeeper < alert.json
  watchkeeper serve --config /etc/watchkeeper
  watchkeeper incident list --server http://127.0.0.1:9095 --token-file token";

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(cmd::serve::Args),
    /// See the main job work: a service breaks, you approve, it is restarted and verified.
    Demo(cmd::demo::Args),
    /// Check a configuration and say what is wrong with it, where.
    Check(cmd::check::Args),
    /// Look at everything that the server needs: database, disk, NATS, chat, keys, programs.
    Doctor(cmd::doctor::Args),
    /// Carry out orders on a host that the server does not reach.
    #[command(alias = "agents")]
    Agent(cmd::agent::Args),
    /// Print a completion script for your shell.
    Completion(cmd::completion::Args),
    /// Show what a webhook body would do: route, incident, runbook, who may approve.
    Simulate(cmd::simulate::Args),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print a one-time link that signs a person in to the console.
    LoginLink(cmd::login_link::Args),
    /// Incidents: list, show, acknowledge, resolve, note.
    Incident(cmd::client::incident::Args),
    /// Runs: list, show, cancel, settle.
    Run(cmd::client::run::Args),
    /// Approvals: list, show, approve, deny.
    Approval(cmd::client::approval::Args),
    /// Runbooks: list, run.
    Runbook(cmd::client::runbook::Args),
    /// All automation: status, pause, resume.
    Automation(cmd::client::automation::Args),
    /// API tokens: create, list, revoke.
    Token(cmd::client::token::Args),
    /// The audit log: verify it, export it, print the public key of its checkpoints.
    Audit(cmd::audit::Args),
    /// One incident as a signed file that verifies offline: export, verify.
    Evidence(cmd::evidence::Args),
    /// Copies of the store: create, restore.
    Backup(cmd::backup::Args),
    /// Measure this machine: accepted alerts a second, reaction times, storms.
    Bench(bench::Args),
    /// The small service that the demo breaks.
    #[command(hide = true)]
    DemoService {
        /// Where to listen.
        #[arg(long)]
        listen: std::net::SocketAddr,
    },
}

fn main() -> ExitCode {
    // A shim is started for every command: it must be there at once, and needs nothing of what follows.
    if std::env::args_os().nth(1).is_some_and(|word| word == actions::shim::WORD) {
        return actions::shim::run();
    }
    // One provider for every TLS user in the process; a second install is refused and changes nothing.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            cmd::fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => cmd::serve::run(args),
        Command::Demo(args) => cmd::demo::run(args),
        Command::Check(args) => cmd::check::run(args),
        Command::Doctor(args) => cmd::doctor::run(args),
        Command::Agent(args) => cmd::agent::run(args),
        Command::Completion(args) => cmd::completion::run(args),
        Command::Simulate(args) => cmd::simulate::run(args),
        Command::Schema => cmd::schema(),
        Command::LoginLink(args) => cmd::login_link::run(args),
        Command::Incident(args) => cmd::client::incident::run(args),
        Command::Run(args) => cmd::client::run::run(args),
        Command::Approval(args) => cmd::client::approval::run(args),
        Command::Runbook(args) => cmd::client::runbook::run(args),
        Command::Automation(args) => cmd::client::automation::run(args),
        Command::Token(args) => cmd::client::token::run(args),
        Command::Audit(args) => cmd::audit::run(args),
        Command::Evidence(args) => cmd::evidence::run(args),
        Command::Backup(args) => cmd::backup::run(args),
        Command::Bench(args) => bench::run(args),
        Command::DemoService { listen } => cmd::demo_service::run(listen),
    }
}

/// The usual place of the configuration.
fn default_config() -> PathBuf {
    PathBuf::from("/etc/watchkeeper")
}
