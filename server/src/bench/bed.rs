//! The server under test: a whole one, on a store of its own, with what a bench needs configured.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use store::{IncidentFilter, Store};

use crate::app::App;
use crate::config::Config;
use crate::lifecycle::Stop;
use crate::roles::Roles;
use crate::running::Running;

use super::wire::MARK;

const TOKEN: &str = "bench-only-source-token-0123456789abcdef";
/// A description as long as people write them: with it a body of one alert has about 1.5 KB.
const TEXT: &str = "The service does not answer on its health address. It was looked at twice a minute, and the last answers were timeouts. Look at \
                    the load of its host, at its log and at the last deployment first; the runbook says how to restart it and when not to. If it is \
                    the only one of its kind, tell the people who depend on it; they are in the channel of the product. This text is as long as such \
                    texts are, so that what is measured is what is met.";

/// Where alerts are sent.
#[derive(Clone, Copy)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) path: &'static str,
    pub(super) token: Option<&'static str>,
}

impl Door {
    /// A whole request with these alerts in one body. Numbers make them different.
    pub(super) fn request(&self, alertname: &str, numbers: impl Iterator<Item = u64>, group: impl Fn(u64) -> u64) -> Vec<u8> {
        request(self.address, self.path, self.token, &body(alertname, numbers, group))
    }
}

/// A running server.
pub(super) struct Bed {
    pub(super) door: Door,
    pub(super) store: Store,
    running: Running,
    _folder: tempfile::TempDir,
}

impl Bed {
    /// Starts it on an empty store. `more` is configuration beyond the source: channels, routes, runbooks; SECRET in it is a file with something secret.
    pub(super) async fn start(store: Option<&str>, roles: Roles, more: &str, stop: Stop) -> anyhow::Result<Self> {
        let bed = Self::start_again(store, roles, more, stop).await?;
        let filter = IncidentFilter { open_only: false, prefix: None, before: None, limit: 1 };
        let used = !bed.store.read().await?.incidents(&filter).await?.is_empty();
        ensure!(!used, "the store holds incidents: a bench would fill it with more; give it an empty one");
        Ok(bed)
    }

    /// The same on one that an earlier part of the bench has filled.
    pub(super) async fn start_again(store: Option<&str>, roles: Roles, more: &str, stop: Stop) -> anyhow::Result<Self> {
        let folder = folder()?;
        let config = folder.path().join("config");
        std::fs::create_dir_all(&config)?;
        std::fs::write(folder.path().join("token"), TOKEN)?;
        let text = configuration(folder.path(), store, more)?;
        std::fs::write(config.join("watchkeeper.yaml"), text)?;
        let config = Config::load(&config, &|_| None).map_err(|problems| crate::cmd::problems(&problems))?;
        // One server of several ends by itself; a signal ends all.
        let stop = Stop { soft: stop.soft.child_token(), hard: stop.hard.child_token() };
        let running = App::start(config, roles, stop).await?;
        let address = running.url().trim_start_matches("http://").parse()?;
        let store = running.store().clone();
        let door = Door { address, path: "/api/v1/webhooks/alertmanager/bench", token: Some(TOKEN) };
        Ok(Self { door, store, running, _folder: folder })
    }

    /// Waits until everything that was accepted is decided.
    pub(super) async fn decided(&self, mut look: impl FnMut(i64)) -> anyhow::Result<()> {
        loop {
            let waiting = self.store.read().await?.depths().await?.queue;
            look(waiting);
            if waiting == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Alerts that incidents hold, and how many incidents there are.
    pub(super) async fn held(&self) -> anyhow::Result<(i64, i64)> {
        let (mut alerts, mut count, mut before) = (0, 0, None);
        loop {
            let filter = IncidentFilter { open_only: false, prefix: None, before, limit: 500 };
            let page = self.store.read().await?.incidents(&filter).await?;
            let Some(last) = page.last() else { return Ok((alerts, count)) };
            before = Some(last.number);
            alerts += page.iter().map(|incident| incident.alerts_total).sum::<i64>();
            count += page.len() as i64;
        }
    }

    pub(super) async fn stop(self) {
        self.running.stop().await;
    }
}

/// A temporary folder of a bench.
pub(super) fn folder() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("watchkeeper-bench-").tempdir().context("cannot make a temporary folder")
}

/// The whole request.
pub(super) fn request(to: SocketAddr, path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let length = body.len();
    let proof = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("POST {path} HTTP/1.1\r\nhost: {to}\r\n{proof}content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Alertmanager's body of version 4.
pub(super) fn body(alertname: &str, numbers: impl Iterator<Item = u64>, group: impl Fn(u64) -> u64) -> String {
    let alerts: Vec<String> = numbers
        .map(|n| {
            let group = group(n);
            format!(
                r#"{{"status":"firing","labels":{{"alertname":"{alertname}","severity":"critical","service":"shop","env":"production","cluster":"eu-1","instance":"{MARK}{n}","group":"{MARK}{group}","job":"node"}},"annotations":{{"summary":"{MARK}{group} does not answer","description":"{TEXT}","runbook_url":"https://runbooks.example.com/shop"}},"startsAt":"2026-03-01T12:00:00.000Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://prometheus.example.com:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1","fingerprint":"{n:016x}"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"version":"4","groupKey":"{{}}:{{alertname=\"{alertname}\"}}","truncatedAlerts":0,"status":"firing","receiver":"watchkeeper","groupLabels":{{"alertname":"{alertname}"}},"commonLabels":{{"alertname":"{alertname}","severity":"critical"}},"commonAnnotations":{{}},"externalURL":"http://alertmanager.example.com:9093","alerts":[{}]}}"#,
        alerts.join(",")
    )
}

fn configuration(folder: &Path, store: Option<&str>, more: &str) -> anyhow::Result<String> {
    let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
    let (data, token) = (quoted(&folder.join("data")), quoted(&folder.join("token")));
    let more = more.replace("SECRET", &token);
    let store = store.map(|url| format!("store: {{ url: {} }}\n", serde_json::Value::from(url))).unwrap_or_default();
    let keys = if store.contains("postgres") { shared_keys(folder)? } else { String::new() };
    Ok(format!(
        "server: {{ listen: \"127.0.0.1:0\" }}\ndata_dir: {data}\n{store}{keys}\
         sources: {{ bench: {{ kind: alertmanager, auth: {{ bearer_file: {token} }} }} }}\n{more}"
    ))
}

/// On PostgreSQL the keys have to be given.
fn shared_keys(folder: &Path) -> anyhow::Result<String> {
    let mut lines = vec![];
    for name in ["button", "session", "audit"] {
        let file = folder.join(name);
        // Nothing of a bench is worth a secret.
        std::fs::write(&file, format!("bench-only-{name}-0123456789abcdef0123456789abcdef"))?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
        lines.push(format!("{name}: {}", serde_json::Value::from(file.display().to_string())));
    }
    Ok(format!("keys: {{ {} }}\n", lines.join(", ")))
}
