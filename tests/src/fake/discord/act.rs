//! What people do in Discord.

use serde_json::{Value, json};

use super::super::json::{items, string};
use super::deliver::{Delivery, Target};
use super::interaction::{AUTOCOMPLETE, COMMAND, COMPONENT, MODAL_SUBMIT, Modal, inputs};
use super::payload::{self, Scene};
use super::{FakeDiscord, Message, commands};

impl FakeDiscord {
    /// `user` presses a button of `message`, by its label or custom id (a part of the label will do where only one has it). The message may be
    /// an old copy: people press what they still see.
    pub fn click(&self, user: &str, message: &Message, button: &str, target: impl Into<Target>) -> Delivery {
        let payload = component(message, 2, button).and_then(|part| {
            anyhow::ensure!(part["disabled"] != true, "the button {button:?} is greyed out");
            let data = json!({"component_type": 2, "custom_id": part["custom_id"], "id": 2});
            anyhow::ensure!(!part["custom_id"].is_null(), "the button {button:?} is a link");
            self.on_message(user, message, data)
        });
        Delivery::new(self, target.into(), payload)
    }

    /// `user` chooses an option (by label or value) from a menu (by placeholder or custom id) of `message`.
    pub fn choose(&self, user: &str, message: &Message, menu: &str, option: &str, target: impl Into<Target>) -> Delivery {
        let payload = component(message, 3, menu).and_then(|part| {
            anyhow::ensure!(part["disabled"] != true, "the menu {menu:?} is greyed out");
            let found = items(&part["options"]).iter().find(|one| one["label"] == option || one["value"] == option);
            let found = found.ok_or_else(|| anyhow::anyhow!("there is no option {option:?} in {part}"))?;
            let data = json!({"component_type": 3, "custom_id": part["custom_id"], "id": 2, "values": [found["value"]]});
            self.on_message(user, message, data)
        });
        Delivery::new(self, target.into(), payload)
    }

    /// `user` fills in a modal and submits it; `values` go by label or custom id.
    pub fn submit_modal(&self, user: &str, modal: &Modal, values: &[(&str, &str)], target: impl Into<Target>) -> Delivery {
        let payload = fill(modal, values).and_then(|rows| {
            self.core.state.change(|state| {
                let user = state.user(user)?.clone();
                let opened = state.interactions.iter().find(|record| record.id == modal.interaction);
                let opened = opened.ok_or_else(|| anyhow::anyhow!("this modal was never opened"))?;
                anyhow::ensure!(opened.user == user.id, "the modal is on the screen of {}, not of {}", opened.user, user.id);
                let channel = opened.channel.clone();
                let source = modal.source.as_ref().and_then(|id| state.any_message(id).cloned());
                let scene = Scene { user: &user, channel: &channel, message: source.as_ref() };
                let data = json!({"custom_id": modal.custom_id, "components": rows});
                Ok(payload::interaction(&self.core, state, MODAL_SUBMIT, &scene, data))
            })
        });
        Delivery::new(self, target.into(), payload)
    }

    /// `user` types a slash command, as in `command("…", "…", "incident ack", &[("number", json!(142))], url)`. Only what the application has
    /// registered can be typed.
    pub fn command(&self, user: &str, channel: &str, line: &str, options: &[(&str, Value)], target: impl Into<Target>) -> Delivery {
        Delivery::new(self, target.into(), self.typed(COMMAND, user, channel, line, options, None))
    }

    /// `user` is typing the option `focused` of a slash command and asks for completions; see
    /// [`Interaction::choices`](super::Interaction::choices).
    pub fn autocomplete(&self, user: &str, channel: &str, line: &str, focused: (&str, &str), target: impl Into<Target>) -> Delivery {
        let given = [(focused.0, json!(focused.1))];
        Delivery::new(self, target.into(), self.typed(AUTOCOMPLETE, user, channel, line, &given, Some(focused.0)))
    }

    /// Discord's PING of an endpoint.
    pub fn ping(&self, target: impl Into<Target>) -> Delivery {
        let payload = self.core.state.change(|state| payload::ping(&self.core, state));
        Delivery::new(self, target.into(), Ok(payload))
    }

    /// What Discord does when an endpoint URL is saved: a PING that must be answered by type 1, and one with a bad signature that must get 401.
    ///
    /// # Errors
    /// If the endpoint would not be accepted.
    pub async fn verify_endpoint(&self, url: &str) -> anyhow::Result<()> {
        let good = self.ping(url).await?;
        anyhow::ensure!(good.interaction.response_type() == Some(1), "PING was answered by {} {}", good.reply.status, good.reply.body);
        let bad = self.ping(url).forged().await?;
        anyhow::ensure!(bad.reply.status == 401, "a bad signature was answered by {}", bad.reply.status);
        Ok(())
    }

    /// `user` writes a message.
    ///
    /// # Errors
    /// If there is no such person or channel.
    pub fn say(&self, user: &str, channel: &str, text: &str) -> anyhow::Result<Message> {
        let now = self.core.time.now();
        self.core.state.change(|state| {
            let author = state.user(user)?.id.clone();
            anyhow::ensure!(state.channels.iter().any(|known| known.id == channel), "there is no channel {channel} in this Discord");
            let mut message = Message::new(state.next_id(now), channel, &author, now);
            message.content = text.to_owned();
            message.read = true;
            state.messages.push(message.clone());
            Ok(message)
        })
    }

    fn on_message(&self, user: &str, message: &Message, data: Value) -> anyhow::Result<Value> {
        self.core.state.change(|state| {
            let user = state.user(user)?.clone();
            let sees = message.only_for.as_ref().is_none_or(|only| *only == user.id);
            anyhow::ensure!(sees, "{} does not see this ephemeral message", user.id);
            let current = state.any_message(&message.id).cloned().unwrap_or_else(|| message.clone());
            let scene = Scene { user: &user, channel: &message.channel, message: Some(&current) };
            Ok(payload::interaction(&self.core, state, COMPONENT, &scene, data))
        })
    }

    fn typed(
        &self,
        kind: u64,
        user: &str,
        channel: &str,
        line: &str,
        options: &[(&str, Value)],
        focused: Option<&str>,
    ) -> anyhow::Result<Value> {
        self.core.state.change(|state| {
            let user = state.user(user)?.clone();
            anyhow::ensure!(state.channels.iter().any(|known| known.id == channel), "there is no channel {channel} in this Discord");
            let data = commands::typed(state, line, options, focused)?;
            Ok(payload::interaction(&self.core, state, kind, &Scene { user: &user, channel, message: None }, data))
        })
    }
}

/// The one component of a type that `wanted` names.
fn component<'m>(message: &'m Message, kind: u64, wanted: &str) -> anyhow::Result<&'m Value> {
    let name = if kind == 2 { "label" } else { "placeholder" };
    let all: Vec<&Value> = message.parts().into_iter().filter(|part| part["type"] == kind).collect();
    let exact = all.iter().copied().find(|part| part[name] == wanted || part["custom_id"] == wanted);
    let part: Vec<&Value> = all.iter().copied().filter(|part| string(&part[name]).contains(wanted)).collect();
    match (exact, part.as_slice()) {
        (Some(one), _) | (None, &[one]) => Ok(one),
        _ => anyhow::bail!(
            "nothing is called {wanted:?} (or several are); there are {:?} in:\n{}",
            message.buttons(),
            message.visible_text()
        ),
    }
}

/// The rows of a filled modal; refuses what Discord's client would not let a person submit.
fn fill(modal: &Modal, values: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    let mut used = 0;
    for input in inputs(&modal.data) {
        let given = values.iter().find(|(name, _)| input["label"] == *name || input["custom_id"] == *name).map(|(_, value)| *value);
        used += usize::from(given.is_some());
        let text = given.unwrap_or_default();
        let length = text.chars().count() as u64;
        let (min, max) = (input["min_length"].as_u64().unwrap_or(0), input["max_length"].as_u64().unwrap_or(4000));
        anyhow::ensure!(length > 0 || input["required"] == false, "the client insists on a value for {}", input["label"]);
        anyhow::ensure!(length == 0 || (min..=max).contains(&length), "the client takes {min} to {max} characters for {}", input["label"]);
        rows.push(json!({"type": 1, "id": 1, "components": [{"type": 4, "id": 2, "custom_id": input["custom_id"], "value": text}]}));
    }
    anyhow::ensure!(used == values.len(), "the modal {:?} has no such fields: {values:?}", modal.title);
    Ok(rows)
}
