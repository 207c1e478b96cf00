//! The parts of a message that people act on.

use serde_json::Value;

use super::super::json::{items, string};
use super::render::shown;

/// A button as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Button {
    /// Its label.
    pub label: String,
    /// Which action it is.
    pub action_id: String,
    /// The block it is in.
    pub block_id: String,
    /// What the app gave it to carry.
    pub value: String,
    /// `primary`, `danger` or empty.
    pub style: String,
    /// Where it leads, for a link button.
    pub url: Option<String>,
    /// The text of the dialog that asks before it acts.
    pub confirm: Option<String>,
}

/// A menu to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    /// Its placeholder; empty for an overflow menu.
    pub placeholder: String,
    /// Which action it is.
    pub action_id: String,
    /// The block it is in.
    pub block_id: String,
    /// Labels and values, in order.
    pub options: Vec<(String, String)>,
}

/// The interactive elements of a block, in order.
pub(super) fn elements_of(block: &Value) -> Vec<&Value> {
    let many = if block["type"] == "actions" { block["elements"].as_array() } else { None };
    let accessory = block.get("accessory").filter(|accessory| accessory["type"] != "image");
    many.into_iter().flatten().chain(accessory).chain(block.get("element")).collect()
}

impl Button {
    pub(super) fn of(block: &Value, element: &Value) -> Self {
        Self {
            label: shown(&element["text"]),
            action_id: string(&element["action_id"]),
            block_id: string(&block["block_id"]),
            value: string(&element["value"]),
            style: string(&element["style"]),
            url: element["url"].as_str().map(str::to_owned),
            confirm: element.get("confirm").filter(|confirm| !confirm.is_null()).map(|confirm| shown(&confirm["text"])),
        }
    }
}

impl Menu {
    pub(super) fn of(block: &Value, element: &Value) -> Self {
        let groups = items(&element["option_groups"]).iter().flat_map(|group| items(&group["options"]).iter());
        let options = items(&element["options"]).iter().chain(groups);
        Self {
            placeholder: shown(&element["placeholder"]),
            action_id: string(&element["action_id"]),
            block_id: string(&block["block_id"]),
            options: options.map(|option| (shown(&option["text"]), string(&option["value"]))).collect(),
        }
    }

    /// Whether an element is such a menu.
    pub(super) fn is(element: &Value) -> bool {
        matches!(element["type"].as_str(), Some("static_select" | "overflow" | "multi_static_select"))
    }
}
