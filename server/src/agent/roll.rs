//! The roll of agents: what each announced, when it was last heard of, and whether an order may be sent to it. Every server keeps its own, in memory:
//! agents announce themselves every few seconds, and when they are hailed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_nats::{Client, Subscriber};
use domain::announcement::{AgentSeen, Agents, Announcement};
use domain::order::SERVER;
use domain::rules::RuleSet;
use domain::time::{Clock, SystemClock};
use futures::StreamExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Names;
use super::token::Checker;
use crate::bus::Link;
use crate::config::AgentsConfig;

/// An agent that was not heard of for this long is away.
const SILENT: Duration = Duration::from_secs(35);
/// Waits between two tries to listen.
const RECONNECT: Duration = Duration::from_secs(2);
/// How often it is looked who fell silent.
const LOOK: Duration = Duration::from_secs(5);

/// What is known of the agents.
pub(crate) struct Roll {
    names: Names,
    agents: BTreeMap<String, Checker>,
    rules: Arc<ArcSwap<RuleSet>>,
    heard: Mutex<BTreeMap<String, Heard>>,
}

#[derive(Clone)]
struct Heard {
    since: Instant,
    at: Timestamp,
    announced: Announcement,
}

/// Whether an order may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It announced what the order takes.
    Yes,
    /// It would refuse it.
    No(String),
    /// It did not announce itself lately.
    Unheard(String),
}

impl Roll {
    /// # Errors
    /// If a key cannot be read.
    pub(crate) fn new(config: &AgentsConfig, rules: Arc<ArcSwap<RuleSet>>) -> anyhow::Result<Self> {
        let read = |(name, file): (&String, &std::path::PathBuf)| Ok((name.clone(), Checker::read(file)?));
        let agents = config.known.iter().map(read).collect::<anyhow::Result<_>>()?;
        Ok(Self { names: Names::new(&config.prefix), agents, rules, heard: Mutex::default() })
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// The key of an agent.
    pub(super) fn key(&self, agent: &str) -> Option<&Checker> {
        self.agents.get(agent)
    }

    /// Whether an order for `uses` on `target` may be sent to an agent.
    pub(super) fn fit(&self, agent: &str, uses: &str, target: &str) -> Fit {
        match self.lock().get(agent) {
            None => Fit::Unheard("it was not heard of since this server started".to_owned()),
            Some(heard) if heard.since.elapsed() > SILENT => {
                Fit::Unheard(format!("it was not heard of for {} s", heard.since.elapsed().as_secs()))
            }
            Some(heard) => heard.announced.lacks(uses, target).map_or(Fit::Yes, Fit::No),
        }
    }

    /// Listens until told to stop; what is wrong with agents is told to `link`'s state.
    pub(crate) async fn listen(self: Arc<Self>, link: Link, stop: CancellationToken) {
        let state = link.state();
        while !stop.is_cancelled() {
            let heard = async {
                let client = link.client().await?;
                let mut replaced = std::pin::pin!(link.replaced());
                let mut signs = self.subscribe(&client).await?;
                let mut every = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
                loop {
                    tokio::select! {
                        sign = signs.next() => match sign {
                            Some(sign) => self.hear(&sign),
                            None => anyhow::bail!("the server ended the subscription"),
                        },
                        () = &mut replaced => anyhow::bail!("the connection was made anew"),
                        _ = every.tick() => state.set("agents", self.problem()),
                    }
                }
            };
            let ended: anyhow::Result<()> = tokio::select! {
                ended = heard => ended,
                () = stop.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::debug!(error = %format!("{error:#}"), "agents cannot be heard");
            }
            tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = stop.cancelled() => return }
        }
    }

    /// Listens for as long as all agents need to answer, and at most for `patience`.
    pub(crate) async fn look(&self, client: &Client, patience: Duration) -> anyhow::Result<Vec<AgentSeen>> {
        let mut signs = self.subscribe(client).await?;
        let all = async {
            while self.lock().len() < self.agents.len()
                && let Some(sign) = signs.next().await
            {
                self.hear(&sign);
            }
        };
        // Who did not answer in time is not there.
        let _ = tokio::time::timeout(patience, all).await;
        Ok(self.seen())
    }

    async fn subscribe(&self, client: &Client) -> anyhow::Result<Subscriber> {
        let signs = client.subscribe(self.names.hello("*")).await?;
        for agent in self.agents.keys() {
            client.publish(self.names.hail(agent), bytes::Bytes::new()).await?;
        }
        client.flush().await?;
        Ok(signs)
    }

    fn hear(&self, sign: &async_nats::Message) {
        let Some(agent) = super::agent_in(&sign.subject) else { return };
        let announced = self.agents.get(agent).and_then(|key| key.check::<Announcement>(&sign.payload));
        let Some(announced) = announced.filter(|announced| announced.iss == agent && announced.aud == SERVER) else {
            tracing::debug!(agent, "an announcement is not signed by its agent: it counts for nothing");
            return;
        };
        let mut all = self.lock();
        let last = all.get(agent);
        // An older one was recorded and sent again by somebody else; after a silence its clock may have been set back.
        if last.is_some_and(|last| last.announced.iat > announced.iat && last.since.elapsed() <= SILENT) {
            return;
        }
        let last = last.map(|last| &last.announced);
        if last.is_none_or(|last| Announcement { iat: 0, ..last.clone() } != Announcement { iat: 0, ..announced.clone() }) {
            let (version, host, targets) = (&announced.version, &announced.host, announced.targets.len());
            tracing::info!(agent, version, host, targets, protocol = announced.protocol, "an agent announced itself");
        }
        all.insert(agent.to_owned(), Heard { since: Instant::now(), at: SystemClock.now(), announced });
    }

    /// What is wrong with agents, in one line.
    fn problem(&self) -> Option<String> {
        let seen = self.seen();
        let silent: Vec<&str> = seen.iter().filter(|agent| !agent.here).map(|agent| agent.name.as_str()).collect();
        metrics::gauge!("watchkeeper_agents_silent").set(silent.len() as f64);
        let away = (!silent.is_empty()).then(|| format!("{} not heard of", silent.join(", ")));
        let told = seen.iter().filter(|agent| agent.here && !agent.warnings.is_empty());
        let told = told.map(|agent| format!("{}: {}", agent.name, agent.warnings.join("; ")));
        let all: Vec<String> = away.into_iter().chain(told).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agents for Roll {
    fn seen(&self) -> Vec<AgentSeen> {
        let rules = self.rules.load();
        let given = |agent: &str| -> BTreeSet<String> {
            let of = rules.targets.values().filter(|target| target.text("agent") == Some(agent));
            of.map(|target| target.name.clone()).collect()
        };
        let heard = self.lock();
        let one = |name: &String| {
            let heard = heard.get(name);
            AgentSeen {
                name: name.clone(),
                here: heard.is_some_and(|heard| heard.since.elapsed() <= SILENT),
                heard_at: heard.map(|heard| heard.at),
                announced: heard.map(|heard| heard.announced.clone()),
                warnings: heard.map_or_else(Vec::new, |heard| heard.announced.warnings(env!("CARGO_PKG_VERSION"), &given(name), heard.at)),
            }
        };
        self.agents.keys().map(one).collect()
    }
}
