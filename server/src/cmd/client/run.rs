//! `run list|show|watch|cancel|settle`.

use std::process::ExitCode;

use clap::Subcommand;
use domain::run::Settlement;
use serde_json::{Value, json};

use super::Remote;
use super::table::{items, table, text};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs, newest first.
    List {
        /// Only those that have not ended.
        #[arg(long)]
        active: bool,
    },
    /// One run and its journal.
    Show { id: String },
    /// See what one prints while it runs, until it ends or asks.
    Watch { id: String },
    /// Stop one.
    Cancel { id: String },
    /// Say what became of a step whose outcome nobody knows; the run goes on by it.
    Settle {
        id: String,
        /// `ran`: go on. `did-not-run`: it failed. `again`: run it once more. `abort`: stop here.
        #[arg(value_enum)]
        how: How,
        /// How you know.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum How {
    Ran,
    DidNotRun,
    Again,
    Abort,
}

impl How {
    fn settlement(self) -> Settlement {
        match self {
            Self::Ran => Settlement::Ran,
            Self::DidNotRun => Settlement::DidNotRun,
            Self::Again => Settlement::Again,
            Self::Abort => Settlement::Abort,
        }
    }
}

/// Columns of a run.
pub(super) const HEADER: &[&str] = &["ID", "STATE", "CREATED", "RUNBOOK", "REASON"];

/// Runs the verb.
///
/// # Errors
/// If the server cannot be reached, or refuses.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::List { active } => args.remote.show(&format!("/runs?active={active}"), |answer| {
            let rows: Vec<Vec<String>> = items(answer).iter().map(row).collect();
            table(HEADER, &rows)
        }),
        Verb::Show { id } => args.remote.show(&format!("/runs/{id}"), show),
        Verb::Watch { id } => super::watch::watch(&args.remote, &id),
        Verb::Settle { id, how, reason } => {
            args.remote.act(&format!("/runs/{id}/settle"), &json!({ "how": how.settlement(), "reason": reason }))
        }
        Verb::Cancel { id } => args.remote.act(&format!("/runs/{id}/cancel"), &json!({})),
    }
}

/// A run as a row.
pub(super) fn row(run: &Value) -> Vec<String> {
    ["id", "state", "created_at", "runbook", "reason"].map(|field| text(run, field)).to_vec()
}

fn show(answer: &Value) -> String {
    let attempt = |attempt: &Value| {
        let said = if attempt["error"].is_null() { text(&attempt["output"], "summary") } else { text(attempt, "error") };
        vec![text(attempt, "started_at"), text(attempt, "step"), text(attempt, "state"), said]
    };
    let attempts: Vec<Vec<String>> = answer["attempts"].as_array().map_or(&[][..], Vec::as_slice).iter().map(attempt).collect();
    let run = table(HEADER, &[row(&answer["run"])]);
    format!("{run}\n\n{}", table(&["STARTED", "STEP", "STATE", "SAID"], &attempts))
}
