//! `automation status|pause|resume`: the kill switch.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::Remote;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Whether automation runs.
    Status,
    /// Stop every run that has not begun its next step.
    Pause {
        /// Why.
        reason: String,
    },
    /// Let it go on.
    Resume,
}

/// Runs the verb.
///
/// # Errors
/// If the server cannot be reached, or refuses.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Status => args.remote.show("/automation", |answer| {
            let flag = &answer["automation"];
            if flag["paused"] == true { format!("paused: {}", flag["reason"].as_str().unwrap_or_default()) } else { "on".to_owned() }
        }),
        Verb::Pause { reason } => args.remote.act("/automation", &json!({ "paused": true, "reason": reason })),
        Verb::Resume => args.remote.act("/automation", &json!({ "paused": false })),
    }
}
