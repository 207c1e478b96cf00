//! `demo`: the main job on this machine. A small service of our own breaks, its alert comes in, somebody approves, it is restarted and verified.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use domain::time::{Clock, SystemClock};
use jiff::SignedDuration;
use secrecy::ExposeSecret;

use crate::app::App;
use crate::config::{Config, LogFormat};
use crate::lifecycle::Stop;
use crate::logging;
use crate::running::Running;

use super::demo_browser::Browser;
use super::out;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Press the button too, as a browser would, and end with 0 only if every stage was reached.
    #[arg(long)]
    auto: bool,
    /// Show the server's log.
    #[arg(long)]
    verbose: bool,
}

/// Longest time for the whole of `--auto`.
const MOST: Duration = Duration::from_secs(20);
/// The demo's person.
const PERSON: &str = "you";
/// What Alertmanager would show to prove who it is.
const SOURCE_TOKEN: &str = "demo-only-source-token-0123456789abcdef";

/// Runs the demo.
///
/// # Errors
/// Names the stage that was not reached.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    logging::start(LogFormat::Text, if args.verbose { "info" } else { "error" });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let folder = tempfile::Builder::new().prefix("watchkeeper-demo-").tempdir().context("cannot make a temporary folder")?;
        let stop = Stop::on_signals()?;
        let demo = Demo::start(folder.path(), stop.clone()).await.context("stage `start` failed")?;
        let result = if args.auto {
            let all = tokio::time::timeout(MOST, demo.auto()).await;
            all.unwrap_or_else(|_| Err(anyhow::anyhow!("not all stages were reached within {} s", MOST.as_secs())))
        } else {
            demo.by_hand(&stop).await
        };
        demo.running.stop_children().await;
        demo.running.stop().await;
        result
    })?;
    Ok(ExitCode::SUCCESS)
}

struct Demo {
    running: Running,
    service: String,
    client: reqwest::Client,
    began: Instant,
    login: String,
}

impl Demo {
    async fn start(folder: &Path, stop: Stop) -> anyhow::Result<Self> {
        let port = free_port()?;
        let service = format!("http://127.0.0.1:{port}");
        let program = std::env::current_exe().context("cannot find this program")?;
        let config = folder.join("config");
        std::fs::create_dir_all(&config)?;
        std::fs::write(folder.join("source-token"), SOURCE_TOKEN)?;
        std::fs::write(config.join("watchkeeper.yaml"), configuration(folder, &program, port))?;
        let config = Config::load(&config, &|_| None).map_err(|problems| super::problems(&problems))?;
        let running = App::start(config, crate::roles::Roles::ALL, stop).await?;
        let token = running.login_links().mint(PERSON, SystemClock.now(), SignedDuration::from_mins(60))?;
        let login = format!("{}/login?token={}", running.url(), token.expose_secret());
        let client = super::http_client(Duration::from_secs(5))?;
        let demo = Self { running, service, client, began: Instant::now(), login };
        demo.wait_for_health(true).await.context("the demo service did not come up")?;
        demo.say("a small service runs under supervision", &demo.service);
        Ok(demo)
    }

    /// Breaks the service and tells of it, as Prometheus and Alertmanager would.
    async fn break_and_tell(&self) -> anyhow::Result<()> {
        self.running.kill_target("demo").await.context("stage `break` failed")?;
        self.wait_for_health(false).await.context("stage `break` failed: the service still answers")?;
        self.say("the service was killed", "kill -9");
        self.post("firing").await.context("stage `alert` failed")?;
        self.say("Alertmanager's webhook was accepted", "POST /api/v1/webhooks/alertmanager/demo");
        Ok(())
    }

    async fn auto(&self) -> anyhow::Result<()> {
        self.break_and_tell().await?;
        let browser = Browser::sign_in(&self.login).await.context("stage `sign in` failed")?;
        self.say("signed in to the console", "one-time link, session cookie");
        let card = browser.wait_for("/incidents/1", "data-act=\"approve\"").await.context("stage `card` failed: no Approve button came")?;
        self.say("the incident's card is there", "ServiceDown on demo, with its Approve button");
        browser.press(&card, "approve").await.context("stage `approve` failed")?;
        self.say("approved", "the same form that a browser sends");
        self.wait_for_health(true).await.context("stage `restart` failed: the service did not come back")?;
        self.say("the service was restarted", "service.restart");
        browser.wait_for("/incidents/1", "verified:").await.context("stage `verify` failed: the check did not pass")?;
        self.say("the check passed", "http.check");
        self.post("resolved").await.context("stage `resolve` failed")?;
        self.say("Alertmanager's resolve was accepted", "");
        let page = browser.wait_for("/incidents/1", "badge closed").await.context("stage `close` failed: the incident is not closed")?;
        self.say("the incident is closed", "");
        out("\nTimeline");
        for line in super::demo_browser::timeline(&page) {
            out(&format!("  {line}"));
        }
        out(&format!("\nAll stages were reached in {:.1} s.", self.began.elapsed().as_secs_f64()));
        Ok(())
    }

    async fn by_hand(&self, stop: &Stop) -> anyhow::Result<()> {
        self.break_and_tell().await?;
        out(&format!("\n  Open this link, look at incident #1 and press Approve:\n\n    {}\n", self.login));
        let resolve = async {
            self.wait_for_health(true).await?;
            self.say("the service is back", "you approved, it was restarted and verified");
            // As Alertmanager would: the resolve comes a moment after the service does.
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.post("resolved").await?;
            self.say("Alertmanager's resolve was accepted", "the incident closes");
            out("\n  Look around as long as you like; Ctrl-C ends the demo.");
            anyhow::Ok(())
        };
        tokio::select! {
            result = resolve => result?,
            () = stop.soft.cancelled() => return Ok(()),
        }
        stop.soft.cancelled().await;
        Ok(())
    }

    async fn post(&self, status: &str) -> anyhow::Result<()> {
        let now = SystemClock.now();
        let ends_at = if status == "resolved" { now.to_string() } else { "0001-01-01T00:00:00Z".to_owned() };
        let starts_at = now - SignedDuration::try_from(self.began.elapsed()).unwrap_or_default();
        let labels = serde_json::json!({ "alertname": "ServiceDown", "severity": "critical", "service": "demo", "instance": self.service, "job": "demo" });
        let annotations = serde_json::json!({ "summary": "Service demo is down", "description": "demo does not answer on /health" });
        let body = serde_json::json!({
            "version": "4", "groupKey": "{}:{alertname=\"ServiceDown\"}", "truncatedAlerts": 0, "status": status, "receiver": "watchkeeper",
            "groupLabels": { "alertname": "ServiceDown" }, "commonLabels": labels, "commonAnnotations": annotations,
            "externalURL": "http://127.0.0.1:9093",
            "alerts": [{
                "status": status, "labels": labels, "annotations": annotations, "startsAt": starts_at.to_string(), "endsAt": ends_at,
                "generatorURL": "http://127.0.0.1:9090/graph?g0.expr=up+%3D%3D+0", "fingerprint": "c0ffee0ddba11ad5",
            }],
        });
        let url = format!("{}/api/v1/webhooks/alertmanager/demo", self.running.url());
        let answer = self.client.post(url).bearer_auth(SOURCE_TOKEN).json(&body).send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("the webhook was answered with {status}: {}", answer.text().await.unwrap_or_default());
        }
        Ok(())
    }

    async fn wait_for_health(&self, healthy: bool) -> anyhow::Result<()> {
        let url = format!("{}/health", self.service);
        // By hand a person takes their time; `--auto` is bounded as a whole.
        loop {
            let answered = self.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
            if answered == healthy {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn say(&self, what: &str, how: &str) {
        let how = if how.is_empty() { String::new() } else { format!("  ({how})") };
        out(&format!("{:6.2} s  ✓ {what}{how}", self.began.elapsed().as_secs_f64()));
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The whole configuration of the demo: also a first example of what one looks like.
fn configuration(folder: &Path, program: &Path, port: u16) -> String {
    let data: PathBuf = folder.join("data");
    let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
    let (data, program, token) = (quoted(&data), quoted(program), quoted(&folder.join("source-token")));
    format!(
        r#"server: {{ listen: "127.0.0.1:0" }}
data_dir: {data}
incidents: {{ resolve_after: 0s, reopen_within: 0s, close_after: 0s }}
sources:
  demo:
    kind: alertmanager
    auth: {{ bearer_file: {token} }}
egress: ["127.0.0.1:{port}"]
principals:
  {PERSON}: {{ roles: [admin] }}
targets:
  demo:
    kind: process
    program: {program}
    args: [demo-service, --listen, "127.0.0.1:{port}"]
    health_url: "http://127.0.0.1:{port}/health"
routes:
  - name: service-down
    match: ['alertname="ServiceDown"']
    incident: {{ group_by: [alertname, service], severity: P1 }}
    remedy: {{ runbook: restart-service, with: {{ target: '{{{{ labels.service }}}}' }}, mode: approve }}
runbooks:
  restart-service:
    about: Collects evidence, restarts a service, and checks that it answers.
    params: {{ target: {{ type: target }} }}
    approval: {{ roles: [admin], quorum: 1, expires: 15m }}
    guards: {{ concurrency: 1 }}
    steps:
      - {{ id: evidence, uses: collect.bundle, with: {{ target: '{{{{ params.target }}}}' }}, continue_on_error: true }}
      - {{ id: restart, uses: service.restart, with: {{ target: '{{{{ params.target }}}}' }}, timeout: 30s }}
    verify: {{ uses: http.check, with: {{ target: '{{{{ params.target }}}}' }}, within: 10s, every: 200ms }}
"#
    )
}
