//! Agents: the same actions on other hosts and in closed networks. The server signs orders, the agent obeys those that its own lists allow and signs
//! reports; both travel over JetStream. The agent's disk decides that nothing is carried out twice.

mod desk;
mod dispatch;
mod host;
mod ledger;
mod obey;
mod presence;
mod remote;
mod reporting;
mod roll;
mod screen;
pub(crate) mod settings;
pub(crate) mod token;

use async_nats::jetstream::{self, Context, stream};
use std::time::Duration;

use anyhow::Context as _;

pub(crate) use desk::Desk;
pub(crate) use dispatch::Dispatch;
pub(crate) use obey::Agent;
pub(crate) use remote::Remote;
pub(crate) use roll::Roll;
pub(crate) use screen::Screen;

/// Orders and reports that nobody took are dropped after this time; orders expire long before.
const KEPT: Duration = Duration::from_hours(24);
/// How long the stream knows an order or a report by its id.
const WINDOW: Duration = Duration::from_mins(10);

/// Names on the bus.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The stream of orders and reports: `WATCHKEEPER_AGENTS` for the prefix `watchkeeper`.
    fn stream(&self) -> String {
        format!("{}_AGENTS", self.prefix.to_uppercase().replace('.', "_"))
    }

    fn order(&self, agent: &str) -> String {
        format!("{}.agent.{agent}.order", self.prefix)
    }

    fn report(&self, agent: &str) -> String {
        format!("{}.agent.{agent}.report", self.prefix)
    }

    /// For who hears it now. On the stream a cancel has the subject of the orders, so that it comes behind them.
    fn cancel(&self, agent: &str) -> String {
        format!("{}.agent.{agent}.cancel", self.prefix)
    }

    /// Not on the stream: an agent announces itself.
    fn hello(&self, agent: &str) -> String {
        format!("{}.agent.{agent}.hello", self.prefix)
    }

    /// Not on the stream: who does not hear it now sees the result.
    fn output(&self, agent: &str) -> String {
        format!("{}.agent.{agent}.output", self.prefix)
    }

    /// Not on the stream: asks an agent to announce itself now, and to begin again with what its commands print.
    fn hail(&self, agent: &str) -> String {
        format!("{}.agent.{agent}.hail", self.prefix)
    }
}

/// `PREFIX.agent.NAME.what`: the name.
fn agent_in(subject: &str) -> Option<&str> {
    subject.rsplit('.').nth(1)
}

/// The stream of orders and reports, made if it is not there.
async fn find_stream(context: &Context, names: &Names) -> anyhow::Result<stream::Stream> {
    let config = stream::Config {
        name: names.stream(),
        description: Some("Orders for Watchkeeper's agents, and their reports".to_owned()),
        subjects: vec![names.order("*"), names.report("*")],
        retention: stream::RetentionPolicy::WorkQueue,
        max_age: KEPT,
        duplicate_window: WINDOW,
        ..stream::Config::default()
    };
    context.get_or_create_stream(config).await.with_context(|| format!("the stream {} is not there and cannot be made", names.stream()))
}

/// Puts a message on the stream and waits until it is kept.
async fn put(context: &Context, subject: String, id: String, token: String) -> anyhow::Result<()> {
    let message = jetstream::message::PublishMessage::build().payload(token.into()).message_id(id);
    context.send_publish(subject, message).await?.await.context("the stream did not take it")?;
    Ok(())
}
