//! `approval list|show|approve|deny`.

use std::process::ExitCode;

use clap::Subcommand;
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
    /// What waits for a decision.
    List,
    /// One request, and exactly what would run.
    Show { id: String },
    /// Approve; with the digest that `show` printed, nothing else can run.
    Approve {
        id: String,
        /// The plan's digest, as shown.
        #[arg(long)]
        plan_digest: Option<String>,
    },
    /// Deny.
    Deny {
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// Runs the verb.
///
/// # Errors
/// If the server cannot be reached, or refuses.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let remote = &args.remote;
    match args.verb {
        Verb::List => remote.show("/approvals", list),
        Verb::Show { id } => remote.show(&format!("/approvals/{id}"), show),
        Verb::Approve { id, plan_digest } => {
            remote.act(&format!("/approvals/{id}/decision"), &json!({ "decision": "approve", "plan_digest": plan_digest }))
        }
        Verb::Deny { id, reason } => remote.act(&format!("/approvals/{id}/decision"), &json!({ "decision": "deny", "reason": reason })),
    }
}

fn list(answer: &Value) -> String {
    let row =
        |item: &Value| vec![text(item, "id"), text(item, "state"), text(item, "expires_at"), text(item, "run"), text(item, "requester")];
    let rows: Vec<Vec<String>> = items(answer).iter().map(row).collect();
    table(&["ID", "STATE", "EXPIRES", "RUN", "REQUESTER"], &rows)
}

fn show(answer: &Value) -> String {
    let approval = &answer["approval"];
    let plan: Option<domain::plan::Plan> = serde_json::from_value(answer["run"]["plan"].clone()).ok();
    let steps = plan.map(|plan| domain::composing::plan_lines(&plan).join("\n")).unwrap_or_default();
    let head = ["id", "state", "expires_at", "plan_digest"].map(|field| format!("{field}: {}", text(approval, field))).join("\n");
    format!("{head}\n\n{steps}")
}
