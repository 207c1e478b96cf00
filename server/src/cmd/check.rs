//! `watchkeeper check`: is the configuration right? Everything that is wrong is shown, with its place.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use domain::permission::Right;
use domain::rules::{CATCH_ALL, Problem};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde_json::{Value, json};

use super::{Format, out};
use crate::config::{Config, Lookup, environment};

/// Findings, as linters say it; 1 is left to failures of the command itself.
const FINDINGS: u8 = 3;
/// There is nothing to check: a wrong argument.
const USAGE: u8 = 2;

/// Check a configuration.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A configuration file, or a folder with *.yaml files.
    #[arg(default_value_os_t = crate::default_config())]
    config: PathBuf,
    /// Take every environment variable and secret file as given: for checks where the secrets are not.
    #[arg(long)]
    without_secrets: bool,
    /// How the outcome is shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Checks and prints. The exit code is 0 without findings, 3 with some, and 2 where there is no such file or folder.
///
/// # Errors
/// If the outcome cannot be printed.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let lookup = if args.without_secrets { Lookup::pretended() } else { Lookup::real() };
    let outcome = Config::load_with(&args.config, &lookup);
    let colour = std::io::stdout().is_terminal() && environment("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match args.output {
        Format::Json => serde_json::to_string_pretty(&as_json(&outcome))?,
        Format::Table => match &outcome {
            Ok(config) => format!("{}: no findings\n{}", args.config.display(), summary(config)),
            Err(problems) => findings(problems, colour),
        },
    };
    out(&text);
    Ok(match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) if !args.config.exists() => ExitCode::from(USAGE),
        Err(_) => ExitCode::from(FINDINGS),
    })
}

/// Findings for people, and how many they are.
pub(crate) fn findings(problems: &[Problem], colour: bool) -> String {
    let shown = |problem: &Problem| if colour { coloured(problem) } else { problem.to_string() };
    let mut all: Vec<String> = problems.iter().map(shown).collect();
    let count = match problems.len() {
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    };
    all.push(count);
    all.join("\n\n")
}

/// What a configuration holds.
fn summary(config: &Config) -> String {
    let rules = &config.rules;
    let own = rules.routes.iter().filter(|route| route.name != CATCH_ALL).count();
    let with_remedy = rules.routes.iter().filter(|route| route.remedy.is_some()).count();
    let people = rules.people.principals.values();
    let approvers = people.clone().filter(|person| person.human && rules.people.has(person, Right::Approve)).count();
    let chats: Vec<&str> = [config.slack.as_ref().map(|_| "slack"), config.discord.as_ref().map(|_| "discord"), Some("console")]
        .into_iter()
        .flatten()
        .collect();
    let severities: Vec<&str> = rules.severities.iter().map(|severity| severity.name.as_str()).collect();
    [
        format!("  routes     {own}, {with_remedy} with a remedy, and the built-in {CATCH_ALL}"),
        format!("  runbooks   {}", rules.runbooks.len()),
        format!("  targets    {}", rules.targets.len()),
        format!("  sources    {}", config.sources.keys().cloned().collect::<Vec<_>>().join(", ")),
        format!("  people     {}, {approvers} may approve", people.len()),
        format!("  severities {}", severities.join(", ")),
        format!("  chat       {}", chats.join(", ")),
        format!("  rule set   {}", rules.digest),
    ]
    .join("\n")
}

fn as_json(outcome: &Result<Config, Vec<Problem>>) -> Value {
    match outcome {
        Err(problems) => json!({ "ok": false, "findings": problems }),
        Ok(config) => {
            let rules = &config.rules;
            json!({
                "ok": true,
                "findings": [],
                "rule_set": rules.digest,
                "files": rules.texts.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                "routes": rules.routes.iter().map(|route| &route.name).collect::<Vec<_>>(),
                "runbooks": rules.runbooks.keys().collect::<Vec<_>>(),
                "targets": rules.targets.keys().collect::<Vec<_>>(),
                "sources": config.sources.keys().collect::<Vec<_>>(),
                "principals": rules.people.principals.keys().collect::<Vec<_>>(),
                "severities": rules.severities.iter().map(|severity| &severity.name).collect::<Vec<_>>(),
            })
        }
    }
}

fn coloured(problem: &Problem) -> String {
    let mut out = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode());
    match handler.render_report(&mut out, &Finding::of(problem)) {
        Ok(()) => out.trim_matches('\n').to_owned(),
        Err(_) => problem.to_string(),
    }
}

/// A problem as miette draws it.
#[derive(Debug)]
struct Finding<'p> {
    problem: &'p Problem,
    source: Option<NamedSource<String>>,
    label: Option<LabeledSpan>,
}

impl<'p> Finding<'p> {
    fn of(problem: &'p Problem) -> Self {
        let text = problem.source.as_deref().filter(|_| problem.line > 0);
        // Terminals obey control characters, and the file may be somebody else's.
        let printable = |text: &str| text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect::<String>();
        let source = text.map(printable);
        let label = source.as_deref().map(|text| {
            let start = offset(text, problem.line, problem.column);
            let len: usize = text[start..].chars().take(problem.length).take_while(|c| *c != '\n').map(char::len_utf8).sum();
            LabeledSpan::at(start..start + len, "here")
        });
        Self { problem, source: source.map(|text| NamedSource::new(&problem.file, text)), label }
    }
}

/// Where a line and column, both in characters from 1, begin in bytes; the end of the line if it is shorter.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = &text[start.min(text.len())..];
    let within: usize = rest.chars().take_while(|c| *c != '\n').take(column.saturating_sub(1)).map(char::len_utf8).sum();
    start.min(text.len()) + within
}

impl std::fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.source {
            Some(_) => f.write_str(&self.problem.message),
            None => write!(f, "{}: {}", self.problem.file, self.problem.message),
        }
    }
}

impl std::error::Error for Finding<'_> {}

impl Diagnostic for Finding<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.label.clone().map(|label| Box::new(std::iter::once(label)) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn problem() -> Problem {
        let source: Arc<str> = "a: 1\nbe: \u{1b}[31m2\n".into();
        Problem::at("rules.yaml", source, (2, 5, 6), "odd", Some("do this".into()))
    }

    #[test]
    fn places_are_found_in_bytes() {
        for (line, column, at) in [(1, 1, 0), (1, 4, 3), (1, 9, 4), (2, 1, 5), (2, 3, 8), (9, 1, 12)] {
            assert_eq!(offset("a: 1\nbé: 22", line, column), at, "{line}:{column}");
        }
    }

    #[test]
    fn findings_are_counted_and_no_file_commands_the_terminal() {
        let plain = findings(&[problem(), Problem::of_file("x", "whole", None)], false);
        assert!(plain.starts_with("rules.yaml:2:5: odd\n") && plain.ends_with("\n\nx: whole\n\n2 findings"), "{plain}");
        let coloured = findings(&[problem()], true);
        assert!(coloured.contains("rules.yaml:2:5") && coloured.contains("do this") && coloured.ends_with("1 finding"), "{coloured}");
        assert!(!coloured.contains("\u{1b}[31m2"), "{coloured:?}");
    }
}
