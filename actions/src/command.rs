//! `command`: runs a program of the allow-list. See `argv.rs` for how its arguments are written.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use domain::action::{Action, ActionCx, ActionError, ActionOutput, Effect, Risk};
use domain::plan::Target;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::argv::{self, Arg};
use crate::output::{Shown, last};
use crate::program::{self, Finished, How, Invocation, ProgramError};
use crate::{Tools, params};

/// How much of the output a failure quotes.
const QUOTE: usize = 2000;
/// How much of stdout later steps may use as a value.
const VALUE: usize = 4096;
const MAX_STDIN: usize = 1024 * 1024;
/// Variables that make the loader, a shell or an interpreter run something else. Their values may come from labels, so nobody sets them.
const LOADERS: [&str; 22] = [
    "BASH_ENV",
    "ENV",
    "GCONV_PATH",
    "GIT_CONFIG",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LOCPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PATH",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PROMPT_COMMAND",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "_JAVA_OPTIONS",
];
const LOADER_FAMILIES: [&str; 5] = ["BASH_FUNC_", "DYLD_", "GIT_", "LD_", "WATCHKEEPER_"];

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Absolute path of a program that the configuration allows.
    program: String,
    /// Arguments in order: text and numbers are data and may not begin with `-`; an option is a mapping, `{--name: value}`.
    #[serde(default)]
    #[schemars(with = "Vec<Arg>")]
    args: Vec<Value>,
    /// Environment variables. Besides them there are PATH, LANG and WATCHKEEPER_RUN, _STEP, _ATTEMPT, _KEY and _FENCE.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Given to the program as one JSON document on its standard input: the way for data of any shape.
    stdin: Option<Value>,
    /// Absolute path of the folder to run in; `/` by default.
    cwd: Option<String>,
    /// The exit codes that mean success; only 0 by default.
    #[serde(default = "zero")]
    expect_exit: BTreeSet<u8>,
}

fn zero() -> BTreeSet<u8> {
    BTreeSet::from([0])
}

struct Command(Arc<Tools>);

pub(crate) fn action(tools: Arc<Tools>) -> Box<dyn Action> {
    Box::new(Command(tools))
}

#[async_trait]
impl Action for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    fn about(&self) -> &'static str {
        "Runs a program of the allow-list, without a shell."
    }

    fn schema(&self) -> Schema {
        schema_for!(With)
    }

    fn risk(&self) -> Risk {
        Risk::Disruptive
    }

    fn resumable(&self, _: Option<&Target>) -> bool {
        true
    }

    fn check(&self, with: &Value, _: Option<&Target>) -> Result<(), String> {
        self.invocation(&params::read(with)?).map(drop)
    }

    async fn run(&self, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        let with: With = params::read(with).map_err(ActionError::Refused)?;
        let mut what = self.invocation(&with).map_err(ActionError::Refused)?;
        let own = [
            ("RUN", cx.run.to_string()),
            ("STEP", cx.step.clone()),
            ("ATTEMPT", cx.attempt.to_string()),
            ("KEY", cx.idempotency_key.clone()),
        ];
        what.env.extend(own.map(|(name, value)| (format!("WATCHKEEPER_{name}"), value)));
        if let Some(fence) = cx.fence {
            what.env.push(("WATCHKEEPER_FENCE".to_owned(), fence.to_string()));
        }
        let limit = self.0.time_left(cx);
        // What only looks may die with the server: it is looked again.
        let done = match cx.effect {
            Effect::ReadOnly => program::run_watched(what, limit, &*cx.host).await,
            _ => self.0.settings.executions.run(cx, what, limit).await,
        };
        let done = done.map_err(|error| match error {
            ProgramError::NotStarted { .. } => ActionError::Failed(error.to_string()),
            ProgramError::NeverBegan => ActionError::NeverBegan(error.to_string()),
            ProgramError::Lost(problem) => ActionError::Unknown(problem),
        })?;
        self.outcome(cx.effect, &with, done)
    }
}

impl Command {
    fn invocation(&self, with: &With) -> Result<Invocation, String> {
        let program = absolute(&with.program).map_err(|problem| format!("`program`: {problem}"))?;
        if !self.0.settings.programs.contains(&program) {
            return Err(format!("`program`: {} is not allowed: add it to `programs` in the configuration", program.display()));
        }
        let args = argv::build(&with.args)?;
        for (name, value) in &with.env {
            variable(name, value).map_err(|problem| format!("`env`: {problem}"))?;
        }
        let stdin = with.stdin.as_ref().map(|document| format!("{document}\n"));
        if stdin.as_ref().is_some_and(|text| text.len() > MAX_STDIN) {
            return Err(format!("`stdin`: longer than {MAX_STDIN} bytes"));
        }
        let cwd = absolute(with.cwd.as_deref().unwrap_or("/")).map_err(|problem| format!("`cwd`: {problem}"))?;
        if with.expect_exit.is_empty() {
            return Err("`expect_exit`: no exit code would mean success".to_owned());
        }
        Ok(Invocation { program, args, env: with.env.clone().into_iter().collect(), cwd, stdin })
    }

    fn outcome(&self, effect: Effect, with: &With, done: Finished) -> Result<ActionOutput, ActionError> {
        let (out, err) = (done.stdout.show(&self.0.settings.redactor), done.stderr.show(&self.0.settings.redactor));
        let seconds = done.took.as_secs_f64();
        // Who stops it has decided that it ends so: a person, or whoever has its target now.
        let meant = matches!(done.how, How::Stopped) || matches!(done.how, How::Ended(status) if status.code().is_some());
        let problem = match done.how {
            How::TimedOut => format!("timed out after {seconds:.1} s; it and its process group are gone"),
            How::Stopped => format!("stopped after {seconds:.1} s; it and its process group are gone"),
            How::Ended(status) => match status.code().and_then(|code| u8::try_from(code).ok()) {
                Some(code) if with.expect_exit.contains(&code) => return Ok(output(code, &done.took.as_millis(), &out, &err)),
                Some(code) => format!("exited with {code} after {seconds:.1} s"),
                None => format!("killed by signal {} after {seconds:.1} s", status.signal().unwrap_or(0)),
            },
        };
        // What programs say of their failure is mostly on stderr.
        let quote = last(if err.text.trim().is_empty() { &out.text } else { &err.text }, QUOTE).trim();
        let problem = if quote.is_empty() { problem } else { format!("{problem}:\n{quote}") };
        // What was ended may have done its work before, or a part of it.
        if meant || effect.may_repeat() { Err(ActionError::Failed(problem)) } else { Err(ActionError::Unknown(problem)) }
    }
}

fn output(code: u8, millis: &u128, out: &Shown, err: &Shown) -> ActionOutput {
    let mut text = out.text.clone();
    if !err.text.is_empty() {
        text.push_str(if text.is_empty() || text.ends_with('\n') { "--- stderr ---\n" } else { "\n--- stderr ---\n" });
        text.push_str(&err.text);
    }
    let value = out.text.trim_end();
    let data = json!({
        "exit": code,
        "duration_ms": u64::try_from(*millis).unwrap_or(u64::MAX),
        "stdout": &value[..value.floor_char_boundary(VALUE)],
        "stdout_bytes": out.bytes,
        "stderr_bytes": err.bytes,
        "cut": out.cut || err.cut,
    });
    ActionOutput { summary: format!("exited with {code} after {millis} ms"), data, text }
}

/// A path with no way back up in it.
fn absolute(text: &str) -> Result<PathBuf, String> {
    argv::plain(text)?;
    let path = Path::new(text);
    let tidy = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && tidy { Ok(path.to_owned()) } else { Err(format!("{text:?} must be an absolute path without `..`")) }
}

fn variable(name: &str, value: &str) -> Result<(), String> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if name.len() > 100 || !name.starts_with(first) || !name.chars().all(|c| first(c) || c.is_ascii_digit()) {
        return Err(format!("{name:?} is no name for a variable"));
    }
    if LOADERS.contains(&name) || LOADER_FAMILIES.iter().any(|family| name.starts_with(family)) {
        return Err(format!("{name} is refused: it can make programs run something else"));
    }
    argv::plain(value)
}
