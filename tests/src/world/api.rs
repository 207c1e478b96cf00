//! What sources post and what programs ask over the API.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::console::forms;
use super::{Alert, SOON, World, body};
use crate::eventually;

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body as JSON, null where it is none.
    pub json: Value,
}

impl World {
    /// Posts a body to the source `am`, as Alertmanager would.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn post(&self, body: impl Into<reqwest::Body>) -> anyhow::Result<Answer> {
        let url = format!("{}/api/v1/webhooks/alertmanager/am", self.url());
        let post = self.http().post(url).bearer_auth(self.source_token()).header("content-type", "application/json").body(body);
        answer(post).await
    }

    /// Posts these alerts in one delivery.
    ///
    /// # Errors
    /// If they are not accepted.
    pub async fn send(&self, alerts: &[Alert]) -> anyhow::Result<()> {
        let answer = self.post(body(alerts).to_string()).await?;
        ensure!(answer.status.is_success(), "the delivery was answered with {}: {}", answer.status, answer.json);
        Ok(())
    }

    /// A token of `name` with all rights that they have, made by them in the console.
    ///
    /// # Errors
    /// If the console makes none.
    pub async fn token(&self, name: &str) -> anyhow::Result<String> {
        let mut tokens = self.tokens.lock().await;
        if let Some(token) = tokens.get(name) {
            return Ok(token.clone());
        }
        let console = self.console(name).await?;
        let page = console.page("/account").await?;
        let form = forms(&page).into_iter().find(|form| form.action == "/account/tokens").context("the account page makes no tokens")?;
        let rights: Vec<String> = page.split("name=\"right.").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect();
        let names: Vec<String> = rights.iter().map(|right| format!("right.{right}")).collect();
        let mut fields = vec![("name", "test"), ("days", "1")];
        fields.extend(names.iter().map(|name| (name.as_str(), "on")));
        let (status, page) = console.send(&form, &fields).await?;
        ensure!(status == StatusCode::OK, "no token was made: {status} {page}");
        let token = page.split_once("id=\"token\"").and_then(|(_, rest)| rest.split_once('>')).and_then(|(_, rest)| rest.split_once('<'));
        let token = token.context("no token is on the page")?.0.to_owned();
        tokens.insert(name.to_owned(), token.clone());
        Ok(token)
    }

    /// Tokens that were made so far are no good any more: the store was replaced.
    pub async fn forget_tokens(&self) {
        self.tokens.lock().await.clear();
    }

    /// Calls the API as `name`; `path` begins behind `/api/v1`.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn call(&self, name: &str, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let request = self.http().request(method, format!("{}/api/v1{path}", self.url())).bearer_auth(self.token(name).await?);
        answer(body.into_iter().fold(request, |request, body| request.json(body))).await
    }

    /// Asks the API as `ann`.
    ///
    /// # Errors
    /// If it answers with anything but success.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.call("ann", Method::GET, path, None).await?;
        ensure!(answer.status.is_success(), "{path} was answered with {}: {}", answer.status, answer.json);
        Ok(answer.json)
    }

    /// All items of a list, page by page; `after` is the name of the parameter that the `next` of a page goes to.
    ///
    /// # Errors
    /// If the API refuses.
    pub async fn all(&self, path: &str, after: &str) -> anyhow::Result<Vec<Value>> {
        let mut all: Vec<Value> = Vec::new();
        let mut next = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{joint}limit=500{next}")).await?;
            let items = page["items"].as_array().context("no list")?;
            if items.is_empty() {
                return Ok(all);
            }
            all.extend(items.iter().cloned());
            match &page["next"] {
                Value::Null => return Ok(all),
                Value::String(place) => next = format!("&{after}={place}"),
                place => next = format!("&{after}={place}"),
            }
        }
    }

    /// The whole audit log, oldest first.
    ///
    /// # Errors
    /// If the API refuses.
    pub async fn audit(&self) -> anyhow::Result<Vec<Value>> {
        self.all("/audit", "after").await
    }

    /// All incidents, newest first.
    ///
    /// # Errors
    /// If the API refuses.
    pub async fn incidents(&self) -> anyhow::Result<Vec<Value>> {
        self.all("/incidents", "cursor").await
    }

    /// All runs, newest first.
    ///
    /// # Errors
    /// If the API refuses.
    pub async fn runs(&self) -> anyhow::Result<Vec<Value>> {
        self.all("/runs", "cursor").await
    }

    /// The one run that there is, with its attempts, once it is in this state.
    ///
    /// # Errors
    /// If there is not exactly one run, or it is not in that state within `within`.
    pub async fn run_in(&self, state: &str, within: Duration) -> anyhow::Result<Value> {
        eventually(within, async || {
            let runs = self.runs().await?;
            ensure!(runs.len() == 1, "there are {} runs: {runs:#?}", runs.len());
            let run = self.get(&format!("/runs/{}", runs[0]["id"].as_str().unwrap_or_default())).await?;
            ensure!(run["run"]["state"] == state, "the run is {}", run["run"]);
            Ok(run)
        })
        .await
    }

    /// An incident, with its alerts and runs, once it is in this state.
    ///
    /// # Errors
    /// If it is not within `within`.
    pub async fn incident_in(&self, number: i64, state: &str, within: Duration) -> anyhow::Result<Value> {
        eventually(within, async || {
            let incident = self.get(&format!("/incidents/{number}")).await?;
            ensure!(incident["incident"]["state"] == state, "incident {number} is {}", incident["incident"]["state"]);
            Ok(incident)
        })
        .await
    }

    /// The texts of an incident's timeline, oldest first.
    ///
    /// # Errors
    /// If the API refuses.
    pub async fn timeline(&self, number: i64) -> anyhow::Result<Vec<String>> {
        let page = self.get(&format!("/incidents/{number}/timeline")).await?;
        let items = page["items"].as_array().context("no list")?;
        Ok(items.iter().map(|item| item["entry"]["text"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// The sum of a metric over its labels.
    ///
    /// # Errors
    /// If there is no such metric.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let values = self.values(name).await?;
        ensure!(!values.is_empty(), "there is no metric {name}");
        Ok(values.iter().sum())
    }

    /// The same of a counter, which is there only after something was counted: zero before that.
    ///
    /// # Errors
    /// If the server does not tell.
    pub async fn count(&self, name: &str) -> anyhow::Result<f64> {
        Ok(self.values(name).await?.iter().sum())
    }

    async fn values(&self, name: &str) -> anyhow::Result<Vec<f64>> {
        let text = self.http().get(format!("{}/metrics", self.url())).send().await?.error_for_status()?.text().await?;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let known = series.split('{').next()? == name;
            known.then(|| value.parse::<f64>().ok())?
        });
        Ok(values.collect())
    }

    /// Waits until nothing that came in waits for its decision.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn everything_is_decided(&self, within: Duration) -> anyhow::Result<()> {
        eventually(within, async || {
            let waits = self.metric("watchkeeper_queue_depth").await?;
            ensure!(waits == 0.0, "{waits} events are not decided");
            Ok(())
        })
        .await
    }

    /// Waits until the supervised service answers, or does not.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn service_is(&self, up: bool) -> anyhow::Result<()> {
        eventually(SOON, async || {
            ensure!(self.service_answers().await == up, "the service is {}", if up { "down" } else { "up" });
            Ok(())
        })
        .await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    Ok(Answer { status, json: serde_json::from_str(&text).unwrap_or(Value::Null) })
}
