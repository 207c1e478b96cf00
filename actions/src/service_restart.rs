//! `service.restart`: restarts a service of the inventory, whatever runs it.

use std::sync::Arc;

use async_trait::async_trait;
use domain::action::{Action, ActionCx, ActionError, ActionOutput, Effect, Risk};
use domain::plan::Target;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use serde_json::Value;

use crate::service::{KINDS, Service};
use crate::{Tools, params};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {}

struct ServiceRestart(Arc<Tools>);

pub(crate) fn action(tools: Arc<Tools>) -> Box<dyn Action> {
    Box::new(ServiceRestart(tools))
}

#[async_trait]
impl Action for ServiceRestart {
    fn name(&self) -> &'static str {
        "service.restart"
    }

    fn about(&self) -> &'static str {
        "Restarts a service: a supervised process, a systemd unit, a Compose service."
    }

    fn schema(&self) -> Schema {
        schema_for!(With)
    }

    fn risk(&self) -> Risk {
        Risk::Disruptive
    }

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn resumable(&self, target: Option<&Target>) -> bool {
        // The supervisor is part of the server.
        target.is_some_and(|target| target.kind != "process")
    }

    fn target_kinds(&self) -> &'static [&'static str] {
        KINDS
    }

    fn check(&self, with: &Value, target: Option<&Target>) -> Result<(), String> {
        params::read::<With>(with)?;
        Service::of(params::needed(target)?).map(drop)
    }

    async fn run(&self, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        self.check(with, cx.target.as_ref()).map_err(ActionError::Refused)?;
        let service = params::needed(cx.target.as_ref()).and_then(Service::of).map_err(ActionError::Refused)?;
        let (summary, data) = service.restart(&self.0, cx).await?;
        Ok(ActionOutput { summary, data, text: String::new() })
    }
}
