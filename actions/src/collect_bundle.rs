//! `collect.bundle`: gathers evidence before something is changed: how the service is, what it answers, its process, its host, its logs.
//!
//! Whatever cannot be had is said so in its place; a missing part never keeps the rest away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use domain::action::{Action, ActionCx, ActionError, ActionOutput, Effect, Risk};
use domain::plan::Target;
use domain::text::{clean_block, shorten_bytes};
use reqwest::Method;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::egress::{self, Request};
use crate::service::Service;
use crate::{Tools, http, look, params, supervisor};

/// The most that one part may take, in bytes.
const MAX_PART: usize = 32 * 1024;
/// The most that an answer of the service takes, in bytes.
const MAX_ANSWER: usize = 4 * 1024;
const MAX_LINES: usize = 1000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// How many lines of each log, at most 1000.
    #[serde(default = "hundred")]
    lines: usize,
}

fn hundred() -> usize {
    100
}

struct CollectBundle(Arc<Tools>);

pub(crate) fn action(tools: Arc<Tools>) -> Box<dyn Action> {
    Box::new(CollectBundle(tools))
}

#[async_trait]
impl Action for CollectBundle {
    fn name(&self) -> &'static str {
        "collect.bundle"
    }

    fn about(&self) -> &'static str {
        "Gathers evidence about a target: state, health answer, process, host, logs."
    }

    fn schema(&self) -> Schema {
        schema_for!(With)
    }

    fn risk(&self) -> Risk {
        Risk::Read
    }

    fn effect(&self) -> Effect {
        Effect::ReadOnly
    }

    fn check(&self, with: &Value, target: Option<&Target>) -> Result<(), String> {
        params::needed(target)?;
        let With { lines } = params::read(with)?;
        if lines > MAX_LINES { Err(format!("`lines`: more than {MAX_LINES}")) } else { Ok(()) }
    }

    async fn run(&self, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        self.check(with, cx.target.as_ref()).map_err(ActionError::Refused)?;
        let With { lines } = params::read(with).map_err(ActionError::Refused)?;
        let target = params::needed(cx.target.as_ref()).map_err(ActionError::Refused)?;
        let parts = self.gather(cx, target, lines).await;
        let (mut text, mut got) = (String::new(), vec![]);
        for (title, part) in &parts {
            let body = part.as_ref().map_or_else(|problem| format!("not to be had: {problem}"), Clone::clone);
            let body = clean_block(&shorten_bytes(&self.0.redact(body.trim_end()), MAX_PART), usize::MAX);
            text.push_str(&format!("== {title} ==\n{body}\n\n"));
            got.push(json!({ "part": title, "ok": part.is_ok() }));
        }
        let had = parts.iter().filter(|(_, part)| part.is_ok()).count();
        Ok(ActionOutput {
            summary: format!("{had} of {} parts of evidence about {}", parts.len(), target.name),
            data: json!({ "parts": got }),
            text,
        })
    }
}

type Part = (String, Result<String, String>);

impl CollectBundle {
    async fn gather(&self, cx: &ActionCx, target: &Target, lines: usize) -> Vec<Part> {
        let (service, answer) = tokio::join!(self.service(cx, target), self.answer(cx, target));
        let mut parts: Vec<Part> = vec![];
        let mut pid = None;
        if let Some(service) = service {
            pid = service.as_ref().ok().and_then(|(_, pid)| *pid);
            parts.push(("service".to_owned(), service.map(|(text, _)| text)));
        }
        parts.extend(answer.map(|answer| ("health".to_owned(), answer)));
        let mut logs = files(target);
        if target.kind == "process" {
            logs.extend(self.0.settings.supervisor.log_file(target).ok());
        }
        // Files may be slow: not on a thread that serves others.
        let local = tokio::task::spawn_blocking(move || {
            let process = pid.map(|pid| (format!("process {pid}"), look::process(pid)));
            let host = ("host".to_owned(), look::host(&logs));
            let logs = logs.iter().map(|file| (format!("log {}", file.display()), log_lines(file, lines)));
            process.into_iter().chain([host]).chain(logs).collect::<Vec<Part>>()
        });
        parts.extend(local.await.unwrap_or_else(|error| vec![("host".to_owned(), Err(error.to_string()))]));
        parts
    }

    async fn service(&self, cx: &ActionCx, target: &Target) -> Option<Result<(String, Option<i32>), String>> {
        let service = Service::of(target).ok()?;
        let status = service.status(&self.0, self.0.time_limit(cx, egress::TIMEOUT)).await;
        Some(status.map_err(|error| error.to_string()).map(|status| (format!("{}\n{:#}", status.summary, status.detail), status.pid)))
    }

    async fn answer(&self, cx: &ActionCx, target: &Target) -> Option<Result<String, String>> {
        let url = match egress::parse_url(target.text("health_url").or_else(|| target.text("url"))?) {
            Ok(url) => url,
            Err(problem) => return Some(Err(problem)),
        };
        let request = Request {
            method: Method::GET,
            url,
            headers: http::accept_json(),
            body: vec![],
            timeout: self.0.time_limit(cx, egress::TIMEOUT),
        };
        let answer = self.0.egress.send(request).await.map_err(|error| error.to_string());
        Some(answer.map(|answer| {
            let body = String::from_utf8_lossy(&answer.body);
            format!("{} in {} ms\n{}", answer.status, answer.took.as_millis(), shorten_bytes(&self.0.redact(&body), MAX_ANSWER))
        }))
    }
}

/// `log_file` of a target: one path or a list. The configuration's own words.
fn files(target: &Target) -> Vec<PathBuf> {
    let paths = match target.fields.get("log_file") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    paths.into_iter().map(PathBuf::from).collect()
}

fn log_lines(file: &Path, lines: usize) -> Result<String, String> {
    if !file.is_absolute() {
        return Err("it must be an absolute path".to_owned());
    }
    // More than fits is redacted before it is cut to the end of it.
    let bytes = supervisor::tail(file, 2 * MAX_PART as u64).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(crate::output::last(&all[all.len().saturating_sub(lines)..].join("\n"), MAX_PART).to_owned())
}
