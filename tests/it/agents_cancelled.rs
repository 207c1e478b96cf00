//! Agents and runs that a person cancels: the cancel is told until the agent answers, and what lies on the stream by then is not begun.

use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::jetstream;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::eventually;
use harness::peers::Nats;
use harness::world::{Alert, Ledger, SOON, World};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::agents::{Edge, begun, plan};
use crate::agents_roll::agent_where;

/// An order for an agent that was there a moment ago and does not take it: `stop` says what became of the agent.
async fn ordered(stop: impl Fn(&mut Edge) -> anyhow::Result<()>) -> anyhow::Result<(Nats, World, Edge, Ledger)> {
    let nats = Nats::start().await?;
    let (plan, mut edge, ledger) = plan(&nats, &nats.url(), &["never"], "10m").await?;
    let world = plan.start().await?;
    world.token("ann").await?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    stop(&mut edge)?;
    world.send(&[Alert::service_down()]).await?;
    Ok((nats, world, edge, ledger))
}

async fn cancel(world: &World) -> anyhow::Result<()> {
    let run = world.run_in("running", SOON).await?;
    let path = format!("/runs/{}/cancel", run["run"]["id"].as_str().context("no id")?);
    let answer = world.call("ann", Method::POST, &path, Some(&json!({}))).await?;
    ensure!(answer.status.is_success(), "{answer:?}");
    Ok(())
}

/// How often something was ordered, and how often a cancel was put behind it, as NATS has it.
async fn lying(nats: &Nats) -> anyhow::Result<(usize, usize)> {
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    let mut stream = context.get_stream("WATCHKEEPER_AGENTS").await?;
    let last = stream.info().await?.state.last_sequence;
    let (mut orders, mut cancels) = (0, 0);
    for number in 1..=last {
        let token = String::from_utf8(stream.get_raw_message(number).await?.payload.to_vec())?;
        let claims = token.split('.').nth(1).context("no token")?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        match claims["jti"].as_str().is_some_and(|name| name.starts_with("cancel/")) {
            true => cancels += 1,
            false => orders += 1,
        }
    }
    Ok((orders, cancels))
}

async fn is_ordered(nats: &Nats) -> anyhow::Result<()> {
    eventually(SOON, async || {
        let (orders, cancels) = lying(nats).await?;
        ensure!(orders > 0 && cancels == 0, "{orders} orders, {cancels} cancels");
        Ok(())
    })
    .await
}

async fn is_cancelled(nats: &Nats) -> anyhow::Result<()> {
    eventually(SOON, async || {
        ensure!(lying(nats).await?.1 > 0, "no cancel lies on the stream");
        Ok(())
    })
    .await
}

/// Once the agent is there the run is over, and the order was not obeyed.
async fn nothing_was_begun(world: &World, ledger: &Ledger) -> anyhow::Result<()> {
    let run = world.run_in("cancelled", SOON).await?;
    let why = run["attempts"].to_string();
    ensure!(why.contains("the run was stopped before it began"), "{why}");
    // Time in which nothing may happen: longer than a late order waits.
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    Ok(())
}

#[tokio::test]
async fn an_order_that_waited_for_its_agent_is_not_begun_after_its_run_was_cancelled() -> anyhow::Result<()> {
    let (nats, mut world, mut edge, ledger) = ordered(Edge::kill9).await?;
    is_ordered(&nats).await?;
    cancel(&world).await?;
    world.kill9()?;
    let (orders, _) = lying(&nats).await?;
    world.start().await?;
    is_cancelled(&nats).await?;
    // Time in which it may not be ordered again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(lying(&nats).await?.0, orders);
    edge.start()?;
    nothing_was_begun(&world, &ledger).await
}

/// It has the order in its hands and is stopped before it can look at it.
#[tokio::test]
async fn an_agent_that_stood_still_hears_of_the_cancel_before_it_begins() -> anyhow::Result<()> {
    let signal = |edge: &Edge, signal| {
        let pid = edge.proc.as_ref().and_then(|proc| Pid::from_raw(i32::try_from(proc.pid()).ok()?)).context("the agent does not run")?;
        anyhow::Ok(kill_process(pid, signal)?)
    };
    let (nats, world, edge, ledger) = ordered(|edge| signal(edge, Signal::STOP)).await?;
    is_ordered(&nats).await?;
    // Longer than a fresh order is.
    tokio::time::sleep(Duration::from_secs(5)).await;
    cancel(&world).await?;
    is_cancelled(&nats).await?;
    signal(&edge, Signal::CONT)?;
    nothing_was_begun(&world, &ledger).await
}

#[tokio::test]
async fn a_server_that_starts_again_repeats_its_cancel() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let (plan, _edge, ledger) = plan(&nats, &nats.url(), &["sleep", "300"], "10m").await?;
    let mut world = plan.start().await?;
    world.token("ann").await?;
    world.send(&[Alert::service_down()]).await?;
    begun(&ledger).await?;
    cancel(&world).await?;
    world.kill9()?;
    world.start().await?;
    let run = world.run_in("cancelled", SOON).await?;
    ensure!(run["attempts"].to_string().contains("stopped after"), "{run}");
    assert_eq!(ledger.lines(), ["sleep 300"]);
    Ok(())
}
