//! `runbook list|run`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Map, Value, json};

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
    /// The runbooks that the server knows.
    List,
    /// Ask for a run: it waits for somebody else's approval where the runbook says so.
    Run {
        name: String,
        /// A parameter, as NAME=VALUE; may be given many times.
        #[arg(long = "var", value_name = "NAME=VALUE")]
        vars: Vec<String>,
        /// The number of the incident that it is for.
        #[arg(long)]
        incident: Option<i64>,
    },
}

/// Runs the verb.
///
/// # Errors
/// If the server cannot be reached, or refuses.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::List => args.remote.show("/runbooks", list),
        Verb::Run { name, vars, incident } => {
            let params = vars.iter().map(|var| pair(var)).collect::<anyhow::Result<Map<String, Value>>>()?;
            args.remote.act(&format!("/runbooks/{name}/runs"), &json!({ "incident": incident, "params": params }))
        }
    }
}

fn pair(var: &str) -> anyhow::Result<(String, Value)> {
    let (name, value) = var.split_once('=').with_context(|| format!("--var takes NAME=VALUE, not {var:?}"))?;
    Ok((name.to_owned(), Value::from(value)))
}

fn list(answer: &Value) -> String {
    let row = |item: &Value| {
        let params = item["params"].as_object().map(|params| params.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
        vec![text(item, "name"), params, text(item, "about")]
    };
    let rows: Vec<Vec<String>> = items(answer).iter().map(row).collect();
    table(&["NAME", "PARAMETERS", "ABOUT"], &rows)
}
