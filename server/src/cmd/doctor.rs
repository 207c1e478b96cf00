//! `watchkeeper doctor`: will it work, and will it keep working? Everything that the server needs is asked for, and nothing is changed.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{Format, out};
use crate::config::{Config, Lookup, environment};
use crate::doctor::{Finding, Level, examine};

/// Look at everything that the server needs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration: a file or a folder.
    #[arg(long, short, env = "WATCHKEEPER_CONFIG", default_value_os_t = crate::default_config())]
    config: PathBuf,
    /// How the outcome is shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Looks and prints. The exit code is 1 if something fails, 0 with warnings.
///
/// # Errors
/// If there is no runtime.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let findings = match Config::load_with(&args.config, &Lookup::real()) {
        Ok(config) => tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(examine(&config)),
        Err(problems) => problems
            .iter()
            .map(|problem| Finding {
                area: "configuration",
                level: Level::Fail,
                found: problem.to_string(),
                advice: Some("mend it: `watchkeeper check` shows the place".to_owned()),
            })
            .collect(),
    };
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    out(&match args.output {
        Format::Json => serde_json::to_string_pretty(&json!({ "level": worst, "findings": findings }))?,
        Format::Table => {
            let colour = std::io::stdout().is_terminal() && environment("NO_COLOR").is_none_or(|value| value.is_empty());
            shown(&findings, colour)
        }
    });
    Ok(if worst == Level::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn shown(findings: &[Finding], colour: bool) -> String {
    let mut text = String::new();
    let mut area = "";
    for finding in findings {
        if finding.area != area {
            area = finding.area;
            text.push_str(&format!("{area}\n"));
        }
        let (word, code) = match finding.level {
            Level::Ok => ("ok  ", "32"),
            Level::Warn => ("warn", "33"),
            Level::Fail => ("FAIL", "1;31"),
        };
        let word = if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
        text.push_str(&format!("  {word}  {}\n", printable(&finding.found)));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("        {}\n", printable(advice)));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    text.push_str(&format!("{} ok, {} warnings, {} failures", count(Level::Ok), count(Level::Warn), count(Level::Fail)));
    text
}

/// What other programs answered commands no terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect::<String>().replace('\n', "\n        ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_grouped_and_counted() {
        let one =
            |area, level, advice: Option<&str>| Finding { area, level, found: "it \x1b[2J".to_owned(), advice: advice.map(str::to_owned) };
        let findings = [one("a", Level::Ok, None), one("a", Level::Warn, Some("do")), one("b", Level::Fail, None)];
        let text = shown(&findings, false);
        assert_eq!(text, "a\n  ok    it  [2J\n  warn  it  [2J\n        do\nb\n  FAIL  it  [2J\n1 ok, 1 warnings, 1 failures");
        assert!(shown(&findings, true).contains("\x1b[1;31mFAIL\x1b[0m"));
    }
}
