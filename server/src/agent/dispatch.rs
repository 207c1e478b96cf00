//! The actions as the handlers see them: a step on a target with an `agent` becomes an order, every other one is carried out here.

use std::sync::Arc;

use async_trait::async_trait;
use domain::action::{Action, ActionCatalogue, ActionCx, ActionError, ActionOutput, Effect, Risk};
use domain::plan::Target;
use serde_json::Value;

use super::Remote;

/// The library, with a way out to agents.
pub(crate) struct Dispatch {
    inner: Arc<dyn ActionCatalogue>,
    actions: Vec<Routed>,
}

impl Dispatch {
    /// Without `remote`, targets of agents are refused.
    pub(crate) fn new(inner: Arc<dyn ActionCatalogue>, remote: Option<Arc<Remote>>) -> Self {
        let routed = |action: &dyn Action| Routed {
            name: action.name(),
            about: action.about(),
            kinds: action.target_kinds(),
            inner: Arc::clone(&inner),
            remote: remote.clone(),
        };
        let actions = inner.all().into_iter().map(routed).collect();
        Self { inner, actions }
    }
}

impl ActionCatalogue for Dispatch {
    fn get(&self, name: &str) -> Option<&dyn Action> {
        self.actions.iter().find(|action| action.name == name).map(|action| action as &dyn Action)
    }

    fn all(&self) -> Vec<&dyn Action> {
        self.actions.iter().map(|action| action as &dyn Action).collect()
    }

    fn kept(&self) -> Vec<String> {
        self.inner.kept()
    }

    fn forget(&self, execution: &str) {
        self.inner.forget(execution);
    }

    fn give_up(&self, execution: &str) {
        self.inner.give_up(execution);
    }
}

struct Routed {
    name: &'static str,
    about: &'static str,
    kinds: &'static [&'static str],
    inner: Arc<dyn ActionCatalogue>,
    remote: Option<Arc<Remote>>,
}

impl Routed {
    fn here(&self) -> Option<&dyn Action> {
        self.inner.get(self.name)
    }
}

#[async_trait]
impl Action for Routed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn schema(&self) -> schemars::Schema {
        self.here().map(Action::schema).unwrap_or_default()
    }

    fn risk(&self) -> Risk {
        self.here().map_or(Risk::Destructive, Action::risk)
    }

    fn effect(&self) -> Effect {
        self.here().map_or(Effect::AtMostOnce, Action::effect)
    }

    fn resumable(&self, target: Option<&Target>) -> bool {
        agent_of(target).is_some() || self.here().is_some_and(|action| action.resumable(target))
    }

    fn target_kinds(&self) -> &'static [&'static str] {
        self.kinds
    }

    fn check(&self, with: &Value, target: Option<&Target>) -> Result<(), String> {
        self.here().ok_or("there is no such action")?.check(with, target)
    }

    async fn run(&self, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        match (agent_of(cx.target.as_ref()), &self.remote) {
            (Some(agent), Some(remote)) => remote.run(agent, self.name, cx, with).await,
            (Some(agent), None) => Err(ActionError::Refused(format!(
                "its target belongs to the agent {agent}, and this server has no key to sign orders: see `agents` in the configuration"
            ))),
            (None, _) => match self.here() {
                Some(action) => action.run(cx, with).await,
                None => Err(ActionError::Refused(format!("there is no action {} in this version", self.name))),
            },
        }
    }
}

/// The agent whose target this is.
pub(crate) fn agent_of(target: Option<&Target>) -> Option<&str> {
    target?.text("agent")
}
