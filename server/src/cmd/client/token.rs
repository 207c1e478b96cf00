//! `token create|list|revoke`.

use std::process::ExitCode;

use clap::Subcommand;
use domain::duration::Dur;
use serde_json::{Value, json};

use super::Remote;
use super::table::{items, table, text};
use crate::cmd::{Format, out, tell};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a token. It is printed once, alone on its line: `watchkeeper token create ci --right view > token`.
    Create {
        /// What people call it.
        name: String,
        /// What it may do, never more than its owner: view, acknowledge, resolve, note, run, approve, audit, admin. May be given many times.
        #[arg(long = "right", required = true, value_delimiter = ',')]
        rights: Vec<String>,
        /// A service account (`human: false`) that it is for; without it, for you.
        #[arg(long = "for", value_name = "PRINCIPAL")]
        principal: Option<String>,
        /// How long it is good; 90d where nothing is said.
        #[arg(long)]
        expires_in: Option<Dur>,
    },
    /// Your tokens; everybody's with the right `admin`.
    List,
    /// End a token, for good and at once.
    Revoke { id: String },
}

/// Runs the verb.
///
/// # Errors
/// If the server cannot be reached, or refuses.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let remote = &args.remote;
    match args.verb {
        Verb::Create { name, rights, principal, expires_in } => {
            let body = json!({ "name": name, "rights": rights, "principal": principal, "expires_in": expires_in });
            let made = remote.post("/tokens", &body)?;
            match remote.output {
                Format::Json => out(&serde_json::to_string_pretty(&made)?),
                Format::Table => {
                    tell(&format!(
                        "Token {} of {}, good until {}:",
                        text(&made, "id"),
                        text(&made, "principal"),
                        text(&made, "expires_at")
                    ));
                    out(&text(&made, "token"));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::List => remote.show("/tokens", list),
        Verb::Revoke { id } => {
            remote.delete(&format!("/tokens/{id}"))?;
            tell("Revoked.");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(answer: &Value) -> String {
    let row = |item: &Value| {
        let rights: Vec<&str> = item["rights"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let end = if item["revoked_at"].is_null() { text(item, "expires_at") } else { "revoked".to_owned() };
        vec![text(item, "id"), text(item, "principal"), text(item, "name"), rights.join(","), end, text(item, "last_used")]
    };
    let rows: Vec<Vec<String>> = items(answer).iter().map(row).collect();
    table(&["ID", "OWNER", "NAME", "RIGHTS", "UNTIL", "LAST USED"], &rows)
}
