//! Modals: `views.open` and `views.update`, and what the person sees and fills in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::json::{items, merge, string};
use super::args::{Args, Refusal};
use super::blocks::{Checker, Surface};
use super::content::complete;
use super::render::{render_block, shown};
use super::state::State;
use super::text::Rendered;
use super::{Config, Core};

/// How long a trigger opens a modal (docs.slack.dev, "Modals": three seconds).
const TRIGGER_LIVES: Duration = Duration::from_secs(3);

/// A modal on somebody's screen. A copy: ask the fake again for a later state.
#[derive(Clone, Debug)]
pub struct View {
    /// Its id (`V…`).
    pub id: String,
    /// Who has it open.
    pub user: String,
    /// Whether it is still open.
    pub open: bool,
    /// The errors shown at its fields after a submission, by block id.
    pub errors: BTreeMap<String, String>,
    /// How often the app has updated it.
    pub updates: usize,
    /// The view as the app gave it, completed with ids.
    pub json: Value,
    pub(super) hash: String,
}

impl View {
    /// The title.
    pub fn title(&self) -> String {
        shown(&self.json["title"])
    }

    /// What the app put behind it.
    pub fn private_metadata(&self) -> String {
        string(&self.json["private_metadata"])
    }

    /// All text a person reads in it.
    pub fn visible_text(&self) -> String {
        let mut all = Rendered::plain(&self.title());
        items(&self.json["blocks"]).iter().for_each(|block| render_block(&mut all, block));
        all.text
    }

    /// The view as interaction payloads carry it, with what was filled in.
    pub(super) fn stateful(&self, config: &Config, values: Value) -> Value {
        let defaults = json!({
            "private_metadata": "", "callback_id": "", "external_id": "", "clear_on_close": false, "notify_on_close": false,
            "close": null, "submit": null
        });
        let rest = json!({
            "id": self.id, "team_id": config.team_id, "state": {"values": values}, "hash": self.hash, "previous_view_id": null,
            "root_view_id": self.id, "app_id": config.app_id, "app_installed_team_id": config.team_id, "bot_id": config.bot_id
        });
        merge(merge(defaults, &self.json), &rest)
    }

    /// The state for `values`, given by label, block id or action id; refuses what Slack's client would not let a person submit.
    pub(super) fn fill(&self, values: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut state = Map::new();
        let mut used = 0;
        for block in items(&self.json["blocks"]).iter().filter(|block| block["type"] == "input") {
            let (label, element) = (shown(&block["label"]), &block["element"]);
            let named = |name: &str| name == label || block["block_id"] == name || element["action_id"] == name;
            let given = values.iter().find(|(name, _)| named(name)).map(|(_, value)| *value);
            used += usize::from(given.is_some());
            let given = given.filter(|value| !value.is_empty());
            anyhow::ensure!(given.is_some() || block["optional"] == true, "the client insists on a value for {label:?}");
            let value = match (element["type"].as_str().unwrap_or_default(), given) {
                ("static_select" | "radio_buttons", Some(given)) => {
                    json!({"selected_option": option(element, given)?})
                }
                (_, None) => json!({"value": null}),
                (_, Some(text)) => {
                    let length = text.chars().count() as u64;
                    let (min, max) = (element["min_length"].as_u64().unwrap_or(0), element["max_length"].as_u64().unwrap_or(3000));
                    anyhow::ensure!(
                        (min..=max).contains(&length),
                        "the client takes {min} to {max} characters for {label:?}, not {length}"
                    );
                    json!({"value": text})
                }
            };
            let mut value = value;
            value["type"] = element["type"].clone();
            state.insert(string(&block["block_id"]), json!({string(&element["action_id"]): value}));
        }
        anyhow::ensure!(used == values.len(), "the modal has no such fields: {values:?}; it reads: {}", self.visible_text());
        Ok(Value::Object(state))
    }
}

pub(super) fn open(core: &Core, state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let now = core.time.now();
    let json = checked(state, args)?;
    let trigger = state.triggers.get_mut(args.required("trigger_id")?).ok_or_else(|| Refusal::new("invalid_trigger_id"))?;
    if trigger.used {
        return Err(Refusal::new("exchanged_trigger_id"));
    }
    if Duration::try_from(now.duration_since(trigger.made)).unwrap_or_default() > TRIGGER_LIVES {
        return Err(Refusal::new("expired_trigger_id"));
    }
    trigger.used = true;
    let user = trigger.user.clone();
    let (id, hash) = (format!("V{:08}", state.next_id()), state.next_ts(now));
    let view = View { id, user, open: true, errors: BTreeMap::new(), updates: 0, json, hash };
    let shown = view.stateful(&core.config, json!({}));
    state.views.push(view);
    Ok(json!({"view": shown}))
}

pub(super) fn update(core: &Core, state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let json = checked(state, args)?;
    let hash = state.next_ts(core.time.now());
    let (id, external) = (args.text("view_id"), args.text("external_id"));
    let wanted =
        |view: &&mut View| view.open && (id == Some(&view.id) || (external.is_some() && view.json["external_id"].as_str() == external));
    let view = state.views.iter_mut().find(wanted).ok_or_else(|| Refusal::new("not_found"))?;
    if args.text("hash").is_some_and(|seen| seen != view.hash) {
        return Err(Refusal::new("hash_conflict"));
    }
    view.replace(json, hash);
    Ok(json!({"view": view.stateful(&core.config, json!({}))}))
}

impl View {
    fn replace(&mut self, json: Value, hash: String) {
        self.json = json;
        self.hash = hash;
        self.updates += 1;
        self.errors.clear();
    }

    /// Acts on the answer to a submission (docs.slack.dev, "Modals": an empty answer closes, `response_action` steers).
    pub(super) fn answered(state: &mut State, id: &str, answer: &Value, hash: String) -> anyhow::Result<()> {
        let action = answer["response_action"].as_str().unwrap_or_default();
        let update = if action == "update" {
            let mut checker = Checker::new(Surface::Modal);
            checker.modal(&answer["view"]);
            checker
                .finish("invalid_view")
                .map_err(|refusal| anyhow::anyhow!("Slack cannot show the updated view: {}", refusal.details.join("; ")))?;
            Some(completed(state, answer["view"].clone()))
        } else {
            None
        };
        let user = state.views.iter().find(|view| view.id == id).map(|view| view.user.clone());
        for view in
            state.views.iter_mut().filter(|view| view.open && (view.id == id || (action == "clear" && Some(&view.user) == user.as_ref())))
        {
            match (action, &update) {
                ("", _) | ("clear", _) => view.open = false,
                ("update", Some(json)) => view.replace(json.clone(), hash.clone()),
                ("errors", _) => view.errors = serde_json::from_value(answer["errors"].clone())?,
                _ => anyhow::bail!("Slack does not know the response_action {action:?}"),
            }
        }
        Ok(())
    }
}

fn checked(state: &mut State, args: &Args) -> Result<Value, Refusal> {
    let view = args.json("view", "invalid_arguments")?.ok_or_else(|| Refusal::new("invalid_arguments"))?;
    let mut checker = Checker::new(Surface::Modal);
    checker.modal(&view);
    checker.finish("invalid_arguments")?;
    Ok(completed(state, view))
}

fn completed(state: &mut State, mut view: Value) -> Value {
    if let Some(Value::Array(blocks)) = view.get_mut("blocks") {
        let filled = complete(state, std::mem::take(blocks));
        *blocks = filled;
    }
    view
}

/// The option of that label or value.
pub(super) fn option(element: &Value, wanted: &str) -> anyhow::Result<Value> {
    let groups = items(&element["option_groups"]).iter().flat_map(|group| items(&group["options"]).iter());
    let mut options = items(&element["options"]).iter().chain(groups);
    let found = options.find(|option| option["value"] == wanted || shown(&option["text"]) == wanted);
    found.cloned().ok_or_else(|| anyhow::anyhow!("there is no option {wanted:?} in {element}"))
}
