//! `http.request`: one request to an HTTP API, sent at most once, with a key by which the other side can recognise a repeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::action::{Action, ActionCx, ActionError, ActionOutput, Risk};
use domain::duration::Dur;
use domain::plan::Target;
use reqwest::header::{CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::egress::{self, Answer, EgressError, Request};
use crate::http::{self, Statuses};
use crate::{Tools, params};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// What to do.
    method: Method,
    /// Where. Public addresses on ports 80 and 443, and what the configuration's `egress` names.
    url: String,
    /// Besides those that HTTP itself needs. No secrets: a plan is stored and shown.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// A body as JSON.
    json: Option<Value>,
    /// A body as text.
    body: Option<String>,
    /// The status, or a list of statuses, that means success. Any of 200 to 299 by default.
    expect_status: Option<Statuses>,
    /// For the whole exchange; 10s by default.
    timeout: Option<Dur>,
}

struct HttpRequest(Arc<Tools>);

pub(crate) fn action(tools: Arc<Tools>) -> Box<dyn Action> {
    Box::new(HttpRequest(tools))
}

#[async_trait]
impl Action for HttpRequest {
    fn name(&self) -> &'static str {
        "http.request"
    }

    fn about(&self) -> &'static str {
        "Sends one HTTP request and expects a status."
    }

    fn schema(&self) -> Schema {
        schema_for!(With)
    }

    /// Of the worst that a request can be: nobody knows what the other side does.
    fn risk(&self) -> Risk {
        Risk::Disruptive
    }

    fn check(&self, with: &Value, _: Option<&Target>) -> Result<(), String> {
        request(&params::read(with)?, "key").map(drop)
    }

    async fn run(&self, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        let with: With = params::read(with).map_err(ActionError::Refused)?;
        let mut request = request(&with, &cx.idempotency_key).map_err(ActionError::Refused)?;
        request.timeout = self.0.time_limit(cx, request.timeout);
        let answer = self.0.egress.send(request).await.map_err(|error| match error {
            EgressError::Refused(problem) => ActionError::Refused(problem),
            EgressError::NotSent(problem) => ActionError::Failed(problem),
            EgressError::Broken(problem) if with.method.only_reads() => ActionError::Failed(problem),
            EgressError::Broken(problem) => ActionError::Unknown(format!("{problem}; it was sent, so the other side may have acted on it")),
        })?;
        let text = http::excerpt(&self.0.redact(&String::from_utf8_lossy(&answer.body)));
        let code = answer.status;
        let expected = with.expect_status.as_ref().map_or((200..300).contains(&code), |statuses| statuses.hold(code));
        if expected {
            let summary = format!("{} in {} ms", code, answer.took.as_millis());
            return Ok(ActionOutput { summary, data: self.data(&answer, &text), text });
        }
        let problem = format!("it answered {code}: {}", text.chars().take(500).collect::<String>());
        // Behind 502 and 504 stands a proxy that does not know either.
        match code {
            502 | 504 if !with.method.only_reads() => Err(ActionError::Unknown(problem)),
            _ => Err(ActionError::Failed(problem)),
        }
    }
}

impl HttpRequest {
    fn data(&self, answer: &Answer, text: &str) -> Value {
        let header = |name| answer.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(|value| self.0.redact(value));
        json!({
            "status": answer.status,
            "latency_ms": u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX),
            "content_type": header(CONTENT_TYPE),
            "location": header(LOCATION),
            "retry_after": header(RETRY_AFTER),
            "json": serde_json::from_str::<Value>(text).ok(),
            "cut": answer.cut,
        })
    }
}

impl Method {
    fn only_reads(self) -> bool {
        matches!(self, Method::Get | Method::Head)
    }
}

fn request(with: &With, key: &str) -> Result<Request, String> {
    let url = egress::parse_url(&with.url).map_err(|problem| format!("`url`: {problem}"))?;
    let mut headers = http::headers(&with.headers)?;
    let body = match (&with.json, &with.body) {
        (Some(_), Some(_)) => return Err("give `json` or `body`, not both".to_owned()),
        (Some(json), None) => {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
            json.to_string().into_bytes()
        }
        (None, Some(text)) => text.clone().into_bytes(),
        (None, None) => vec![],
    };
    if body.len() > egress::MAX_BODY {
        return Err(format!("the body is longer than {} bytes", egress::MAX_BODY));
    }
    if !body.is_empty() && with.method.only_reads() {
        return Err("a GET or HEAD carries no body".to_owned());
    }
    let key = HeaderValue::from_str(key).map_err(|_| "the idempotency key is no header value".to_owned())?;
    headers.insert("idempotency-key", key);
    let method = match with.method {
        Method::Get => reqwest::Method::GET,
        Method::Head => reqwest::Method::HEAD,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Patch => reqwest::Method::PATCH,
        Method::Delete => reqwest::Method::DELETE,
    };
    let timeout = with.timeout.map_or(egress::TIMEOUT, Dur::as_std);
    Ok(Request { method, url, headers, body, timeout })
}
