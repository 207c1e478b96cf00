//! `incident list|show|timeline|ack|unack|resolve|reopen|close|note`.

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
    /// Incidents, newest first.
    List {
        /// With resolved and closed ones.
        #[arg(long)]
        all: bool,
    },
    /// One incident, its alerts and runs.
    Show { number: i64 },
    /// What happened to it.
    Timeline { number: i64 },
    /// Take it.
    Ack { number: i64 },
    /// Give it back.
    Unack { number: i64 },
    /// Call it resolved.
    Resolve { number: i64 },
    /// Open it again.
    Reopen { number: i64 },
    /// Close it for good.
    Close { number: i64 },
    /// Write on its timeline.
    Note { number: i64, text: String },
}

/// Runs the verb.
///
/// # Errors
/// If the server cannot be reached, or refuses.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let remote = &args.remote;
    let act = |number: i64, verb: &str| remote.act(&format!("/incidents/{number}/{verb}"), &json!({}));
    match args.verb {
        Verb::List { all } => remote.show(&format!("/incidents?open={}", !all), list),
        Verb::Show { number } => remote.show(&format!("/incidents/{number}"), show),
        Verb::Timeline { number } => remote.show(&format!("/incidents/{number}/timeline"), timeline),
        Verb::Ack { number } => act(number, "ack"),
        Verb::Unack { number } => act(number, "unack"),
        Verb::Resolve { number } => act(number, "resolve"),
        Verb::Reopen { number } => act(number, "reopen"),
        Verb::Close { number } => act(number, "close"),
        Verb::Note { number, text } => remote.act(&format!("/incidents/{number}/note"), &json!({ "text": text })),
    }
}

fn list(answer: &Value) -> String {
    let row = |item: &Value| {
        let alerts = format!("{}/{}", item["alerts_active"], item["alerts_total"]);
        vec![text(item, "number"), text(item, "severity_name"), text(item, "state"), alerts, text(item, "opened_at"), text(item, "title")]
    };
    let rows: Vec<Vec<String>> = items(answer).iter().map(row).collect();
    table(&["#", "SEVERITY", "STATE", "ALERTS", "OPENED", "TITLE"], &rows)
}

fn show(answer: &Value) -> String {
    let incident = &answer["incident"];
    let mut lines = vec![format!(
        "#{} {} [{}] {}",
        incident["number"],
        text(incident, "title"),
        text(incident, "state"),
        text(incident, "severity_name")
    )];
    for field in ["summary", "automation", "opened_at"] {
        let value = text(incident, field);
        if !value.is_empty() {
            lines.push(format!("{field}: {value}"));
        }
    }
    let alerts: Vec<Vec<String>> = answer["alerts"].as_array().map_or(&[][..], Vec::as_slice).iter().map(alert).collect();
    lines.push(format!("\nAlerts\n{}", table(&["STATE", "SINCE", "ALERT", "SUMMARY"], &alerts)));
    let runs: Vec<Vec<String>> = answer["runs"].as_array().map_or(&[][..], Vec::as_slice).iter().map(super::run::row).collect();
    lines.push(format!("\nRuns\n{}", table(super::run::HEADER, &runs)));
    lines.iter().map(|line| domain::text::clean_block(line, 20_000)).collect::<Vec<_>>().join("\n")
}

fn alert(alert: &Value) -> Vec<String> {
    vec![text(alert, "state"), text(alert, "starts_at"), text(&alert["labels"], "alertname"), text(&alert["annotations"], "summary")]
}

fn timeline(answer: &Value) -> String {
    let row = |item: &Value| {
        let entry = &item["entry"];
        vec![text(entry, "at"), text(entry, "who"), text(entry, "text")]
    };
    let rows: Vec<Vec<String>> = items(answer).iter().map(row).collect();
    table(&["AT", "WHO", "WHAT"], &rows)
}
