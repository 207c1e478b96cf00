//! Two actions, one that changes something and one that looks whether it helped; and a library that is broken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::action::{Action, ActionCatalogue, ActionCx, ActionError, ActionOutput, Effect, Risk};
use domain::plan::Target;
use serde_json::Value;

use super::Script;

pub(super) struct Actions(pub(super) Vec<Box<dyn Action>>);

impl ActionCatalogue for Actions {
    fn get(&self, name: &str) -> Option<&dyn Action> {
        self.0.iter().map(AsRef::as_ref).find(|action| action.name() == name)
    }

    fn all(&self) -> Vec<&dyn Action> {
        self.0.iter().map(AsRef::as_ref).collect()
    }
}

/// A library that is broken: whoever looks something up in it panics. It counts how often.
#[derive(Default)]
pub(in crate::tests) struct Broken(AtomicUsize);

impl Broken {
    pub(in crate::tests) fn looked(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl ActionCatalogue for Broken {
    fn get(&self, name: &str) -> Option<&dyn Action> {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("looking up {name}")
    }

    fn all(&self) -> Vec<&dyn Action> {
        Vec::new()
    }
}

/// Changes something, at most once.
pub(super) struct Change(pub(super) Arc<Mutex<Script>>);

#[async_trait]
impl Action for Change {
    fn name(&self) -> &'static str {
        "test.change"
    }

    fn about(&self) -> &'static str {
        "Counts."
    }

    fn schema(&self) -> schemars::Schema {
        schemars::json_schema!({ "type": "object" })
    }

    fn risk(&self) -> Risk {
        Risk::Disruptive
    }

    fn target_kinds(&self) -> &'static [&'static str] {
        &["process"]
    }

    fn check(&self, _with: &Value, _target: Option<&Target>) -> Result<(), String> {
        Ok(())
    }

    async fn run(&self, _cx: &ActionCx, _with: &Value) -> Result<ActionOutput, ActionError> {
        let gate = {
            let mut script = self.0.lock().unwrap();
            script.changes += 1;
            script.gate.clone()
        };
        if let Some(gate) = gate {
            // Nobody may pass: it ends when it is closed.
            drop(gate.acquire().await);
        }
        match self.0.lock().unwrap().change_fails.clone() {
            Some(error) => Err(error),
            None => Ok(ActionOutput { summary: "changed".to_owned(), ..ActionOutput::default() }),
        }
    }
}

/// Looks whether it helped.
pub(super) struct Look(pub(super) Arc<Mutex<Script>>);

#[async_trait]
impl Action for Look {
    fn name(&self) -> &'static str {
        "test.look"
    }

    fn about(&self) -> &'static str {
        "Looks."
    }

    fn schema(&self) -> schemars::Schema {
        schemars::json_schema!({ "type": "object" })
    }

    fn risk(&self) -> Risk {
        Risk::Read
    }

    fn effect(&self) -> Effect {
        Effect::ReadOnly
    }

    fn target_kinds(&self) -> &'static [&'static str] {
        &["process"]
    }

    fn check(&self, _with: &Value, _target: Option<&Target>) -> Result<(), String> {
        Ok(())
    }

    async fn run(&self, _cx: &ActionCx, _with: &Value) -> Result<ActionOutput, ActionError> {
        if self.0.lock().unwrap().healthy {
            return Ok(ActionOutput { summary: "it answers".to_owned(), ..ActionOutput::default() });
        }
        Err(ActionError::Failed("it does not answer".to_owned()))
    }
}
