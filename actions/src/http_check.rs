//! `http.check`: asks a service over HTTP whether it is well, by status, by fields of its JSON, by its health answer, by its speed.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::action::{Action, ActionCx, ActionError, ActionOutput, Effect, Risk};
use domain::duration::Dur;
use domain::plan::Target;
use reqwest::Method;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::egress::{self, Answer, EgressError, Request};
use crate::health::{Health, Level};
use crate::http::{self, Statuses};
use crate::{Tools, params};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// What to ask. Without it the target's `health_url`, or its `url`.
    url: Option<String>,
    /// The status, or a list of statuses, that it must answer. Any of 200 to 299 by default; with `health` any at all.
    status: Option<Statuses>,
    /// JSON pointers (RFC 6901) into the answer, and what must stand there: `{/queue/depth: 0}`.
    #[serde(default)]
    json: BTreeMap<String, Value>,
    /// The answer must be `{status, version, timestamp, checks, uptime}` and say at least this.
    health: Option<Level>,
    /// The answer must be complete within this.
    max_latency: Option<Dur>,
    /// For the whole exchange; 10s by default.
    timeout: Option<Dur>,
}

struct HttpCheck(Arc<Tools>);

pub(crate) fn action(tools: Arc<Tools>) -> Box<dyn Action> {
    Box::new(HttpCheck(tools))
}

#[async_trait]
impl Action for HttpCheck {
    fn name(&self) -> &'static str {
        "http.check"
    }

    fn about(&self) -> &'static str {
        "Asks a service over HTTP whether it is well; fails if it is not."
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

    fn target_kinds(&self) -> &'static [&'static str] {
        &["http", "process", "compose", "systemd"]
    }

    fn check(&self, with: &Value, target: Option<&Target>) -> Result<(), String> {
        let with: With = params::read(with)?;
        if let Some(pointer) = with.json.keys().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
            return Err(format!("`json`: {pointer:?} is no JSON pointer: it begins with `/`"));
        }
        egress::parse_url(url(&with, target)?).map(drop)
    }

    async fn run(&self, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        self.check(with, cx.target.as_ref()).map_err(ActionError::Refused)?;
        let with: With = params::read(with).map_err(ActionError::Refused)?;
        let url = url(&with, cx.target.as_ref()).and_then(egress::parse_url).map_err(ActionError::Refused)?;
        let timeout = self.0.time_limit(cx, with.timeout.map_or(egress::TIMEOUT, Dur::as_std));
        let request = Request { method: Method::GET, url, headers: http::accept_json(), body: vec![], timeout };
        let answer = self.0.egress.send(request).await.map_err(|error| match error {
            EgressError::Refused(problem) => ActionError::Refused(problem),
            // Nothing was changed by asking, so not knowing is a plain failure too.
            EgressError::NotSent(problem) | EgressError::Broken(problem) => ActionError::Failed(problem),
        })?;
        let health = Health::parse(&answer.body);
        let text = self.0.redact(&String::from_utf8_lossy(&answer.body));
        match verdict(&with, &answer, &health) {
            Ok(summary) => {
                Ok(ActionOutput { summary: self.0.redact(&summary), data: data(&answer, health.ok()), text: http::excerpt(&text) })
            }
            Err(problem) => Err(ActionError::Failed(self.0.redact(&problem))),
        }
    }
}

/// The step's own URL, else the target's. A target's URL is written by whoever wrote the inventory.
fn url<'a>(with: &'a With, target: Option<&'a Target>) -> Result<&'a str, String> {
    let of_target = || target.and_then(|target| target.text("health_url").or_else(|| target.text("url")));
    with.url.as_deref().or_else(of_target).ok_or_else(|| match target {
        Some(target) => format!("target {:?} has neither `health_url` nor `url`: add one, or give the step a `url`", target.name),
        None => "it needs a `url`, or a target with a `health_url`".to_owned(),
    })
}

fn verdict(with: &With, answer: &Answer, health: &Result<Health, String>) -> Result<String, String> {
    let code = answer.status;
    let expected = match (&with.status, with.health) {
        (Some(statuses), _) => statuses.hold(code),
        (None, Some(_)) => true,
        (None, None) => (200..300).contains(&code),
    };
    if !expected {
        return Err(format!(
            "it answered {code}{}",
            health.as_ref().map_or_else(|_| String::new(), |health| format!(", {}", health.line()))
        ));
    }
    let mut summary = format!("{code} in {} ms", answer.took.as_millis());
    if let Some(least) = with.health {
        let health = health.as_ref().map_err(Clone::clone)?;
        if health.status < least {
            return Err(format!("it says {}", health.line()));
        }
        summary = format!("{summary}, {}", health.line());
    }
    if !with.json.is_empty() {
        let body: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("the answer is no JSON: {error}"))?;
        for (pointer, wanted) in &with.json {
            match body.pointer(pointer) {
                Some(found) if found == wanted => {}
                Some(found) => return Err(format!("{pointer} is {}, not {wanted}", http::excerpt(&found.to_string()))),
                None => return Err(format!("the answer has nothing at {pointer}")),
            }
        }
    }
    match with.max_latency {
        Some(most) if answer.took > most.as_std() => Err(format!("it took {} ms, more than {most}", answer.took.as_millis())),
        _ => Ok(summary),
    }
}

fn data(answer: &Answer, health: Option<Health>) -> Value {
    json!({ "status": answer.status, "latency_ms": u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX), "health": health })
}
