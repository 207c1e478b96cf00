//! What agents' commands print, from NATS to whoever watches here. Every server that people may ask listens for itself. Best effort: nothing rests on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::Client;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::order::{Output, SERVER};
use domain::printed::{Printed, Taken};
use domain::redact::Redactor;
use futures::StreamExt;
use store::{Printer, Store, Watched};
use tokio_util::sync::CancellationToken;

use super::dispatch::agent_of;
use super::{Roll, agent_in};
use crate::bus::Link;

/// Waits between two tries to listen.
const RECONNECT: Duration = Duration::from_secs(2);
/// An agent is asked to begin again at most this often.
const HAIL: Duration = Duration::from_secs(2);
/// Executions whose owner is remembered.
const MOST: usize = 1000;

/// Shows what agents print.
pub(crate) struct Screen {
    roll: Arc<Roll>,
    store: Store,
    redactor: Arc<Redactor>,
    /// Whose an execution is; nothing if it is not that agent's.
    owners: HashMap<(String, String), Option<Watched>>,
    hailed: HashMap<String, Instant>,
}

impl Screen {
    pub(crate) fn new(roll: Arc<Roll>, store: Store, redactor: Arc<Redactor>) -> Self {
        Self { roll, store, redactor, owners: HashMap::new(), hailed: HashMap::new() }
    }

    /// Listens until told to stop.
    pub(crate) async fn listen(mut self, link: Link, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                ended = self.take(&link) => ended,
                () = stop.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::debug!(error = %format!("{error:#}"), "what agents print cannot be heard");
            }
            tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = stop.cancelled() => return }
        }
    }

    async fn take(&mut self, link: &Link) -> anyhow::Result<()> {
        let client = link.client().await?;
        let mut replaced = std::pin::pin!(link.replaced());
        let mut pieces = client.subscribe(self.roll.names().output("*")).await?;
        loop {
            let message = tokio::select! {
                message = pieces.next() => message.context("the server ended the subscription")?,
                () = &mut replaced => anyhow::bail!("the connection was made anew"),
            };
            let Some(agent) = agent_in(&message.subject) else { continue };
            if self.show(agent, &message.payload).await == Some(Taken::Gap) {
                self.hail(&client, agent).await?;
            }
        }
    }

    async fn show(&mut self, agent: &str, token: &[u8]) -> Option<Taken> {
        let output = self.roll.key(agent)?.check::<Output>(token).filter(|output| output.iss == agent && output.aud == SERVER)?;
        let watched = self.owner(agent, &output.jti).await?;
        let bytes = STANDARD.decode(&output.text).ok()?;
        let piece = Printed { source: output.source, offset: output.offset, oldest: output.oldest, bytes };
        Some(self.store.show_printed(watched, Printer::Agent, &piece, &self.redactor))
    }

    /// The attempt that an execution of this agent is.
    async fn owner(&mut self, agent: &str, execution: &str) -> Option<Watched> {
        let key = (agent.to_owned(), execution.to_owned());
        if let Some(known) = self.owners.get(&key) {
            return *known;
        }
        let watched = attempt_of(execution)?;
        let run = self.store.read().await.ok()?.run(watched.run).await.ok()?;
        let step = run.as_ref().and_then(|run| run.plan.steps.get(usize::try_from(watched.index).ok()?));
        let owner = step.filter(|step| agent_of(step.target.as_ref()) == Some(agent)).map(|_| watched);
        if self.owners.len() >= MOST {
            self.owners.clear();
        }
        self.owners.insert(key, owner);
        owner
    }

    async fn hail(&mut self, client: &Client, agent: &str) -> anyhow::Result<()> {
        if self.hailed.get(agent).is_none_or(|at| at.elapsed() > HAIL) {
            self.hailed.insert(agent.to_owned(), Instant::now());
            client.publish(self.roll.names().hail(agent), bytes::Bytes::new()).await?;
        }
        Ok(())
    }
}

/// `RUN-INDEX-ATTEMPT`, with something more for looks that are repeated.
fn attempt_of(execution: &str) -> Option<Watched> {
    // A run's id has hyphens of its own.
    let (run, rest) = execution.split_at_checked(36)?;
    let mut numbers = rest.strip_prefix('-')?.split('-');
    Some(Watched { run: run.parse().ok()?, index: numbers.next()?.parse().ok()?, attempt: numbers.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_says_which_attempt_it_is() {
        let run = "019c0000-0000-7000-8000-000000000001";
        let watched = Watched { run: run.parse().unwrap(), index: 2, attempt: 1 };
        assert_eq!(attempt_of(&format!("{run}-2-1")), Some(watched));
        assert_eq!(attempt_of(&format!("{run}-2-1-0123456789abcdef")), Some(watched));
        for wrong in ["", "x", run, "019c0000-0000-7000-8000-00000000000\u{e9}-1-1", "test-1"] {
            assert_eq!(attempt_of(wrong), None, "{wrong}");
        }
    }
}
