//! A catalogue like the real one: same names, risks, kinds and forms of parameters.

use async_trait::async_trait;
use schemars::{Schema, json_schema};
use serde_json::{Value, json};

use crate::action::{Action, ActionCatalogue, ActionCx, ActionError, ActionOutput, Risk};
use crate::plan::Target;

pub(crate) struct Catalogue;

struct Fake {
    name: &'static str,
    risk: Risk,
    kinds: &'static [&'static str],
}

const SERVICES: &[&str] = &["process", "systemd", "compose"];

static ALL: [Fake; 9] = [
    Fake { name: "command", risk: Risk::Disruptive, kinds: &[] },
    Fake { name: "http.request", risk: Risk::Disruptive, kinds: &["http"] },
    Fake { name: "http.check", risk: Risk::Read, kinds: &["http", "process", "systemd", "compose"] },
    Fake { name: "service.restart", risk: Risk::Disruptive, kinds: SERVICES },
    Fake { name: "service.status", risk: Risk::Read, kinds: SERVICES },
    Fake { name: "notify", risk: Risk::Read, kinds: &[] },
    Fake { name: "wait", risk: Risk::Read, kinds: &[] },
    Fake { name: "collect.bundle", risk: Risk::Read, kinds: SERVICES },
    Fake { name: "disk.wipe", risk: Risk::Destructive, kinds: &["disk"] },
];

impl ActionCatalogue for Catalogue {
    fn get(&self, name: &str) -> Option<&dyn Action> {
        ALL.iter().find(|action| action.name == name).map(|action| action as &dyn Action)
    }

    fn all(&self) -> Vec<&dyn Action> {
        ALL.iter().map(|action| action as &dyn Action).collect()
    }
}

#[async_trait]
impl Action for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        "A test's action."
    }

    fn schema(&self) -> Schema {
        let (properties, required) = match self.name {
            "command" => (
                json!({
                    "program": { "type": "string" },
                    "cwd": { "type": ["string", "null"] },
                    "args": { "type": "array", "items": { "type": ["string", "object"] } },
                    "nice": { "anyOf": [{ "$ref": "#/$defs/Nice" }, { "type": "null" }] },
                }),
                json!(["program"]),
            ),
            "http.check" | "http.request" => (
                json!({
                    "url": { "type": ["string", "null"] },
                    "method": { "enum": ["GET", "POST"] },
                    "status": { "anyOf": [{ "type": "integer" }, { "type": "array", "items": { "type": "integer" } }] },
                    "health": { "type": "string" },
                }),
                json!([]),
            ),
            "notify" => (json!({ "channel": { "type": "string" }, "text": { "type": "string" } }), json!(["channel", "text"])),
            "wait" => (json!({ "for": { "type": "string" } }), json!(["for"])),
            _ => (json!({}), json!([])),
        };
        json_schema!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
            "$defs": { "Nice": { "type": "integer", "minimum": 0, "maximum": 19 } },
        })
    }

    fn risk(&self) -> Risk {
        self.risk
    }

    fn target_kinds(&self) -> &'static [&'static str] {
        self.kinds
    }

    fn check(&self, with: &Value, target: Option<&Target>) -> Result<(), String> {
        match self.name {
            "service.restart" => match target {
                None => Err("it needs a `target` from the inventory".to_owned()),
                Some(target) if target.kind == "systemd" && target.text("unit").is_none() => {
                    Err(format!("target {:?} lacks `unit`", target.name))
                }
                Some(_) => Ok(()),
            },
            "wait" if with["for"].as_str().is_some_and(|text| text.parse::<crate::duration::Dur>().is_err()) => {
                Err("`for` is no duration".to_owned())
            }
            _ => Ok(()),
        }
    }

    async fn run(&self, _cx: &ActionCx, _with: &Value) -> Result<ActionOutput, ActionError> {
        Err(ActionError::Refused("only for checks".to_owned()))
    }
}
