//! What agents are not trusted with: another's work, and an order that they had no right to carry out when they were killed.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use async_nats::jetstream;
use domain::action::ActionOutput;
use domain::order::{Ended, Order};
use domain::run::Fence;
use harness::eventually;
use harness::peers::Nats;
use harness::world::{Alert, SOON, World};
use serde_json::json;

use crate::agents::{plan_over, report, signed};
use crate::agents_order::{an_order, now};
use crate::agents_roll::agent_where;

/// Killed between keeping an order and refusing it; its next start judges again.
#[tokio::test]
async fn an_order_that_was_not_allowed_is_not_begun_by_the_next_start() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let link = json!({ "url": nats.url() });
    let (_plan, mut edge, ledger) = plan_over(&link, &link, &["hello"], "20s").await?;
    let order = Order { fence: Some(Fence { epoch: 1, n: 4 }), ..an_order("left-1", now()?, &ledger) };
    let left = edge.data.join("orders/left-1");
    fs::create_dir_all(&left)?;
    fs::write(left.join("order.json"), serde_json::to_vec(&order)?)?;
    fs::write(edge.data.join("orders/fences.json"), json!({ "api": Fence { epoch: 1, n: 5 } }).to_string())?;
    edge.start()?;
    eventually(SOON, async || {
        ensure!(edge.refusals().last().is_some_and(|last| last.contains("comes too late")), "{:?}", edge.refusals());
        Ok(())
    })
    .await?;
    // Time in which nothing may happen.
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    Ok(())
}

/// Its signature is good, and the execution is another's.
#[tokio::test]
async fn an_agent_cannot_report_what_another_was_told_to_do() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let link = json!({ "url": nats.url() });
    let (mut plan, mut edge, ledger) = plan_over(&link, &link, &["hello"], "12s").await?;
    let dir = plan.dir().to_owned();
    plan.merge(json!({ "agents": { "known": { "other": { "public_key_file": dir.join("stranger.pub") } } } }));
    edge.start()?;
    let world: World = plan.start().await?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    edge.kill9()?;
    world.send(&[Alert::service_down()]).await?;
    let run = world.run_in("running", SOON).await?;
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    let token = signed(&report("other", &run, Ended::Done(ActionOutput::default()))?, &dir.join("stranger.pem"))?;
    eventually(SOON, async || Ok(context.publish("watchkeeper.agent.other.report", token.clone().into()).await?.await?)).await?;
    world.run_in("unknown", SOON * 2).await?;
    ensure!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    let audit = world.audit().await?;
    ensure!(audit.iter().any(|row| row["actor"] == "agent:other" && row["reason"] == "not_its_order"), "{audit:?}");
    Ok(())
}
