//! Block Kit's rules for blocks (docs.slack.dev, "Block Kit reference"): types, lengths, counts, unique ids, and no unknown properties.

use std::collections::HashSet;
use std::fmt::Display;

use serde_json::Value;

use super::args::Refusal;

/// Where blocks are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Message,
    Modal,
}

/// Which kinds of text object are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Plain,
    Any,
}

/// Collects everything wrong with a payload, worded as Slack words it.
pub(super) struct Checker {
    surface: Surface,
    problems: Vec<String>,
    block_ids: HashSet<String>,
    pub(super) action_ids: HashSet<String>,
}

impl Checker {
    pub(super) fn new(surface: Surface) -> Self {
        Self { surface, problems: Vec::new(), block_ids: HashSet::new(), action_ids: HashSet::new() }
    }

    /// The refusal, if anything was wrong.
    pub(super) fn finish(self, error: &str) -> Result<(), Refusal> {
        if self.problems.is_empty() { Ok(()) } else { Err(Refusal::with(error, self.problems)) }
    }

    /// A list of blocks: at most 50 in a message (attachments' blocks are counted apart), 100 in a modal.
    pub(super) fn blocks(&mut self, at: &str, blocks: &[Value]) {
        let max = if self.surface == Surface::Message { 50 } else { 100 };
        if blocks.len() > max {
            self.fail(at, format_args!("no more than {max} items allowed"));
        }
        for (index, block) in blocks.iter().enumerate() {
            self.block(&format!("{at}/{index}"), block);
        }
    }

    /// A secondary attachment; legacy interactive `actions` are refused.
    pub(super) fn attachment(&mut self, at: &str, attachment: &Value) {
        let allowed = "id color fallback blocks text pretext title title_link fields footer footer_icon ts mrkdwn_in author_name author_link author_icon image_url thumb_url";
        self.keys(at, attachment, allowed);
        for name in ["color", "fallback", "text", "pretext", "title", "footer"] {
            self.string(at, attachment, name, 40_000, false);
        }
        match attachment.get("blocks") {
            None | Some(Value::Null) => {}
            Some(Value::Array(blocks)) => self.blocks(&format!("{at}/blocks"), blocks),
            Some(_) => self.fail(at, "blocks must be an array"),
        }
    }

    fn block(&mut self, at: &str, block: &Value) {
        self.string(at, block, "block_id", 255, false);
        if let Some(id) = block["block_id"].as_str()
            && !self.block_ids.insert(id.to_owned())
        {
            self.fail(&format!("{at}/block_id"), "block_id already exists");
        }
        self.action_ids.clear();
        match block["type"].as_str().unwrap_or_default() {
            "section" => self.section(at, block),
            "header" => {
                self.keys(at, block, "type block_id text");
                self.text(at, block, "text", Text::Plain, 150, true);
            }
            "divider" => self.keys(at, block, "type block_id"),
            "image" => self.image(at, block, "type block_id image_url slack_file alt_text title"),
            "actions" => {
                self.keys(at, block, "type block_id elements");
                self.each(at, block, "elements", 25, |checker, at, element| checker.element(at, element, false));
            }
            "context" => {
                self.keys(at, block, "type block_id elements");
                self.each(at, block, "elements", 10, |checker, at, element| match element["type"].as_str() {
                    Some("image") => checker.image(at, element, "type image_url slack_file alt_text"),
                    _ => checker.text_object(at, element, Text::Any, 3000),
                });
            }
            "input" => self.input(at, block),
            "rich_text" => {
                self.keys(at, block, "type block_id elements");
                self.each(at, block, "elements", 100, Self::rich_text);
            }
            kind => self.fail(at, format_args!("unsupported type: {kind}")),
        }
    }

    fn section(&mut self, at: &str, block: &Value) {
        self.keys(at, block, "type block_id text fields accessory expand");
        if block.get("text").is_none() && block.get("fields").is_none() {
            self.fail(at, "missing required field: text or fields");
        }
        self.text(at, block, "text", Text::Any, 3000, false);
        if block.get("fields").is_some() {
            self.each(at, block, "fields", 10, |checker, at, field| checker.text_object(at, field, Text::Any, 2000));
        }
        if let Some(accessory) = block.get("accessory") {
            let at = format!("{at}/accessory");
            if accessory["type"] == "image" {
                self.image(&at, accessory, "type image_url slack_file alt_text");
            } else {
                self.element(&at, accessory, false);
            }
        }
    }

    fn input(&mut self, at: &str, block: &Value) {
        self.keys(at, block, "type block_id label element hint optional dispatch_action");
        self.text(at, block, "label", Text::Plain, 2000, true);
        self.text(at, block, "hint", Text::Plain, 2000, false);
        match block.get("element") {
            Some(element) => self.element(&format!("{at}/element"), element, true),
            None => self.fail(at, "missing required field: element"),
        }
    }

    fn image(&mut self, at: &str, image: &Value, keys: &str) {
        self.keys(at, image, keys);
        self.string(at, image, "image_url", 3000, image.get("slack_file").is_none());
        self.string(at, image, "alt_text", 2000, true);
        self.text(at, image, "title", Text::Plain, 2000, false);
    }

    fn rich_text(&mut self, at: &str, element: &Value) {
        match element["type"].as_str() {
            Some("rich_text_section" | "rich_text_list" | "rich_text_preformatted" | "rich_text_quote") => {
                let nested = element["type"] == "rich_text_list";
                self.each(at, element, "elements", 1000, |checker, at, leaf| match leaf["type"].as_str() {
                    Some("text") => checker.string(at, leaf, "text", 3000, true),
                    Some("rich_text_section") if nested => checker.rich_text(at, leaf),
                    Some("link" | "user" | "usergroup" | "broadcast" | "channel" | "emoji" | "date" | "color") if !nested => {}
                    kind => checker.fail(at, format_args!("unsupported type: {}", kind.unwrap_or_default())),
                });
            }
            kind => self.fail(at, format_args!("unsupported type: {}", kind.unwrap_or_default())),
        }
    }

    /// A field that holds a text object.
    pub(super) fn text(&mut self, at: &str, holder: &Value, name: &str, kind: Text, max: usize, required: bool) {
        match holder.get(name) {
            None | Some(Value::Null) if required => self.fail(at, format_args!("missing required field: {name}")),
            None | Some(Value::Null) => {}
            Some(text) => self.text_object(&format!("{at}/{name}"), text, kind, max),
        }
    }

    fn text_object(&mut self, at: &str, text: &Value, kind: Text, max: usize) {
        match text["type"].as_str() {
            Some("plain_text") => self.keys(at, text, "type text emoji"),
            Some("mrkdwn") if kind == Text::Any => self.keys(at, text, "type text verbatim"),
            other => self.fail(at, format_args!("unsupported type: {}", other.unwrap_or_default())),
        }
        self.string(at, text, "text", max, true);
        for flag in ["emoji", "verbatim"] {
            if text.get(flag).is_some_and(|value| !value.is_boolean()) {
                self.fail(at, format_args!("{flag} must be a boolean"));
            }
        }
    }

    /// A string field of at least one and at most `max` characters.
    pub(super) fn string(&mut self, at: &str, holder: &Value, name: &str, max: usize, required: bool) {
        let at = &format!("{at}/{name}");
        match holder.get(name) {
            None | Some(Value::Null) if required => self.fail(at, format_args!("missing required field: {name}")),
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() && required => self.fail(at, "must be more than 0 characters"),
            Some(Value::String(text)) if text.chars().count() > max => {
                self.fail(at, format_args!("must be less than {} characters", max + 1))
            }
            Some(Value::String(_)) => {}
            Some(_) => self.fail(at, "must be a string"),
        }
    }

    /// A required list of one to `max` items, each checked by `check`.
    pub(super) fn each(&mut self, at: &str, holder: &Value, name: &str, max: usize, check: impl Fn(&mut Self, &str, &Value)) {
        let at = format!("{at}/{name}");
        match holder.get(name).and_then(Value::as_array) {
            None => self.fail(&at, format_args!("missing required field: {name}")),
            Some(items) if items.is_empty() => self.fail(&at, "no less than 1 items allowed"),
            Some(items) if items.len() > max => self.fail(&at, format_args!("no more than {max} items allowed")),
            Some(items) => items.iter().enumerate().for_each(|(index, item)| check(self, &format!("{at}/{index}"), item)),
        }
    }

    /// Refuses properties outside the space-separated list `allowed`.
    pub(super) fn keys(&mut self, at: &str, holder: &Value, allowed: &str) {
        let Some(fields) = holder.as_object() else {
            return self.fail(at, "must be an object");
        };
        for key in fields.keys().filter(|key| !allowed.split(' ').any(|name| name == *key)) {
            self.fail(at, format_args!("invalid additional property: {key}"));
        }
    }

    pub(super) fn fail(&mut self, at: &str, what: impl Display) {
        self.problems.push(format!("[ERROR] {what} [json-pointer:{at}]"));
    }
}
