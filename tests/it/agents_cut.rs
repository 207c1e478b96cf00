//! Agents that are cut off in the middle of an order: in a network namespace of their own whose cable is pulled out, so that packets vanish.

use std::time::Duration;

use anyhow::ensure;
use harness::peers::Nats;
use harness::world::{Alert, Ledger, SOON, World};
use harness::{Netns, Tally};
use serde_json::json;

use crate::agents::{Cable, Edge, begun, plan_over};
use crate::agents_killed::{moment, reported, settled};
use crate::agents_roll::agent_where;

/// What is between the agent and NATS.
enum Wire {
    Namespace(Netns),
    /// Where namespaces are not permitted: a proxy that closes its connections.
    Proxy(Cable),
}

impl Wire {
    /// NATS and the wire to it.
    async fn lay() -> anyhow::Result<(Nats, Self)> {
        match Netns::new().await {
            Ok(netns) => Ok((Nats::at(&netns.host(), "").await?, Self::Namespace(netns))),
            Err(why) => {
                eprintln!("no network namespace here, so connections are closed by a proxy instead of vanishing: {why:#}");
                let nats = Nats::start().await?;
                let cable = Cable::lay(&nats.url()).await?;
                Ok((nats, Self::Proxy(cable)))
            }
        }
    }

    async fn cut(&self, out: bool) -> anyhow::Result<()> {
        match self {
            Self::Namespace(netns) if out => netns.cut().await,
            Self::Namespace(netns) => netns.mend().await,
            Self::Proxy(cable) => cable.cut(out).await,
        }
    }

    fn prefix(&self) -> Vec<String> {
        if let Self::Namespace(netns) = self { netns.prefix() } else { vec![] }
    }

    fn url(&self, nats: &Nats) -> String {
        if let Self::Proxy(cable) = self { cable.url.clone() } else { nats.url() }
    }
}

/// A run whose step is under way on an agent that can be cut off.
struct Dark {
    world: World,
    ledger: Ledger,
    edge: Edge,
    wire: Wire,
    // The last to go.
    _nats: Nats,
}

impl Dark {
    /// The step waits for `dark`, and may take so long. The cable is pulled out while it does.
    async fn begin(limit: &str) -> anyhow::Result<Self> {
        let dark = Self::lit(&["until", "dark"], limit).await?;
        begun(&dark.ledger).await?;
        dark.wire.cut(true).await?;
        Ok(dark)
    }

    /// The step writes that, and the cable is still in.
    async fn lit(args: &[&str], limit: &str) -> anyhow::Result<Self> {
        let (nats, wire) = Wire::lay().await?;
        let (server, agent) = (json!({ "url": nats.url() }), json!({ "url": wire.url(&nats) }));
        let (plan, mut edge, ledger) = plan_over(&server, &agent, args, limit).await?;
        edge.prefix = wire.prefix();
        edge.start()?;
        let world = plan.start().await?;
        // The step's time is for the step.
        agent_where(&world, |agent| agent["here"] == true).await?;
        world.send(&[Alert::service_down()]).await?;
        Ok(Self { world, ledger, edge, wire, _nats: nats })
    }

    /// The cable is put back, and what was done once is known.
    async fn is_told(&self, line: &str, tally: &mut Tally) -> anyhow::Result<()> {
        self.wire.cut(false).await?;
        tally.faults += 1;
        self.world.run_in("succeeded", SOON * 4).await?;
        tally.ledger(&self.ledger.lines(), &[line])
    }
}

#[tokio::test]
async fn an_order_that_ends_while_its_agent_is_cut_off_is_told_afterwards() -> anyhow::Result<()> {
    harness::rounds("agent cut off before or after its order came", 1, async |tally| {
        let dark = Dark::lit(&["until", "dark"], "60s").await?;
        moment(tally, &dark.ledger).await?;
        dark.wire.cut(true).await?;
        dark.ledger.let_go("dark")?;
        if !dark.ledger.lines().is_empty() {
            // It ends while nobody can be told.
            reported(&dark.edge).await?;
        }
        // Longer than a report needs to arrive where there is a way.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let runs = dark.world.runs().await?;
        ensure!(runs.iter().all(|run| run["state"] == "running"), "nobody knows yet: {runs:?}");
        dark.is_told("until dark", tally).await
    })
    .await
}

#[tokio::test]
async fn an_agent_that_stays_cut_off_leaves_a_question_and_its_late_answer_counts() -> anyhow::Result<()> {
    harness::rounds("agent cut off until nobody knows", 1, async |tally| {
        let dark = Dark::begin("15s").await?;
        dark.ledger.let_go("dark")?;
        let run = dark.world.run_in("unknown", SOON * 2).await?;
        tally.unknown += 1;
        ensure!(run["run"]["reason"].as_str().is_some_and(|reason| reason.contains("the agent edge")), "{run}");
        assert_eq!(dark.ledger.lines(), ["until dark"]);
        // Cut off for longer than a connection lives: the agent makes a new one, and tells what it had done.
        tokio::time::sleep(Duration::from_secs(5)).await;
        dark.is_told("until dark", tally).await
    })
    .await
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_is_cut_off_tells_afterwards_what_it_had_done() -> anyhow::Result<()> {
    harness::rounds("agent cut off, then killed", 1, async |tally| {
        let mut dark = Dark::begin("90s").await?;
        dark.edge.kill9()?;
        tally.faults += 1;
        // Alone in the dark: it takes its command up without anybody to ask.
        dark.edge.start()?;
        dark.ledger.let_go("dark")?;
        reported(&dark.edge).await?;
        dark.is_told("until dark", tally).await
    })
    .await
}

#[tokio::test]
async fn a_bus_that_loses_everything_in_the_middle_of_an_order_changes_nothing() -> anyhow::Result<()> {
    harness::rounds("NATS killed under an order, its store deleted", 1, async |tally| {
        let mut nats = Nats::start().await?;
        let link = json!({ "url": nats.url() });
        let (plan, mut edge, ledger) = plan_over(&link, &link, &["sleep", "3"], "90s").await?;
        edge.start()?;
        let world = plan.start().await?;
        world.send(&[Alert::service_down()]).await?;
        moment(tally, &ledger).await?;
        nats.kill9()?;
        nats.delete_store()?;
        tally.faults += 1;
        if !ledger.lines().is_empty() {
            // It ends while there is no bus, and the stream that both sides used is gone.
            reported(&edge).await?;
        }
        nats.restart().await?;
        tally.unknown += settled(&world, &ledger).await?;
        tally.ledger(&ledger.lines(), &["sleep 3"])
    })
    .await
}
