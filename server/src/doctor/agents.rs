//! The agents: who answers, with which version and targets, and what is wrong with it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Findings;
use crate::agent::Roll;
use crate::bus::connect;
use crate::config::Config;

/// How long they get to answer.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn look(config: &Config) -> Findings {
    let mut findings = Findings::of("agents");
    let (Some(agents), Some(nats)) = (&config.agents, &config.nats) else { return findings };
    let looked = async {
        let roll = Roll::new(agents, Arc::new(ArcSwap::new(Arc::clone(&config.rules))))?;
        roll.look(&connect(&nats.link).await?, PATIENCE).await
    };
    let seen = match looked.await {
        Ok(seen) => seen,
        Err(error) => {
            findings.fail(format!("agents cannot be asked: {error:#}"), "orders wait until NATS is there, and expire with their steps");
            return findings;
        }
    };
    for agent in seen {
        let Some(announced) = agent.announced else {
            let advice = "start it: `watchkeeper agent --config agent.yaml` on its host; its log says what keeps it from NATS";
            findings.warn(format!("agent {} does not answer", agent.name), advice);
            continue;
        };
        let targets = announced.targets.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        findings.ok(format!("agent {}: version {} on {}, targets {targets}", agent.name, announced.version, announced.host));
        for warning in agent.warnings {
            findings.warn(format!("agent {}: {warning}", agent.name), "docs/agents.md says how agents and servers are kept alike");
        }
    }
    findings
}
