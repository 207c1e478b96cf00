//! `service.status`: asks who runs a service how it is, and fails unless it is as expected.

use std::sync::Arc;

use async_trait::async_trait;
use domain::action::{Action, ActionCx, ActionError, ActionOutput, Effect, Risk};
use domain::plan::Target;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::service::{KINDS, Service, State};
use crate::{Tools, params};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// What it must be; `running` by default, so that it can verify a remedy. `any` only looks.
    #[serde(default)]
    expect: Expect,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Expect {
    #[default]
    Running,
    Stopped,
    Any,
}

struct ServiceStatus(Arc<Tools>);

pub(crate) fn action(tools: Arc<Tools>) -> Box<dyn Action> {
    Box::new(ServiceStatus(tools))
}

#[async_trait]
impl Action for ServiceStatus {
    fn name(&self) -> &'static str {
        "service.status"
    }

    fn about(&self) -> &'static str {
        "Asks who runs a service how it is; fails unless it runs, or is as expected."
    }

    fn schema(&self) -> Schema {
        schema_for!(With)
    }

    fn risk(&self) -> Risk {
        Risk::Read
    }

    fn effect(&self) -> Effect {
        Effect::ReadOnly
    }

    fn target_kinds(&self) -> &'static [&'static str] {
        KINDS
    }

    fn check(&self, with: &Value, target: Option<&Target>) -> Result<(), String> {
        params::read::<With>(with)?;
        Service::of(params::needed(target)?).map(drop)
    }

    async fn run(&self, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        let with: With = params::read(with).map_err(ActionError::Refused)?;
        let service = params::needed(cx.target.as_ref()).and_then(Service::of).map_err(ActionError::Refused)?;
        let status = service.status(&self.0, self.0.time_left(cx)).await.map_err(only_looked)?;
        let expected = match with.expect {
            Expect::Running => status.state == State::Running,
            Expect::Stopped => status.state == State::Stopped,
            Expect::Any => true,
        };
        let summary = self.0.redact(&status.summary);
        match expected {
            true => Ok(ActionOutput {
                summary,
                data: json!({ "state": status.state, "pid": status.pid, "detail": status.detail }),
                text: String::new(),
            }),
            false => Err(ActionError::Failed(summary)),
        }
    }
}

/// Where nothing was changed, not knowing is a plain failure.
pub(crate) fn only_looked(error: ActionError) -> ActionError {
    match error {
        ActionError::Unknown(problem) => ActionError::Failed(problem),
        other => other,
    }
}
