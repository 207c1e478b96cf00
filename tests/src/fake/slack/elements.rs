//! Block Kit's rules for interactive elements and for the modal around them.

use serde_json::Value;

use super::blocks::{Checker, Text};

impl Checker {
    /// An interactive element; text inputs belong into input blocks only, buttons and overflows outside of them only.
    pub(super) fn element(&mut self, at: &str, element: &Value, in_input: bool) {
        let kind = element["type"].as_str().unwrap_or_default();
        self.string(at, element, "action_id", 255, false);
        if let Some(id) = element["action_id"].as_str()
            && !self.action_ids.insert(id.to_owned())
        {
            self.fail(&format!("{at}/action_id"), "action_id already exists in this block");
        }
        if element.get("confirm").is_some_and(|confirm| !confirm.is_null()) {
            self.confirm(&format!("{at}/confirm"), &element["confirm"]);
        }
        match (kind, in_input) {
            ("button", false) => self.button(at, element),
            ("overflow", false) => {
                self.keys(at, element, "type action_id options confirm");
                self.each(at, element, "options", 5, Self::option);
            }
            ("static_select" | "multi_static_select", _) => {
                let allowed = "type action_id placeholder options option_groups initial_option initial_options max_selected_items confirm focus_on_load";
                self.keys(at, element, allowed);
                self.text(at, element, "placeholder", Text::Plain, 150, false);
                self.options(at, element);
            }
            ("checkboxes" | "radio_buttons", _) => self.each(at, element, "options", 10, Self::option),
            ("plain_text_input", true) => self.plain_text_input(at, element),
            ("users_select" | "conversations_select" | "channels_select" | "datepicker" | "timepicker", _) => {
                self.text(at, element, "placeholder", Text::Plain, 150, false);
            }
            _ => self.fail(at, format_args!("unsupported type: {kind}")),
        }
    }

    fn button(&mut self, at: &str, button: &Value) {
        self.keys(at, button, "type action_id text url value style confirm accessibility_label");
        self.text(at, button, "text", Text::Plain, 75, true);
        self.string(at, button, "url", 3000, false);
        self.string(at, button, "value", 2000, false);
        self.string(at, button, "accessibility_label", 75, false);
        if !matches!(button["style"].as_str(), None | Some("primary" | "danger")) {
            self.fail(&format!("{at}/style"), "must be one of: primary, danger");
        }
    }

    fn confirm(&mut self, at: &str, confirm: &Value) {
        self.keys(at, confirm, "title text confirm deny style");
        self.text(at, confirm, "title", Text::Plain, 100, true);
        self.text(at, confirm, "text", Text::Any, 300, true);
        self.text(at, confirm, "confirm", Text::Plain, 30, true);
        self.text(at, confirm, "deny", Text::Plain, 30, true);
    }

    fn options(&mut self, at: &str, element: &Value) {
        if element.get("option_groups").is_some() {
            self.each(at, element, "option_groups", 100, |checker, at, group| {
                checker.text(at, group, "label", Text::Plain, 75, true);
                checker.each(at, group, "options", 100, Self::option);
            });
        } else {
            self.each(at, element, "options", 100, Self::option);
        }
    }

    fn option(&mut self, at: &str, option: &Value) {
        self.keys(at, option, "text value description url");
        self.text(at, option, "text", Text::Any, 75, true);
        self.string(at, option, "value", 150, true);
        self.text(at, option, "description", Text::Any, 75, false);
    }

    fn plain_text_input(&mut self, at: &str, input: &Value) {
        self.keys(
            at,
            input,
            "type action_id placeholder initial_value multiline min_length max_length dispatch_action_config focus_on_load",
        );
        self.text(at, input, "placeholder", Text::Plain, 150, false);
        self.string(at, input, "initial_value", 3000, false);
        for name in ["min_length", "max_length"] {
            if input.get(name).is_some_and(|length| length.as_u64().is_none_or(|length| length > 3000)) {
                self.fail(&format!("{at}/{name}"), "must be at most 3000");
            }
        }
    }

    /// A modal: short plain titles, at most 100 blocks, and a submit button as soon as there is something to fill in.
    pub(super) fn modal(&mut self, view: &Value) {
        self.keys(
            "/view",
            view,
            "type title blocks submit close private_metadata callback_id external_id clear_on_close notify_on_close submit_disabled hash",
        );
        if view["type"] != "modal" {
            self.fail("/view/type", "must be modal");
        }
        for (name, required) in [("title", true), ("submit", false), ("close", false)] {
            self.text("/view", view, name, Text::Plain, 24, required);
        }
        for (name, max) in [("private_metadata", 3000), ("callback_id", 255), ("external_id", 255)] {
            self.string("/view", view, name, max, false);
        }
        let Some(blocks) = view["blocks"].as_array() else {
            return self.fail("/view/blocks", "missing required field: blocks");
        };
        self.blocks("/view/blocks", blocks);
        if blocks.iter().any(|block| block["type"] == "input") && view["submit"].is_null() {
            self.fail("/view/submit", "missing required field: submit is required with input blocks");
        }
    }
}
