//! What a message consists of: text, blocks and attachments, checked and completed as Slack does on the way in.

use serde_json::{Value, json};

use super::args::{Args, Refusal};
use super::blocks::{Checker, Surface};
use super::state::State;

/// Slack truncates or refuses beyond this (docs.slack.dev, chat.postMessage).
const TEXT_LIMIT: usize = 40_000;

/// The content of a message to post, or the part of it that an update gives.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) text: Option<String>,
    pub(super) blocks: Option<Vec<Value>>,
    pub(super) attachments: Option<Vec<Value>>,
    /// What the app put beside it (`metadata`).
    pub(super) metadata: Option<Value>,
    /// The sender asked Slack to find names (`link_names`, or `parse: full`).
    pub(super) link_names: bool,
    /// The sender asked Slack not to touch the text (`parse: none`).
    pub(super) parse_none: bool,
}

impl Content {
    /// Reads and checks the content arguments.
    pub(super) fn read(state: &mut State, args: &Args) -> Result<Self, Refusal> {
        let text = args.text("text").map(str::to_owned);
        if text.as_ref().is_some_and(|text| text.chars().count() > TEXT_LIMIT) {
            return Err(Refusal::new("msg_too_long"));
        }
        if args.0.get("text").is_some_and(|text| !text.is_string() && !text.is_null()) {
            return Err(Refusal::with("invalid_arguments", vec!["[ERROR] must be a string [json-pointer:/text]".to_owned()]));
        }
        let mut checker = Checker::new(Surface::Message);
        let blocks = list(args, "blocks", "invalid_blocks_format")?;
        if let Some(blocks) = &blocks {
            checker.blocks("/blocks", blocks);
        }
        let attachments = list(args, "attachments", "invalid_attachments")?;
        for (index, attachment) in attachments.iter().flatten().enumerate() {
            checker.attachment(&format!("/attachments/{index}"), attachment);
        }
        if attachments.as_ref().is_some_and(|attachments| attachments.len() > 100) {
            return Err(Refusal::new("too_many_attachments"));
        }
        checker.finish("invalid_blocks")?;
        Ok(Self {
            text,
            blocks: blocks.map(|blocks| complete(state, blocks)),
            attachments: attachments.map(|attachments| complete_attachments(state, attachments)),
            metadata: metadata(args)?,
            link_names: args.flag("link_names") || args.text("parse") == Some("full"),
            parse_none: args.text("parse") == Some("none"),
        })
    }

    /// Insists on `text`: with blocks it is what notifications and screen readers get, and Slack warns of its absence.
    pub(super) fn with_text(self) -> Result<Self, Refusal> {
        if self.text.as_ref().is_some_and(|text| !text.trim().is_empty()) {
            return Ok(self);
        }
        Err(Refusal::with("no_text", vec!["[WARN] a top-level `text` must be there for notifications and accessibility".to_owned()]))
    }
}

/// `{"event_type": …, "event_payload": {…}}`, for the app to find its message again.
fn metadata(args: &Args) -> Result<Option<Value>, Refusal> {
    let metadata = args.json("metadata", "invalid_metadata_format")?;
    match &metadata {
        Some(given) if !given["event_type"].is_string() || !given["event_payload"].is_object() => {
            Err(Refusal::new("invalid_metadata_schema"))
        }
        _ => Ok(metadata),
    }
}

fn list(args: &Args, name: &str, malformed: &str) -> Result<Option<Vec<Value>>, Refusal> {
    match args.json(name, malformed)? {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(Refusal::new(malformed)),
    }
}

fn complete_attachments(state: &mut State, mut attachments: Vec<Value>) -> Vec<Value> {
    for (index, attachment) in attachments.iter_mut().enumerate() {
        attachment["id"] = json!(index + 1);
        if attachment.get("fallback").is_none() {
            attachment["fallback"] = json!("[no preview available]");
        }
        if let Some(Value::Array(blocks)) = attachment.get_mut("blocks") {
            let filled = complete(state, std::mem::take(blocks));
            *blocks = filled;
        }
    }
    attachments
}

/// Gives ids to the blocks and elements that came without, as Slack does.
pub(super) fn complete(state: &mut State, mut blocks: Vec<Value>) -> Vec<Value> {
    for block in &mut blocks {
        if block.get("block_id").is_none() {
            block["block_id"] = json!(format!("b{:04}", state.next_id()));
        }
        let (mut many, mut one, mut two) = (None, None, None);
        if let Value::Object(fields) = block {
            for (name, value) in fields {
                match name.as_str() {
                    "elements" => many = value.as_array_mut(),
                    "accessory" => one = Some(value),
                    "element" => two = Some(value),
                    _ => {}
                }
            }
        }
        for element in many.into_iter().flatten().chain(one).chain(two) {
            let interactive = element["type"]
                .as_str()
                .is_some_and(|kind| !matches!(kind, "image" | "mrkdwn" | "plain_text") && !kind.starts_with("rich_text"));
            if interactive && element.get("action_id").is_none() {
                element["action_id"] = json!(format!("a{:04}", state.next_id()));
            }
        }
    }
    blocks
}
