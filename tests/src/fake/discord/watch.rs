//! What tests look at and wait for.

use std::fmt::Write;
use std::time::Duration;

use super::state::State;
use super::{FakeDiscord, Message};

/// One channel or thread, as somebody in it sees it.
pub struct ChannelView {
    discord: FakeDiscord,
    id: String,
}

impl FakeDiscord {
    /// A channel or thread, by id or name.
    pub fn channel(&self, channel: &str) -> ChannelView {
        let named = |state: &mut State| state.channels.iter().find(|known| known.name == channel).map(|known| known.id.clone());
        let id = self.core.state.look(named).unwrap_or_else(|| channel.to_owned());
        ChannelView { discord: self.clone(), id }
    }

    /// The thread that was started from `message`.
    ///
    /// # Errors
    /// If there is none.
    pub fn thread_of(&self, message: &Message) -> anyhow::Result<ChannelView> {
        let there = self.core.state.look(|state| state.channels.iter().any(|known| known.id == message.id && known.parent.is_some()));
        anyhow::ensure!(there, "no thread was started from the message {}", message.id);
        Ok(ChannelView { discord: self.clone(), id: message.id.clone() })
    }

    /// The message as it is now.
    ///
    /// # Errors
    /// If it was deleted.
    pub fn current(&self, message: &Message) -> anyhow::Result<Message> {
        let found = self.core.state.look(|state| state.any_message(&message.id).map(read));
        found.ok_or_else(|| anyhow::anyhow!("the message {} was deleted", message.id))
    }

    /// Waits until the message looks as `test` wants.
    ///
    /// # Errors
    /// If it does not within `within`.
    pub async fn wait_until(&self, message: &Message, test: impl Fn(&Message) -> bool, within: Duration) -> anyhow::Result<Message> {
        let same = |known: &Message| known.id == message.id;
        self.wait(|known| same(known) && test(known), same, within).await
    }

    /// The ephemeral messages that `user` has been shown.
    pub fn ephemerals(&self, user: &str) -> Vec<Message> {
        self.core.state.look(|state| pick(state, |message| message.only_for.as_deref() == Some(user)))
    }

    /// Waits for an ephemeral message to `user`.
    ///
    /// # Errors
    /// If none comes within `within`.
    pub async fn wait_for_ephemeral(&self, user: &str, test: impl Fn(&Message) -> bool, within: Duration) -> anyhow::Result<Message> {
        let theirs = |message: &Message| message.only_for.as_deref() == Some(user);
        self.wait(|message| theirs(message) && test(message), theirs, within).await
    }

    /// Messages of the application that no test has looked at yet, or not since their last edit.
    pub fn unread(&self) -> Vec<Message> {
        self.core.state.look(|state| state.messages.iter().filter(|message| !message.read && !message.deleted).cloned().collect())
    }

    /// How many messages were not created again because their enforced nonce was known.
    pub fn deduplicated(&self) -> usize {
        self.core.state.look(|state| state.deduplicated)
    }

    pub(super) async fn wait(
        &self,
        test: impl Fn(&Message) -> bool,
        near: impl Fn(&Message) -> bool,
        within: Duration,
    ) -> anyhow::Result<Message> {
        let find = |state: &mut State| state.messages.iter_mut().find(|message| !message.deleted && test(message)).map(read);
        match self.core.state.wait(within, find).await {
            Some(message) => Ok(message),
            None => {
                Err(anyhow::anyhow!("no such message within {within:?}; there is:{}", self.core.state.look(|state| listing(state, near))))
            }
        }
    }
}

impl ChannelView {
    /// The channel's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is called.
    pub fn name(&self) -> String {
        let named = |state: &mut State| state.channels.iter().find(|known| known.id == self.id).map(|known| known.name.clone());
        self.discord.core.state.look(named).unwrap_or_default()
    }

    /// The messages in it that everybody sees, oldest first.
    pub fn messages(&self) -> Vec<Message> {
        self.discord.core.state.look(|state| pick(state, |message| message.channel == self.id && message.only_for.is_none()))
    }

    /// Waits for a message in it.
    ///
    /// # Errors
    /// If none comes within `within`; the error lists what is there.
    pub async fn wait_for(&self, test: impl Fn(&Message) -> bool, within: Duration) -> anyhow::Result<Message> {
        let here = |message: &Message| message.channel == self.id && message.only_for.is_none();
        self.discord.wait(|message| here(message) && test(message), here, within).await
    }
}

fn pick(state: &mut State, test: impl Fn(&Message) -> bool) -> Vec<Message> {
    state.messages.iter_mut().filter(|message| !message.deleted && test(message)).map(read).collect()
}

pub(super) fn read(message: &mut Message) -> Message {
    message.read = true;
    message.clone()
}

fn listing(state: &State, near: impl Fn(&Message) -> bool) -> String {
    let mut text = String::new();
    for message in state.messages.iter().filter(|message| near(message) && !message.deleted) {
        // Writing to a string cannot fail.
        let _written =
            write!(text, "\n--- {} ({} edits) in {}\n{}", message.id, message.edits.len(), message.channel, message.visible_text());
    }
    if text.is_empty() { " nothing".to_owned() } else { text }
}
