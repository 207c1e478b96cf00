//! A message as Slack keeps it, and what a person sees of it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::json::items;
use super::content::Content;
use super::parts::{Button, Menu, elements_of};
use super::render::render_block;
use super::text::{Link, Mention, Rendered, Rules};
use super::{Config, Core};

/// A message, an ephemeral one included. A copy: ask the fake again for a later state.
#[derive(Clone, Debug)]
pub struct Message {
    /// The channel's id.
    pub channel: String,
    /// The timestamp that identifies it in its channel.
    pub ts: String,
    /// The thread's parent, for a reply.
    pub thread_ts: Option<String>,
    /// Whether a reply was also sent to the channel.
    pub broadcast: bool,
    /// The only person who sees it, for an ephemeral message.
    pub only_for: Option<String>,
    /// The user who posted it.
    pub author: String,
    /// The text for notifications, as sent.
    pub text: String,
    /// The blocks, as sent and completed with ids.
    pub blocks: Vec<Value>,
    /// The secondary attachments (the coloured bar).
    pub attachments: Vec<Value>,
    /// What the app put beside it for itself.
    pub metadata: Option<Value>,
    /// Earlier versions, oldest first.
    pub edits: Vec<Version>,
    /// The emoji the bot reacted with.
    pub reactions: Vec<String>,
    /// Whether it was deleted since.
    pub deleted: bool,
    pub(super) read: bool,
    pub(super) link_names: bool,
    pub(super) parse_none: bool,
}

/// What a message said before it was edited.
#[derive(Clone, Debug)]
pub struct Version {
    /// When it was replaced, by Slack's clock.
    pub until: Timestamp,
    /// The notification text of then.
    pub text: String,
    /// The blocks of then.
    pub blocks: Vec<Value>,
    /// The attachments of then.
    pub attachments: Vec<Value>,
}

impl Message {
    pub(super) fn by_bot(core: &Core, channel: &str, ts: String, content: Content) -> Self {
        let mut message = Self::by(&core.config.bot_user_id, channel, ts);
        message.set(content);
        message
    }

    pub(super) fn by(author: &str, channel: &str, ts: String) -> Self {
        Self {
            channel: channel.to_owned(),
            ts,
            thread_ts: None,
            broadcast: false,
            only_for: None,
            author: author.to_owned(),
            text: String::new(),
            blocks: Vec::new(),
            attachments: Vec::new(),
            metadata: None,
            edits: Vec::new(),
            reactions: Vec::new(),
            deleted: false,
            read: false,
            link_names: false,
            parse_none: false,
        }
    }

    /// Replaces what `content` gives; blocks and attachments that it does not name stay, as in `chat.update`.
    pub(super) fn edit(&mut self, content: Content, now: Timestamp) {
        let before = Version { until: now, text: self.text.clone(), blocks: self.blocks.clone(), attachments: self.attachments.clone() };
        self.edits.push(before);
        self.set(content);
    }

    fn set(&mut self, content: Content) {
        self.text = content.text.unwrap_or_default();
        self.blocks = content.blocks.unwrap_or_else(|| std::mem::take(&mut self.blocks));
        self.attachments = content.attachments.unwrap_or_else(|| std::mem::take(&mut self.attachments));
        self.metadata = content.metadata.or_else(|| self.metadata.take());
        self.link_names = content.link_names;
        self.parse_none = content.parse_none;
        self.read = false;
    }

    /// All text that a person sees in it, one line per block, field or element; formatting marks stay as they are.
    pub fn visible_text(&self) -> String {
        self.rendered().text
    }

    /// The text of the notification, rendered.
    pub fn notification(&self) -> String {
        self.fallback().text
    }

    /// Whom it really notifies, the notification text included.
    pub fn mentions(&self) -> Vec<Mention> {
        let mut mentions = self.rendered().mentions;
        for mention in self.fallback().mentions {
            if !mentions.contains(&mention) {
                mentions.push(mention);
            }
        }
        mentions
    }

    /// Everything in it that can be followed by a click, link buttons included.
    pub fn links(&self) -> Vec<Link> {
        let mut links = self.rendered().links;
        links.extend(self.buttons().into_iter().filter_map(|button| Some(Link { url: button.url?, label: button.label })));
        links
    }

    /// The buttons, in order.
    pub fn buttons(&self) -> Vec<Button> {
        let buttons = self.elements().into_iter().filter(|(_, _, element)| element["type"] == "button");
        buttons.map(|(_, block, element)| Button::of(block, element)).collect()
    }

    /// The selects and overflow menus, in order.
    pub fn menus(&self) -> Vec<Menu> {
        let menus = self.elements().into_iter().filter(|(_, _, element)| Menu::is(element));
        menus.map(|(_, block, element)| Menu::of(block, element)).collect()
    }

    /// The colour of the bar: the first attachment's.
    pub fn color(&self) -> Option<String> {
        self.attachments.first().and_then(|attachment| attachment["color"].as_str()).map(str::to_owned)
    }

    /// The message as the API returns it.
    pub(super) fn json(&self, config: &Config) -> Value {
        let mut json = json!({"type": "message", "user": self.author, "text": self.text, "ts": self.ts, "team": config.team_id, "blocks": self.blocks});
        if self.author == config.bot_user_id {
            json["bot_id"] = json!(config.bot_id);
            json["app_id"] = json!(config.app_id);
            json["bot_profile"] = json!({
                "id": config.bot_id, "deleted": false, "name": "watchkeeper", "updated": 1_500_000_000, "app_id": config.app_id,
                "user_id": config.bot_user_id, "team_id": config.team_id
            });
        }
        if !self.attachments.is_empty() {
            json["attachments"] = json!(self.attachments);
        }
        if let Some(parent) = &self.thread_ts {
            json["thread_ts"] = json!(parent);
            json["parent_user_id"] = json!(config.bot_user_id);
        }
        if let Some(last) = self.edits.last() {
            let at = last.until.as_microsecond();
            json["edited"] = json!({"user": self.author, "ts": format!("{}.000000", at / 1_000_000)});
        }
        json
    }

    /// Every interactive element with the index of its attachment, if in one, and its block.
    pub(super) fn elements(&self) -> Vec<(Option<usize>, &Value, &Value)> {
        let attached = self
            .attachments
            .iter()
            .enumerate()
            .flat_map(|(index, attachment)| items(&attachment["blocks"]).iter().map(move |block| (Some(index), block)));
        let blocks = self.blocks.iter().map(|block| (None, block)).chain(attached);
        blocks.flat_map(|(index, block)| elements_of(block).into_iter().map(move |element| (index, block, element))).collect()
    }

    fn rendered(&self) -> Rendered {
        let mut all = Rendered::default();
        if self.blocks.is_empty() {
            all.line(self.fallback());
        }
        self.blocks.iter().for_each(|block| render_block(&mut all, block));
        for attachment in &self.attachments {
            for part in ["pretext", "author_name", "title", "text"] {
                attachment[part].as_str().into_iter().for_each(|text| all.line(Rules::MRKDWN.render(text)));
            }
            for field in items(&attachment["fields"]) {
                ["title", "value"].iter().filter_map(|part| field[*part].as_str()).for_each(|text| all.line(Rules::MRKDWN.render(text)));
            }
            attachment["title_link"]
                .as_str()
                .into_iter()
                .for_each(|url| all.links.push(Link { url: url.to_owned(), label: String::new() }));
            items(&attachment["blocks"]).iter().for_each(|block| render_block(&mut all, block));
            attachment["footer"].as_str().into_iter().for_each(|text| all.line(Rules::MRKDWN.render(text)));
        }
        all
    }

    fn fallback(&self) -> Rendered {
        Rules { links: !self.parse_none, names: self.link_names }.render(&self.text)
    }
}
