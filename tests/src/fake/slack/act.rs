//! What people do in Slack.

use serde_json::{Value, json};

use super::deliver::{After, Delivery, Kind, Target};
use super::render::shown;
use super::view::option;
use super::{FakeSlack, Message, payload};

/// Which option of which menu; either by what is read or by what is carried.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The menu's placeholder or action id.
    pub menu: &'a str,
    /// The option's label or value.
    pub option: &'a str,
}

impl FakeSlack {
    /// `user` presses a button of `message`, by its label, action id or value (a part of the label will do where only one has it).
    /// Dialogs that ask first are confirmed. The message may be an old copy: people press what they still see.
    pub fn click(&self, user: &str, message: &Message, button: &str, target: impl Into<Target>) -> Delivery {
        let payload = self.interaction(
            user,
            message,
            |element| {
                (element["type"] == "button")
                    .then(|| shown(&element["text"]))
                    .map(|label| (label, vec![&element["action_id"], &element["value"]]))
            },
            button,
            |element| Ok(payload::button(element)),
        );
        Delivery::new(self, target.into(), Kind::Interaction, payload, After::Nothing)
    }

    /// `user` chooses from a menu of `message`.
    pub fn choose(&self, user: &str, message: &Message, choice: Choice<'_>, target: impl Into<Target>) -> Delivery {
        let payload = self.interaction(
            user,
            message,
            |element| {
                matches!(element["type"].as_str(), Some("static_select" | "overflow"))
                    .then(|| (shown(&element["placeholder"]), vec![&element["action_id"]]))
            },
            choice.menu,
            |element| Ok(payload::choice(element, option(element, choice.option)?)),
        );
        Delivery::new(self, target.into(), Kind::Interaction, payload, After::Nothing)
    }

    /// `user` fills in a modal and submits it; `values` go by label, block id or action id.
    pub fn submit_view(&self, user: &str, view_id: &str, values: &[(&str, &str)], target: impl Into<Target>) -> Delivery {
        let payload = self.core.state.change(|state| {
            let user = state.user(user)?.clone();
            let view = state.views.iter().find(|view| view.id == view_id && view.open).cloned();
            let view = view.ok_or_else(|| anyhow::anyhow!("the modal {view_id} is not open"))?;
            anyhow::ensure!(view.user == user.id, "the modal {view_id} is on the screen of {}, not of {}", view.user, user.id);
            let values = view.fill(values)?;
            Ok(payload::view(&self.core, state, "view_submission", &user, &view, values))
        });
        Delivery::new(self, target.into(), Kind::Interaction, payload, After::View { id: view_id.to_owned() })
    }

    /// `user` closes a modal; the app hears of it only if it asked to be told.
    pub fn close_view(&self, user: &str, view_id: &str, target: impl Into<Target>) -> Delivery {
        let payload = self.core.state.change(|state| {
            let user = state.user(user)?.clone();
            let view = state.views.iter_mut().find(|view| view.id == view_id && view.open && view.user == user.id);
            let view = view.ok_or_else(|| anyhow::anyhow!("the modal {view_id} is not open"))?;
            view.open = false;
            let view = view.clone();
            anyhow::ensure!(view.json["notify_on_close"] == true, "the app did not ask to be told when {view_id} is closed");
            Ok(payload::view(&self.core, state, "view_closed", &user, &view, json!({})))
        });
        Delivery::new(self, target.into(), Kind::Interaction, payload, After::Nothing)
    }

    /// `user` types a slash command in a channel, as in `command("U…", "C…", "/incident", "list", url)`.
    pub fn command(&self, user: &str, channel: &str, command: &str, text: &str, target: impl Into<Target>) -> Delivery {
        let payload = self.core.state.change(|state| {
            let user = state.user(user)?.clone();
            anyhow::ensure!(state.channel(channel).is_ok(), "there is no channel {channel} in this Slack");
            Ok(payload::command(&self.core, state, &user, channel, command, text))
        });
        let after = After::Command { user: user.to_owned(), channel: channel.to_owned() };
        Delivery::new(self, target.into(), Kind::Command, payload, after)
    }

    /// Slack asks a new request URL to prove itself.
    pub fn url_verification(&self, target: impl Into<Target>) -> Delivery {
        let payload = json!({"token": "deprecated-verification-token", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P", "type": "url_verification"});
        Delivery::new(self, target.into(), Kind::Event, Ok(payload), After::Nothing)
    }

    /// An event of the Events API, such as `{"type": "app_mention", …}`, in its envelope.
    pub fn event(&self, event: &Value, target: impl Into<Target>) -> Delivery {
        let payload = self.core.state.change(|state| payload::event(&self.core, state, event));
        Delivery::new(self, target.into(), Kind::Event, Ok(payload), After::Nothing)
    }

    /// `user` writes a message. The app hears of it only through [`FakeSlack::event`].
    ///
    /// # Errors
    /// If there is no such person or channel.
    pub fn say(&self, user: &str, channel: &str, text: &str) -> anyhow::Result<Message> {
        self.core.state.change(|state| {
            let author = state.user(user)?.id.clone();
            anyhow::ensure!(state.channel(channel).is_ok(), "there is no channel {channel} in this Slack");
            let mut message = Message::by(&author, channel, state.next_ts(self.core.time.now()));
            message.text = text.to_owned();
            message.read = true;
            state.messages.push(message.clone());
            Ok(message)
        })
    }

    /// Finds the one element that `wanted` names and makes the payload of acting on it.
    fn interaction<'m>(
        &self,
        user: &str,
        message: &'m Message,
        names: impl Fn(&'m Value) -> Option<(String, Vec<&'m Value>)>,
        wanted: &str,
        action: impl FnOnce(&Value) -> anyhow::Result<Value>,
    ) -> anyhow::Result<Value> {
        let all: Vec<_> = message.elements().into_iter().filter_map(|found| Some((names(found.2)?, found))).collect();
        let exact: Vec<_> = all.iter().filter(|((label, ids), _)| label == wanted || ids.iter().any(|id| *id == wanted)).collect();
        let part: Vec<_> = all.iter().filter(|((label, _), _)| label.contains(wanted)).collect();
        let ((_, _), (attachment, block, element)) = match (exact.as_slice(), part.as_slice()) {
            ([one, ..], _) | ([], [one]) => one,
            _ => anyhow::bail!(
                "nothing to press is called {wanted:?} (or several are); there are {:?} in:\n{}",
                message.buttons(),
                message.visible_text()
            ),
        };
        let action = action(element)?;
        self.core.state.change(|state| {
            let user = state.user(user)?.clone();
            let sees = message.only_for.as_ref().is_none_or(|only| *only == user.id);
            anyhow::ensure!(sees, "{} does not see this ephemeral message", user.id);
            Ok(payload::block_actions(&self.core, state, &user, message, (*attachment, block, action)))
        })
    }
}
