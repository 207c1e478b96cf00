//! A message as Discord keeps it, and what a person sees of it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::json::{items, string};
use super::markdown::{self, Link, Mention, Rendered};
use super::objects::bot_user;
use super::state::State;
use super::{Config, User};

/// Bits of a message's `flags`.
pub(super) mod flags {
    pub(in super::super) const SUPPRESS_EMBEDS: u64 = 1 << 2;
    pub(in super::super) const EPHEMERAL: u64 = 1 << 6;
    pub(in super::super) const SUPPRESS_NOTIFICATIONS: u64 = 1 << 12;
}

/// A message, an ephemeral one included. A copy: ask the fake again for a later state.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its snowflake.
    pub id: String,
    /// The channel or thread it is in.
    pub channel: String,
    /// Who wrote it: the bot's or a person's id.
    pub author: String,
    /// The text as sent.
    pub content: String,
    /// The embeds as sent.
    pub embeds: Vec<Value>,
    /// The component rows as sent.
    pub components: Vec<Value>,
    /// The files sent along.
    pub files: Vec<File>,
    /// The only person who sees it, for an ephemeral message.
    pub only_for: Option<String>,
    /// The message it replies to.
    pub reply_to: Option<String>,
    /// The nonce it was created with.
    pub nonce: Option<Value>,
    /// Earlier versions, oldest first.
    pub edits: Vec<Version>,
    /// Whether it was deleted since.
    pub deleted: bool,
    pub(super) flags: u64,
    pub(super) allowed_mentions: Option<Value>,
    /// The interaction it follows up on.
    pub(super) interaction: Option<String>,
    pub(super) made: Timestamp,
    pub(super) read: bool,
}

/// What a message said before it was edited.
#[derive(Clone, Debug)]
pub struct Version {
    /// When it was replaced, by Discord's clock.
    pub until: Timestamp,
    /// The text of then.
    pub content: String,
    /// The embeds of then.
    pub embeds: Vec<Value>,
    /// The rows of then.
    pub components: Vec<Value>,
}

/// A file sent with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// A button as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Button {
    /// Its label, or the name of its emoji.
    pub label: String,
    /// What it carries; empty for a link.
    pub custom_id: String,
    /// 1 primary, 2 secondary, 3 success, 4 danger, 5 link.
    pub style: u64,
    /// Where it leads, for a link.
    pub url: Option<String>,
    /// Whether it is greyed out.
    pub disabled: bool,
}

/// A menu to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    /// Its placeholder.
    pub placeholder: String,
    /// What it carries.
    pub custom_id: String,
    /// Labels and values, in order.
    pub options: Vec<(String, String)>,
    /// Whether it is greyed out.
    pub disabled: bool,
}

impl Message {
    pub(super) fn new(id: String, channel: &str, author: &str, now: Timestamp) -> Self {
        Self {
            id,
            channel: channel.to_owned(),
            author: author.to_owned(),
            content: String::new(),
            embeds: Vec::new(),
            components: Vec::new(),
            files: Vec::new(),
            only_for: None,
            reply_to: None,
            nonce: None,
            edits: Vec::new(),
            deleted: false,
            flags: 0,
            allowed_mentions: None,
            interaction: None,
            made: now,
            read: false,
        }
    }

    /// Takes over what `form` gives; what it does not name stays.
    pub(super) fn set(&mut self, form: &Value, files: &[File]) {
        if let Some(content) = form.get("content") {
            self.content = string(content);
        }
        if let Some(embeds) = form.get("embeds") {
            self.embeds = items(embeds).to_vec();
        }
        if let Some(components) = form.get("components") {
            self.components = items(components).to_vec();
        }
        if let Some(allowed) = form.get("allowed_mentions") {
            self.allowed_mentions = Some(allowed.clone()).filter(|allowed| !allowed.is_null());
        }
        self.files.extend_from_slice(files);
        self.read = false;
    }

    pub(super) fn edit(&mut self, form: &Value, files: &[File], now: Timestamp) {
        let before =
            Version { until: now, content: self.content.clone(), embeds: self.embeds.clone(), components: self.components.clone() };
        self.edits.push(before);
        self.set(form, files);
    }

    /// All text that a person sees in it, one line per part: content, embeds, labels. Escapes are resolved, other marks stay.
    pub fn visible_text(&self) -> String {
        self.rendered().text
    }

    /// Whom it pings: what the content mentions as far as `allowed_mentions` lets it; embeds never ping.
    pub fn mentions(&self) -> Vec<Mention> {
        markdown::mentions(&self.content, self.allowed_mentions.as_ref())
    }

    /// Everything in it that can be followed by a click.
    pub fn links(&self) -> Vec<Link> {
        let mut links = self.rendered().links;
        links.extend(self.buttons().into_iter().filter_map(|button| Some(Link { url: button.url?, label: button.label })));
        links
    }

    /// The buttons, in order.
    pub fn buttons(&self) -> Vec<Button> {
        self.parts().into_iter().filter(|part| part["type"] == 2).map(button).collect()
    }

    /// The menus, in order.
    pub fn menus(&self) -> Vec<Menu> {
        self.parts().into_iter().filter(|part| part["type"] == 3).map(menu).collect()
    }

    /// The colour of the first embed.
    pub fn color(&self) -> Option<u64> {
        self.embeds.first().and_then(|embed| embed["color"].as_u64())
    }

    /// Whether it notifies nobody (`SUPPRESS_NOTIFICATIONS`).
    pub fn is_silent(&self) -> bool {
        self.flags & flags::SUPPRESS_NOTIFICATIONS != 0
    }

    /// The components in all rows.
    pub(super) fn parts(&self) -> Vec<&Value> {
        self.components.iter().flat_map(|row| items(&row["components"])).collect()
    }

    /// The message as the API returns it.
    pub(super) fn json(&self, config: &Config, state: &State) -> Value {
        let known = |id: &String| state.users.iter().find(|user| user.id == *id).map(User::json);
        let author = known(&self.author).unwrap_or_else(|| bot_user(config).json());
        let (mut users, mut roles, mut everyone) = (Vec::new(), Vec::new(), false);
        for mention in self.mentions() {
            match mention {
                Mention::User(id) => users.extend(known(&id)),
                Mention::Role(id) => roles.push(id),
                Mention::Everyone(_) => everyone = true,
            }
        }
        let files = self.files.iter().enumerate().map(|(index, file)| {
            let url = format!("https://cdn.example/{}/{}", self.id, file.name);
            json!({"id": format!("{}{index}", self.id), "filename": file.name, "size": file.bytes.len(), "url": url, "proxy_url": url})
        });
        let embeds: Vec<Value> = self.embeds.iter().map(complete_embed).collect();
        json!({
            "id": self.id, "channel_id": self.channel, "type": if self.reply_to.is_some() { 19 } else { 0 }, "author": author, "content": self.content,
            "timestamp": self.made.to_string(), "edited_timestamp": self.edits.last().map(|last| last.until.to_string()), "tts": false,
            "mention_everyone": everyone, "mentions": users, "mention_roles": roles, "mention_channels": [], "attachments": files.collect::<Vec<_>>(),
            "embeds": embeds, "components": self.components, "pinned": false, "flags": self.flags, "nonce": self.nonce, "reactions": [],
            "message_reference": self.reply_to.as_ref().map(|id| json!({"type": 0, "message_id": id, "channel_id": self.channel, "guild_id": config.guild_id}))
        })
    }

    fn rendered(&self) -> Rendered {
        let mut all = Rendered::default();
        all.line(markdown::render(&self.content));
        for embed in &self.embeds {
            all.plain(&embed["author"]["name"]);
            all.line(markdown::render(&string(&embed["title"])));
            all.line(markdown::render(&string(&embed["description"])));
            for field in items(&embed["fields"]) {
                all.line(markdown::render(&string(&field["name"])));
                all.line(markdown::render(&string(&field["value"])));
            }
            all.plain(&embed["footer"]["text"]);
            for url in [&embed["url"], &embed["author"]["url"]] {
                all.links.extend(url.as_str().map(|url| Link { url: url.to_owned(), label: string(&embed["title"]) }));
            }
        }
        for part in self.parts() {
            all.plain(&part["label"]);
            all.plain(&part["placeholder"]);
        }
        all
    }
}

/// Discord says of every embed of a bot that it is rich.
fn complete_embed(embed: &Value) -> Value {
    let mut embed = embed.clone();
    embed["type"] = json!("rich");
    embed
}

fn button(part: &Value) -> Button {
    Button {
        label: part["label"].as_str().or(part["emoji"]["name"].as_str()).unwrap_or_default().to_owned(),
        custom_id: string(&part["custom_id"]),
        style: part["style"].as_u64().unwrap_or_default(),
        url: part["url"].as_str().map(str::to_owned),
        disabled: part["disabled"] == true,
    }
}

fn menu(part: &Value) -> Menu {
    Menu {
        placeholder: string(&part["placeholder"]),
        custom_id: string(&part["custom_id"]),
        options: items(&part["options"]).iter().map(|option| (string(&option["label"]), string(&option["value"]))).collect(),
        disabled: part["disabled"] == true,
    }
}
