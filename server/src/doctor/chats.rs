//! Slack and Discord: are the tokens good, and for the workspace that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bot::discord::Discord;
use bot::slack::Slack;
use domain::act::ActOutcome;
use domain::chat::Chat;
use domain::event::Delivery;
use domain::id::IncidentId;
use domain::inbox::{Accepted, Choice, Inbox, InboxError, Lookup};
use domain::time::{Clock, SystemClock};

use super::Findings;
use crate::config::Config;

/// A platform that takes longer is out of reach.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn look(config: &Config) -> Findings {
    let mut findings = Findings::of("chat");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut chats: Vec<Result<Arc<dyn Chat>, String>> = Vec::new();
    if let Some(slack) = config.slack.clone() {
        let made = Slack::new(slack.into(), Arc::new(Nobody), Arc::new(Nobody), Arc::clone(&clock));
        chats.push(made.map(|chat| chat as Arc<dyn Chat>).map_err(|error| error.to_string()));
    }
    if let Some(discord) = config.discord.clone() {
        let made = Discord::new(discord.into(), Arc::new(Nobody), Arc::new(Nobody), Arc::clone(&clock));
        chats.push(made.map(|chat| chat as Arc<dyn Chat>).map_err(|error| error.to_string()));
    }
    if chats.is_empty() {
        findings.note("no chat platform is configured", "people use the console");
    }
    for chat in chats {
        match chat {
            Err(error) => findings.fail(error, "mend the configuration"),
            Ok(chat) => {
                let name = chat.platform();
                match tokio::time::timeout(PATIENCE, chat.probe()).await {
                    Ok(Ok(detail)) => findings.ok(format!("{name}: {detail}")),
                    Ok(Err(error)) => findings.fail(
                        format!("{name}: {error}"),
                        "look at the token and at the workspace or server that it belongs to; until then cards are on the console alone",
                    ),
                    Err(_) => findings.fail(format!("{name}: no answer within {PATIENCE:?}"), "let this machine reach it, by 443"),
                }
            }
        }
    }
    findings
}

/// Nothing comes in while we only look.
struct Nobody;

#[async_trait]
impl Inbox for Nobody {
    async fn accept(&self, _delivery: Delivery) -> Result<Accepted, InboxError> {
        Err(InboxError::Unavailable("nothing is taken in".to_owned()))
    }

    async fn outcome(&self, _seq: i64, _wait: Duration) -> Result<Option<ActOutcome>, InboxError> {
        Ok(None)
    }
}

#[async_trait]
impl Lookup for Nobody {
    async fn incidents(&self, _prefix: &str, _limit: usize) -> Result<Vec<Choice>, InboxError> {
        Ok(Vec::new())
    }

    async fn incident_id(&self, _number: i64) -> Result<Option<IncidentId>, InboxError> {
        Ok(None)
    }

    fn runbooks(&self, _prefix: &str, _limit: usize) -> Vec<Choice> {
        Vec::new()
    }
}
