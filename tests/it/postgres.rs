//! The main job over PostgreSQL, and what a database that goes away means: 503, alive, and back without a restart.

use anyhow::{Context, ensure};
use harness::eventually;
use harness::peers::{Postgres, Stop};
use harness::world::{Alert, Plan, SOON, body};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn an_alert_is_approved_remedied_verified_and_closed() -> anyhow::Result<()> {
    let database = Postgres::shared().await?.create_database().await?;
    let world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.postgres(&database)?.start().await?;
    world.service_is(true).await?;
    world.kill_service()?;
    let alert = Alert::service_down();
    world.send(std::slice::from_ref(&alert)).await?;
    let approval = eventually(SOON, async || {
        let waiting = world.get("/approvals").await?;
        waiting["items"][0]["id"].as_str().map(str::to_owned).context("nothing waits for approval")
    })
    .await?;
    let decided = json!({ "decision": "approve" });
    let answer = world.call("ben", Method::POST, &format!("/approvals/{approval}/decision"), Some(&decided)).await?;
    ensure!(answer.status.is_success(), "{} {}", answer.status, answer.json);
    world.service_is(true).await?;
    world.run_in("succeeded", SOON).await?;
    world.send(&[alert.resolved()]).await?;
    world.incident_in(1, "closed", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn while_the_database_is_away_senders_are_told_to_come_again() -> anyhow::Result<()> {
    let mut postgres = Postgres::start().await?;
    let database = postgres.create_database().await?;
    let world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.postgres(&database)?.allow("store").allow("after_connect").start().await?;
    world.send(&[Alert::new("Before")]).await?;
    postgres.stop(Stop::Immediate).await?;
    let answer = world.post(body(&[Alert::new("Meanwhile")]).to_string()).await?;
    assert_eq!(answer.status.as_u16(), 503, "{}", answer.json);
    let alive = world.http().get(format!("{}/livez", world.url())).send().await?;
    assert_eq!(alive.status().as_u16(), 200);
    postgres.resume().await?;
    eventually(SOON, async || world.send(&[Alert::new("After")]).await).await?;
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        ensure!(incidents.len() == 2, "{} incidents", incidents.len());
        Ok(())
    })
    .await
}
