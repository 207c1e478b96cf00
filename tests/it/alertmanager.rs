//! The whole way with the real Prometheus and Alertmanager: a service dies, its rule fires, somebody approves in chat, it comes back, the rule
//! resolves, and the incident closes. Once quietly, and once with Alertmanager killed in between.

use anyhow::ensure;
use harness::eventually;
use harness::fake::slack::{Config, FakeSlack, Message};
use harness::peers::{Alertmanager, Prometheus};
use harness::world::{ANN, SOON, World};
use serde_json::json;

use crate::slack::{card_with, closed, door, plan};

/// A service is down if it cannot be scraped; the rule of the manuals, with a shorter wait.
const RULES: &str = r#"
groups:
  - name: services
    rules:
      - alert: ServiceDown
        expr: up == 0
        for: 1s
        labels: { severity: critical }
        annotations:
          summary: "Service {{ $labels.service }} is down"
          description: "{{ $labels.instance }} has not answered for a while"
"#;

/// Watchkeeper, Slack, and what watches the service.
struct Scene {
    slack: FakeSlack,
    world: World,
    alertmanager: Alertmanager,
    _prometheus: Prometheus,
}

impl Scene {
    async fn set() -> anyhow::Result<Self> {
        let slack = FakeSlack::start(Config::default()).await?;
        let world = plan(&slack)?.start().await?;
        world.service_is(true).await?;
        let receiver = json!({
            "name": "watchkeeper",
            "webhook_configs": [{
                "url": format!("{}/api/v1/webhooks/alertmanager/am", world.url()), "send_resolved": true,
                "http_config": { "authorization": { "credentials": world.source_token() } },
            }],
        });
        let route = json!({
            "receiver": "watchkeeper", "group_by": ["alertname", "service"], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h",
        });
        let alertmanager = Alertmanager::start(&json!({ "route": route, "receivers": [receiver] }).to_string()).await?;
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": ["rules/*.yml"],
            "alerting": { "alertmanagers": [{ "static_configs": [{ "targets": [alertmanager.target()] }] }] },
            "scrape_configs": [{ "job_name": "demo", "static_configs": [{ "targets": [world.service()], "labels": { "service": "demo" } }] }],
        });
        let flags = ["--rules.alert.resend-delay=1s"];
        let prometheus = Prometheus::with_flags(&config.to_string(), &[("services.yml", RULES)], &flags).await?;
        eventually(SOON, async || {
            ensure!(!prometheus.query("demo_uptime_seconds").await?.is_empty(), "the service is not scraped");
            Ok(())
        })
        .await?;
        Ok(Self { slack, world, alertmanager, _prometheus: prometheus })
    }

    /// Kills the service, and gives the card that comes of it.
    async fn service_dies(&self) -> anyhow::Result<Message> {
        self.world.kill_service()?;
        let card = card_with(&self.slack, "Approve").await?;
        ensure!(card.visible_text().contains("Service demo is down"), "the card says:\n{}", card.visible_text());
        Ok(card)
    }

    /// Approves, and sees everything to its end on the same card.
    async fn approve_until_closed(&self, card: &Message) -> anyhow::Result<()> {
        self.slack.click(ANN, card, "Approve", door(&self.world)).await?;
        self.world.service_is(true).await?;
        let card = closed(&self.slack, card).await?;
        ensure!(card.visible_text().contains("restart-service succeeded"), "the card says:\n{}", card.visible_text());
        ensure!(self.slack.channel("ops").messages().len() == 1, "there is more than one card");
        ensure!(self.world.incidents().await?.len() == 1, "there is more than one incident");
        self.world.run_in("succeeded", SOON).await?;
        ensure!(self.world.service_pids().len() == 1, "the service runs {} times", self.world.service_pids().len());
        ensure!(self.slack.refused().is_empty(), "Slack refused: {:#?}", self.slack.refused());
        Ok(())
    }
}

#[tokio::test]
async fn a_dead_service_is_restarted_after_a_press_and_its_incident_closes() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let card = scene.service_dies().await?;
    scene.approve_until_closed(&card).await
}

#[tokio::test]
async fn a_killed_alertmanager_that_tells_it_all_again_changes_nothing() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let card = scene.service_dies().await?;
    // It forgets what it had sent, and hears of the alert again.
    scene.alertmanager.kill9()?;
    scene.alertmanager.restart().await?;
    eventually(SOON, async || {
        let repeats = scene.world.metric("watchkeeper_events_deduplicated_total").await?;
        ensure!(repeats >= 1.0, "it was not told again");
        Ok(())
    })
    .await?;
    scene.approve_until_closed(&card).await
}
