//! What a person reads of blocks, and the small helpers to take blocks apart.

use serde_json::Value;

use super::super::json::items;
use super::parts::elements_of;
use super::richtext;
use super::text::{Rendered, Rules};

/// Flattens one block into the lines that a person reads.
pub(super) fn render_block(all: &mut Rendered, block: &Value) {
    match block["type"].as_str().unwrap_or_default() {
        "rich_text" => richtext::render(all, block),
        "image" => render_object(all, &block["title"]),
        "input" => {
            render_object(all, &block["label"]);
            render_object(all, &block["hint"]);
        }
        _ => {
            render_object(all, &block["text"]);
            items(&block["fields"]).iter().for_each(|field| render_object(all, field));
            if block["type"] == "context" {
                items(&block["elements"]).iter().for_each(|element| render_object(all, element));
            }
        }
    }
    for element in elements_of(block) {
        render_object(all, &element["text"]);
        render_object(all, &element["placeholder"]);
        let confirm = &element["confirm"];
        ["title", "text"].iter().for_each(|part| render_object(all, &confirm[*part]));
    }
}

fn render_object(all: &mut Rendered, object: &Value) {
    if let Some(text) = object["text"].as_str() {
        all.line(match object["type"].as_str() {
            Some("mrkdwn") if object["verbatim"] == true => Rules::VERBATIM.render(text),
            Some("mrkdwn") => Rules::MRKDWN.render(text),
            _ => Rendered::plain(text),
        });
    }
}

/// The text of a text object as a person reads it.
pub(super) fn shown(object: &Value) -> String {
    let mut all = Rendered::default();
    render_object(&mut all, object);
    all.text
}
