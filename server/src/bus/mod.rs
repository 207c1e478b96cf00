//! NATS: messages in, lifecycle events out, requests for runs, and deliveries kept on a stream. The database stays the truth.

mod commands;
mod connect;
mod delivered;
mod gaps;
mod inbound;
mod outbound;
mod subjects;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use async_nats::Client;
use async_nats::connection::State;
use domain::event::{Delivery, NewEvent, Sighting, Status};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::config::NatsLink;
use connect::Refused;

pub(crate) use commands::{Call, Commands};
pub(crate) use connect::connect;
pub(crate) use delivered::{Intake, Taker};
pub(crate) use inbound::Inbound;
pub(crate) use outbound::{Outbound, check_subjects};

/// The oldest server whose answers async-nats reads, and the first whose consumers take several filters.
const OLDEST: (u64, u64) = (2, 10);
/// Waits between two tries to reach the server or its stream.
const RECONNECT: Duration = Duration::from_secs(2);

/// What is wrong with the bus; `None` is nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct BusState(Arc<Mutex<BTreeMap<String, String>>>);

impl BusState {
    /// What is wrong now.
    pub(crate) fn get(&self) -> Option<String> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = problems.iter().map(|(part, problem)| format!("{part}: {problem}")).collect::<Vec<_>>().join("; ");
        (!text.is_empty()).then_some(text)
    }

    /// Says what is wrong with a part of it, or that it is well.
    pub(crate) fn set(&self, part: &str, problem: Option<String>) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(part.to_owned(), problem),
            None => problems.remove(part),
        };
    }
}

/// One connection for all parts, made when it is first needed. A server that is away is no failure: whoever needs it tries again.
#[derive(Clone)]
pub(crate) struct Link(Arc<Shared>);

struct Shared {
    settings: NatsLink,
    client: tokio::sync::Mutex<Option<Client>>,
    refused: Refused,
    /// Counts connections.
    made: watch::Sender<u64>,
    state: BusState,
}

impl Link {
    pub(crate) fn new(settings: NatsLink) -> Self {
        Self(Arc::new(Shared {
            settings,
            client: tokio::sync::Mutex::new(None),
            refused: Refused::default(),
            made: watch::channel(0).0,
            state: BusState::default(),
        }))
    }

    /// What is wrong with it, for `/health`.
    pub(crate) fn state(&self) -> BusState {
        self.0.state.clone()
    }

    /// The connection, if the server is there and not too old.
    ///
    /// # Errors
    /// Says what to do.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let mut held = self.0.client.lock().await;
        if let Some(client) = held.as_ref() {
            // What is sent to a connection that is down would go out much later, behind newer things.
            if client.connection_state() != State::Connected {
                let told = self.0.refused.get();
                if told.is_some() {
                    // It goes on trying with what it read once: the next connection reads the files again.
                    *held = None;
                }
                let why = told.map(|told| format!(": {told}")).unwrap_or_default();
                bail!("not connected to {}{why}", self.0.settings.urls.join(", "));
            }
            check_version(&client.server_info().version)?;
            return Ok(client.clone());
        }
        let client = connect::connect_telling(&self.0.settings, self.0.refused.clone()).await?;
        check_version(&client.server_info().version)?;
        self.0.made.send_modify(|made| *made += 1);
        Ok(held.insert(client).clone())
    }

    /// Returns when another connection takes the place of the one in use: subscriptions of the old one hear nothing any more.
    pub(crate) fn replaced(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut made = self.0.made.subscribe();
        async move {
            // Without the link there is nothing to hear either.
            let _ = made.changed().await;
        }
    }
}

/// Whether a server is new enough.
///
/// # Errors
/// If not.
pub(crate) fn check_version(version: &str) -> anyhow::Result<()> {
    let mut parts = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < OLDEST {
        bail!("NATS server {version} is too old: it takes {}.{} or later", OLDEST.0, OLDEST.1);
    }
    Ok(())
}

/// An incident about ourselves, by the front door.
pub(crate) fn about_ourselves(alertname: &str, fingerprint: String, source: &str, summary: String, now: Timestamp) -> Delivery {
    let labels = [("alertname", alertname), ("severity", "high"), ("source", source)];
    let sighting = Sighting {
        fingerprint,
        status: Status::Firing,
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        annotations: [("summary".to_owned(), summary)].into(),
        starts_at: now,
        ends_at: None,
        generator_url: None,
        external_url: None,
        cut: 0,
    };
    let events = vec![NewEvent::sighting("watchkeeper", sighting)];
    Delivery { source: "watchkeeper".to_owned(), events, raw: bytes::Bytes::new(), received_at: now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_with_a_clear_word() {
        assert!(check_version("2.10.0").is_ok());
        assert!(check_version("2.15.1").is_ok());
        let error = check_version("2.9.10").unwrap_err().to_string();
        assert_eq!(error, "NATS server 2.9.10 is too old: it takes 2.10 or later");
    }
}
