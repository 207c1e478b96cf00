//! `simulate`: what a webhook body would do, by the very functions of the live path. It touches nothing.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use domain::action::ActionCatalogue;
use domain::composing::plan_lines;
use domain::event::{Sighting, Status};
use domain::planning::{self, Asked};
use domain::route::{self, Looked};
use domain::rules::{Mode, RuleSet};
use domain::time::{Clock, SystemClock};
use serde::Serialize;
use webhook_gateway::SourceSettings;
use webhook_gateway::sources::ParseCx;

use super::{Format, out, problems};
use crate::config::{Config, Lookup, library_for_checks};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration: a file or a folder.
    config: PathBuf,
    /// The source that the body comes from; the first of its kind if not given.
    #[arg(long)]
    source: Option<String>,
    /// A file with the body; standard input if not given.
    #[arg(long)]
    payload: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What one alert would do.
#[derive(Serialize)]
struct Simulated {
    alert: String,
    fingerprint: String,
    status: Status,
    trace: Vec<Looked>,
    incident: Option<route::IncidentPlan>,
    severity: Option<String>,
    remedies: Vec<SimulatedRun>,
    heartbeat: bool,
}

#[derive(Serialize)]
struct SimulatedRun {
    route: String,
    runbook: String,
    mode: Mode,
    outcome: &'static str,
    problem: Option<String>,
    plan_digest: Option<String>,
    steps: Vec<String>,
    roles: Vec<String>,
    quorum: u32,
    may_approve: Vec<String>,
}

/// Simulates.
///
/// # Errors
/// If the configuration is wrong or the body cannot be read.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Nothing is sent and nobody is let in, so no secret is needed.
    let config = Config::load_with(&args.config, &Lookup::pretended()).map_err(|found| problems(&found))?;
    let library = library_for_checks(&config.actions)?;
    let body = read(args.payload.as_deref())?;
    let (name, source) = source(&config, args.source.as_deref())?;
    let cx = ParseCx { received_at: SystemClock.now(), headers: &[], map: source.map.as_deref() };
    let parsed = source.kind.parse(&cx, &body);
    let parsed = parsed.map_err(|error| anyhow::anyhow!("the body cannot be read as {}: {error}", source.kind.kind()))?;
    let results: Vec<Simulated> = parsed.sightings.iter().map(|sighting| simulate(&config.rules, &library, name, sighting)).collect();
    match args.output {
        Format::Json => out(&serde_json::to_string_pretty(&results)?),
        Format::Table => out(&results.iter().map(text).collect::<Vec<_>>().join("\n")),
    }
    Ok(ExitCode::SUCCESS)
}

/// The source that was named, or the only one, or the first of kind alertmanager.
fn source<'c>(config: &'c Config, named: Option<&str>) -> anyhow::Result<(&'c str, &'c SourceSettings)> {
    let known = || config.sources.keys().cloned().collect::<Vec<_>>().join(", ");
    let mut all = config.sources.iter();
    let found = match named {
        Some(named) => all.find(|(name, _)| *name == named),
        None if config.sources.len() == 1 => all.next(),
        None => all.find(|(_, source)| source.kind.kind() == "alertmanager"),
    };
    let (name, source) = found.with_context(|| format!("name a source with --source: the configuration has {}", known()))?;
    Ok((name, source))
}

fn read(file: Option<&std::path::Path>) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    match file {
        Some(file) => body = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
        None if std::io::stdin().is_terminal() => bail!("give a webhook body on standard input, or a file with --payload"),
        None => {
            std::io::stdin().read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

fn simulate(rules: &RuleSet, actions: &dyn ActionCatalogue, source: &str, sighting: &Sighting) -> Simulated {
    let routed = route::route(rules, source, sighting);
    let context = route::context(source, sighting);
    let name = sighting.labels.get("alertname");
    let heartbeat = name.is_some_and(|name| rules.sources.get(source).is_some_and(|rule| rule.heartbeats.contains_key(name)));
    let resolved = sighting.status == Status::Resolved;
    let runs = routed.remedies.iter().map(|(route, remedy)| {
        let made = planning::remedy_params(remedy, &context)
            .and_then(|given| planning::plan(rules, actions, &remedy.runbook, &given, &context, Asked::ByRoute(remedy.mode)));
        let mut run = SimulatedRun {
            route: route.name.clone(),
            runbook: remedy.runbook.clone(),
            mode: remedy.mode,
            outcome: "refused",
            problem: None,
            plan_digest: None,
            steps: Vec::new(),
            roles: Vec::new(),
            quorum: 0,
            may_approve: Vec::new(),
        };
        match made {
            Err(no_plan) => run.problem = Some(no_plan.to_string()),
            Ok(plan) => {
                run.steps = plan_lines(&plan);
                run.plan_digest = Some(plan.digest().to_string());
                run.outcome = match (remedy.mode, &plan.approval) {
                    (Mode::Observe, _) => "recorded only",
                    (Mode::Suggest, _) => "suggested",
                    (_, Some(_)) => "waits for approval",
                    (_, None) => "runs",
                };
                if let Some(policy) = &plan.approval {
                    run.roles = policy.roles.iter().cloned().collect();
                    run.quorum = policy.quorum;
                    run.may_approve = rules
                        .people
                        .approvers(&policy.roles)
                        .filter(|person| !policy.exclude.contains(&person.name))
                        .map(|person| person.name.clone())
                        .collect();
                }
            }
        }
        run
    });
    Simulated {
        alert: route::default_title(sighting),
        fingerprint: sighting.fingerprint.clone(),
        status: sighting.status,
        remedies: if resolved || heartbeat { Vec::new() } else { runs.collect() },
        severity: routed.incident.as_ref().map(|plan| rules.severities[plan.severity].name.clone()),
        incident: routed.incident,
        trace: routed.trace,
        heartbeat,
    }
}

fn text(result: &Simulated) -> String {
    let mut lines = vec![format!("{} ({:?}, {})", result.alert, result.status, result.fingerprint)];
    if result.heartbeat {
        lines.push("  a sign of life: it opens nothing, its silence does".to_owned());
        return lines.join("\n") + "\n";
    }
    for looked in &result.trace {
        lines.push(format!("  {} {}: {}", if looked.matched { "→" } else { "·" }, looked.route, looked.why));
    }
    match &result.incident {
        Some(plan) => {
            let channels = plan.channels.iter().cloned().collect::<Vec<_>>().join(", ");
            let channels = if channels.is_empty() { "the console only".to_owned() } else { channels };
            lines.push(format!("  incident {:?}, severity {}, in {channels}", plan.title, result.severity.as_deref().unwrap_or("?")));
            lines.push(format!("    grouped by {}", plan.group_key));
        }
        None => lines.push("  no incident: it is recorded".to_owned()),
    }
    for run in &result.remedies {
        lines.push(format!("  remedy {} (mode {:?}): {}", run.runbook, run.mode, run.outcome).to_lowercase());
        if let Some(problem) = &run.problem {
            lines.push(format!("    {problem}"));
        }
        lines.extend(run.steps.iter().map(|step| format!("    {step}")));
        if run.quorum > 0 {
            lines.push(format!("    takes {} of {}: {}", run.quorum, run.roles.join(", "), run.may_approve.join(", ")));
        }
        if let Some(digest) = &run.plan_digest {
            lines.push(format!("    plan {digest}"));
        }
    }
    lines.join("\n") + "\n"
}
