//! `watchkeeper completion SHELL`: a script that completes our commands and options.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// Print a completion script.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// bash, zsh, fish, elvish or powershell.
    shell: Shell,
}

/// Prints it.
///
/// # Errors
/// Never; as the other commands.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    generate(args.shell, &mut crate::Cli::command(), "watchkeeper", &mut script);
    super::out(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}
