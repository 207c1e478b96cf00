//! `wait`: lets time pass between two steps.

use std::sync::Arc;

use async_trait::async_trait;
use domain::action::{Action, ActionCx, ActionError, ActionOutput, Effect, Risk};
use domain::duration::Dur;
use domain::plan::Target;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use serde_json::Value;

use crate::{Tools, params};

/// The longest wait: whoever needs more wants a `verify` with `within`, or a schedule.
const MAX: Dur = Dur::from_mins(10);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// How long, at most 10m. The step's `timeout` must be longer.
    #[serde(rename = "for")]
    span: Dur,
}

struct Wait;

pub(crate) fn action(_: Arc<Tools>) -> Box<dyn Action> {
    Box::new(Wait)
}

#[async_trait]
impl Action for Wait {
    fn name(&self) -> &'static str {
        "wait"
    }

    fn about(&self) -> &'static str {
        "Lets time pass."
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

    fn check(&self, with: &Value, _: Option<&Target>) -> Result<(), String> {
        span(with).map(drop)
    }

    async fn run(&self, _: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        let span = span(with).map_err(ActionError::Refused)?;
        tokio::time::sleep(span.as_std()).await;
        Ok(ActionOutput { summary: format!("waited {}", span.human()), ..ActionOutput::default() })
    }
}

fn span(with: &Value) -> Result<Dur, String> {
    let With { span } = params::read(with)?;
    if span > MAX { Err(format!("`for`: {span} is longer than {MAX}")) } else { Ok(span) }
}
