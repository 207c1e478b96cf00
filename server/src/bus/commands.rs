//! Requests for runs: `PREFIX.cmd.runbook.run`. Each becomes the API's own call, so that there is one way to ask, one check and one answer.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use domain::inbox::{HttpRequest, HttpResponse};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{BusState, Link, RECONNECT};
use crate::config;

/// Requests answered at once; the rest wait their turn.
const AT_ONCE: usize = 16;
/// Servers that share the requests.
const QUEUE: &str = "watchkeeper";
/// `commands` in [`BusState`].
const PART: &str = "commands";
/// How often the connection is looked at: a subscription does not tell that it fell silent.
const LOOK: Duration = Duration::from_secs(5);

/// Answers a call of the API, as HTTP would.
pub(crate) type Call = Arc<dyn Fn(HttpRequest) -> futures::future::BoxFuture<'static, HttpResponse> + Send + Sync>;

/// Takes requests until told to stop.
pub(crate) struct Commands {
    settings: config::Commands,
    link: Link,
    state: BusState,
    call: Call,
    stop: CancellationToken,
}

/// What a request says. The token and the request's id may stand in headers as well: `Authorization`, `Idempotency-Key`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    runbook: String,
    #[serde(default)]
    incident: Option<i64>,
    #[serde(default)]
    params: Map<String, Value>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    request_id: Option<String>,
}

impl Commands {
    pub(crate) fn new(settings: config::Commands, link: Link, call: Call, stop: CancellationToken) -> Self {
        Self { settings, state: link.state(), link, call, stop }
    }

    /// Runs until stopped.
    pub(crate) async fn run(self) {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        while !self.stop.is_cancelled() {
            let ended = tokio::select! {
                ended = self.take(&slots) => ended,
                () = self.stop.cancelled() => return,
            };
            if let Err(error) = ended {
                self.state.set(PART, Some(format!("{error:#}")));
            }
            tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = self.stop.cancelled() => return }
        }
    }

    async fn take(&self, slots: &Arc<Semaphore>) -> anyhow::Result<()> {
        let client = self.link.client().await?;
        let mut replaced = std::pin::pin!(self.link.replaced());
        let subject = format!("{}.cmd.runbook.run", self.settings.prefix);
        let mut requests = client.queue_subscribe(subject.clone(), QUEUE.to_owned()).await?;
        client.flush().await?;
        self.state.set(PART, None);
        tracing::info!(subject, "taking requests for runs");
        let mut every = tokio::time::interval(LOOK);
        loop {
            let request = tokio::select! {
                request = requests.next() => request,
                () = &mut replaced => anyhow::bail!("the connection was made anew"),
                _ = every.tick() => {
                    self.link.client().await?;
                    continue;
                }
            };
            let Some(request) = request else { anyhow::bail!("the server ended the subscription") };
            let Some(reply) = request.reply.clone() else {
                tracing::warn!("a request for a run wants no answer: it is not carried out");
                continue;
            };
            let turn = Arc::clone(slots).acquire_owned().await?;
            let (client, call) = (client.clone(), Arc::clone(&self.call));
            tokio::spawn(async move {
                let answer = match as_call(&request) {
                    Ok(http) => call(http).await,
                    Err(why) => problem(400, "invalid", &why),
                };
                let sent = client.publish_with_headers(reply, status(&answer), answer.body).await;
                if let Err(error) = sent {
                    tracing::warn!(%error, "an answer could not be sent: whoever asks again with the same request_id gets it");
                }
                drop(turn);
            });
        }
    }
}

/// The call of the API that a request stands for.
fn as_call(request: &async_nats::Message) -> Result<HttpRequest, String> {
    let wanted: Wanted = serde_json::from_slice(&request.payload)
        .map_err(|error| format!("The request cannot be read: {error}. It takes {{\"runbook\", \"incident\"?, \"params\"?}}."))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if wanted.runbook.is_empty() || !wanted.runbook.chars().all(plain) || wanted.runbook.starts_with('.') {
        return Err("`runbook` is the name of a runbook.".to_owned());
    }
    let told = |name: &str| request.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned());
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    if let Some(proof) = wanted.token.map(|token| format!("Bearer {token}")).or_else(|| told("Authorization")) {
        headers.push(("authorization".to_owned(), proof));
    }
    if let Some(id) = wanted.request_id.or_else(|| told("Idempotency-Key")) {
        headers.push(("idempotency-key".to_owned(), id));
    }
    let mut body = json!({ "params": wanted.params });
    if let Some(incident) = wanted.incident {
        body["incident"] = incident.into();
    }
    Ok(HttpRequest { path: format!("/api/v1/runbooks/{}/runs", wanted.runbook), headers, body: Bytes::from(body.to_string()) })
}

/// The headers by which NATS's services tell errors.
fn status(answer: &HttpResponse) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", answer.content_type);
    headers.insert("Status-Code", answer.status.to_string().as_str());
    if answer.status >= 400 {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        headers.insert("Nats-Service-Error-Code", answer.status.to_string().as_str());
        headers.insert("Nats-Service-Error", body["code"].as_str().unwrap_or("error"));
    }
    headers
}

fn problem(status: u16, code: &str, detail: &str) -> HttpResponse {
    let body = json!({ "title": "Bad request", "status": status, "code": code, "detail": detail });
    HttpResponse { content_type: "application/problem+json", ..HttpResponse::json(status, &body) }
}
