//! What tests look at and wait for.

use std::fmt::Write;
use std::time::Duration;

use super::state::State;
use super::{FakeSlack, Message, View};

/// One channel, as somebody in it sees it.
pub struct ChannelView {
    slack: FakeSlack,
    id: String,
}

impl FakeSlack {
    /// A channel, by id or name.
    pub fn channel(&self, channel: &str) -> ChannelView {
        let named = |state: &mut State| state.channels.iter().find(|known| known.name == channel).map(|known| known.id.clone());
        let id = self.core.state.look(named).unwrap_or_else(|| channel.to_owned());
        ChannelView { slack: self.clone(), id }
    }

    /// The message as it is now.
    ///
    /// # Errors
    /// If it was deleted.
    pub fn current(&self, message: &Message) -> anyhow::Result<Message> {
        let same = |known: &&mut Message| known.channel == message.channel && known.ts == message.ts && !known.deleted;
        self.core
            .state
            .look(|state| state.messages.iter_mut().find(same).map(read))
            .ok_or_else(|| anyhow::anyhow!("the message {} was deleted", message.ts))
    }

    /// Waits until the message looks as `test` wants.
    ///
    /// # Errors
    /// If it does not within `within`.
    pub async fn wait_until(&self, message: &Message, test: impl Fn(&Message) -> bool, within: Duration) -> anyhow::Result<Message> {
        let same = |known: &Message| known.channel == message.channel && known.ts == message.ts;
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

    /// Waits for a modal on `user`'s screen.
    ///
    /// # Errors
    /// If none opens within `within`.
    pub async fn wait_for_view(&self, user: &str, within: Duration) -> anyhow::Result<View> {
        let find = |state: &mut State| state.views.iter().rev().find(|view| view.user == user && view.open).cloned();
        self.core.state.wait(within, find).await.ok_or_else(|| anyhow::anyhow!("no modal opened for {user} within {within:?}"))
    }

    /// The modal as it is now.
    pub fn view(&self, id: &str) -> Option<View> {
        self.core.state.look(|state| state.views.iter().find(|view| view.id == id).cloned())
    }

    /// Messages of the app that no test has looked at yet, or not since their last edit.
    pub fn unread(&self) -> Vec<Message> {
        self.core.state.look(|state| state.messages.iter().filter(|message| !message.read && !message.deleted).cloned().collect())
    }

    async fn wait(&self, test: impl Fn(&Message) -> bool, near: impl Fn(&Message) -> bool, within: Duration) -> anyhow::Result<Message> {
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

    /// The messages in the channel itself, oldest first, with the replies that were broadcast.
    pub fn messages(&self) -> Vec<Message> {
        self.pick(|message| message.thread_ts.is_none() || message.broadcast)
    }

    /// The replies in the thread of `parent`, oldest first.
    pub fn thread(&self, parent: &Message) -> Vec<Message> {
        self.pick(|message| message.thread_ts.as_ref() == Some(&parent.ts))
    }

    /// Waits for a message in the channel or one of its threads.
    ///
    /// # Errors
    /// If none comes within `within`; the error lists what is there.
    pub async fn wait_for(&self, test: impl Fn(&Message) -> bool, within: Duration) -> anyhow::Result<Message> {
        let here = |message: &Message| message.channel == self.id && message.only_for.is_none();
        self.slack.wait(|message| here(message) && test(message), here, within).await
    }

    /// Waits for a reply in the thread of `parent`.
    ///
    /// # Errors
    /// If none comes within `within`.
    pub async fn wait_for_reply(&self, parent: &Message, test: impl Fn(&Message) -> bool, within: Duration) -> anyhow::Result<Message> {
        self.wait_for(|message| message.thread_ts.as_ref() == Some(&parent.ts) && test(message), within).await
    }

    fn pick(&self, test: impl Fn(&Message) -> bool) -> Vec<Message> {
        self.slack.core.state.look(|state| pick(state, |message| message.channel == self.id && message.only_for.is_none() && test(message)))
    }
}

fn pick(state: &mut State, test: impl Fn(&Message) -> bool) -> Vec<Message> {
    state.messages.iter_mut().filter(|message| !message.deleted && test(message)).map(read).collect()
}

fn read(message: &mut Message) -> Message {
    message.read = true;
    message.clone()
}

fn listing(state: &State, near: impl Fn(&Message) -> bool) -> String {
    let mut text = String::new();
    for message in state.messages.iter().filter(|message| near(message) && !message.deleted) {
        // Writing to a string cannot fail.
        let _written = write!(
            text,
            "\n--- {} ({} edits) in thread {:?}\n{}",
            message.ts,
            message.edits.len(),
            message.thread_ts,
            message.visible_text()
        );
    }
    if text.is_empty() { " nothing".to_owned() } else { text }
}
