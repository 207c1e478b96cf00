//! The main job over Slack: an alert becomes one card, an entitled person presses, the remedy runs and is verified, the card closes.

use anyhow::ensure;
use harness::fake::slack::{Config, FakeSlack, Message};
use harness::world::{ANN, Alert, BEN, Plan, SOON, World};
use serde_json::json;

/// A world with a channel on Slack.
pub(crate) fn plan(slack: &FakeSlack) -> anyhow::Result<Plan> {
    Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.slack(slack)
}

/// Where Slack sends what people press.
pub(crate) fn door(world: &World) -> String {
    format!("{}/slack/interactions", world.url())
}

/// The first card, once it has a button of this label.
pub(crate) async fn card_with(slack: &FakeSlack, button: &str) -> anyhow::Result<Message> {
    let has = |message: &Message| message.thread_ts.is_none() && message.buttons().iter().any(|known| known.label == button);
    slack.channel("ops").wait_for(has, SOON).await
}

/// Waits until the card says that the incident is closed.
pub(crate) async fn closed(slack: &FakeSlack, card: &Message) -> anyhow::Result<Message> {
    slack.wait_until(card, |card| card.visible_text().contains("closed ·"), SOON).await
}

#[tokio::test]
async fn an_alert_is_approved_remedied_verified_and_closed_on_one_card() -> anyhow::Result<()> {
    let slack = FakeSlack::start(Config::default()).await?;
    let world = plan(&slack)?.start().await?;
    world.service_is(true).await?;
    world.kill_service()?;
    world.service_is(false).await?;
    let alert = Alert::service_down();
    world.send(std::slice::from_ref(&alert)).await?;

    let card = card_with(&slack, "Approve").await?;
    let text = card.visible_text();
    for part in ["demo is down", "P1", "#1", "1 active of 1", "Service demo is down", "restart-service", "service.restart on demo"] {
        ensure!(text.contains(part), "{part:?} is not on the card:\n{text}");
    }
    let reply = slack.click(ANN, &card, "Approve", door(&world)).await?;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    slack.wait_for_ephemeral(ANN, |message| message.visible_text().contains("Approved"), SOON).await?;
    world.service_is(true).await?;
    assert_eq!(world.service_pids().len(), 1);
    let run = world.run_in("succeeded", SOON).await?;
    let steps: Vec<(&str, &str)> =
        run["attempts"].as_array().unwrap().iter().map(|a| (a["step"].as_str().unwrap(), a["state"].as_str().unwrap())).collect();
    assert_eq!(steps[..2], [("evidence", "succeeded"), ("restart", "succeeded")], "{steps:?}");
    slack.wait_until(&card, |card| card.visible_text().contains("mitigated"), SOON).await?;

    world.send(&[alert.resolved()]).await?;
    let card = closed(&slack, &card).await?;
    assert_eq!(card.buttons(), [], "a closed incident asks nothing");
    assert!(card.visible_text().contains("approved by ann"), "{}", card.visible_text());
    assert!(!card.edits.is_empty());
    assert_eq!(slack.channel("ops").messages().len(), 1, "one card, edited in place");
    let said = |part: &'static str| move |message: &Message| message.visible_text().contains(part);
    for part in
        ["Opened as P1", "ann approved restart-service", "restart-service started", "verified", "resolved: ServiceDown", "Resolved: none"]
    {
        slack.channel("ops").wait_for_reply(&card, said(part), SOON).await?;
    }
    assert_eq!(slack.refused().len(), 0, "{:#?}", slack.refused());
    Ok(())
}

#[tokio::test]
async fn a_denial_asks_why_and_nothing_runs() -> anyhow::Result<()> {
    let slack = FakeSlack::start(Config::default()).await?;
    let world = plan(&slack)?.start().await?;
    let before = world.service_pids();
    world.send(&[Alert::service_down()]).await?;
    let card = card_with(&slack, "Deny").await?;
    slack.click(BEN, &card, "Deny", door(&world)).await?;
    let view = slack.wait_for_view(BEN, SOON).await?;
    assert!(slack.submit_view(BEN, &view.id, &[], door(&world)).await.is_err(), "a denial without a reason");
    let label = view.json["blocks"].as_array().unwrap().iter().find(|block| block["type"] == "input").unwrap()["block_id"].clone();
    let reply = slack.submit_view(BEN, &view.id, &[(label.as_str().unwrap(), "it is being moved <!channel>")], door(&world)).await?;
    assert_eq!(reply.status, 200);
    assert!(!slack.view(&view.id).unwrap().open);
    let card = slack.wait_until(&card, |card| card.visible_text().contains("denied by ben: it is being moved <!channel>"), SOON).await?;
    assert_eq!(card.mentions(), []);
    assert!(card.buttons().iter().all(|button| button.label != "Approve" && button.label != "Deny"));
    world.run_in("refused", SOON).await?;
    assert_eq!(world.service_pids(), before);
    Ok(())
}

#[tokio::test]
async fn an_incident_is_taken_given_back_and_resolved_by_buttons() -> anyhow::Result<()> {
    let slack = FakeSlack::start(Config::default()).await?;
    let world = plan(&slack)?.with(json!({ "incidents": { "close_after": "1h", "reopen_within": "1h" } })).start().await?;
    world.send(&[Alert::new("Odd").label("service", "api")]).await?;
    for (button, then, says) in [
        ("Acknowledge", "Unacknowledge", "Taken by: ben"),
        ("Unacknowledge", "Acknowledge", "open ·"),
        ("Resolve", "Reopen", "Resolved by: ben"),
        ("Reopen", "Resolve", "open ·"),
    ] {
        let card = card_with(&slack, button).await?;
        slack.click(BEN, &card, button, door(&world)).await?;
        let card = card_with(&slack, then).await?;
        ensure!(card.visible_text().contains(says), "after {button} the card says:\n{}", card.visible_text());
    }
    assert_eq!(slack.channel("ops").messages().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_suggested_runbook_runs_at_a_press_of_its_button() -> anyhow::Result<()> {
    let slack = FakeSlack::start(Config::default()).await?;
    let mut plan = plan(&slack)?;
    plan.config["routes"][0]["remedy"]["mode"] = json!("suggest");
    let world = plan.start().await?;
    world.service_is(true).await?;
    world.kill_service()?;
    world.send(&[Alert::service_down()]).await?;
    let card = card_with(&slack, "Run restart-service").await?;
    // What it asks for is stored with the decision about it.
    world.everything_is_decided(SOON).await?;
    assert!(world.runs().await?.is_empty(), "a suggestion runs nothing by itself");
    slack.click(BEN, &card, "Run restart-service", door(&world)).await?;
    slack.wait_for_ephemeral(BEN, |message| message.visible_text().contains("somebody else to approve"), SOON).await?;
    assert!(!world.service_answers().await, "who asks does not decide");
    let card = card_with(&slack, "Approve").await?;
    assert!(card.visible_text().contains("asked by ben"), "{}", card.visible_text());
    slack.click(ANN, &card, "Approve", door(&world)).await?;
    world.service_is(true).await?;
    world.run_in("succeeded", SOON).await?;
    Ok(())
}
