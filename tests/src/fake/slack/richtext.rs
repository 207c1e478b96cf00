//! What a person sees of a `rich_text` block: its text is never parsed, so only its explicit elements mention or link.

use serde_json::Value;

use super::super::json::{items, string};
use super::text::{Link, Mention, Rendered};

/// Appends one line per section of the block.
pub(super) fn render(all: &mut Rendered, block: &Value) {
    for element in items(&block["elements"]) {
        if element["type"] == "rich_text_list" {
            items(&element["elements"]).iter().for_each(|item| all.line(section(item)));
        } else {
            all.line(section(element));
        }
    }
}

fn section(section: &Value) -> Rendered {
    let mut line = Rendered::default();
    for leaf in items(&section["elements"]) {
        match leaf["type"].as_str().unwrap_or_default() {
            "text" => line.text.push_str(leaf["text"].as_str().unwrap_or_default()),
            "link" => {
                let url = string(&leaf["url"]);
                let label = leaf["text"].as_str().unwrap_or(&url).to_owned();
                line.text.push_str(&label);
                line.links.push(Link { url, label });
            }
            "user" => line.mention(Mention::User(string(&leaf["user_id"]))),
            "usergroup" => line.mention(Mention::Group(string(&leaf["usergroup_id"]))),
            "broadcast" => line.mention(Mention::Everybody(string(&leaf["range"]))),
            "channel" => line.text.push_str(&format!("#{}", string(&leaf["channel_id"]))),
            "emoji" => line.text.push_str(&format!(":{}:", string(&leaf["name"]))),
            "date" => line.text.push_str(&string(&leaf["fallback"])),
            _ => {}
        }
    }
    line
}
