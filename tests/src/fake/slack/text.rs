//! Slack's text: entities, `<…>` tokens, and what Slack finds by itself in text that is not `verbatim`
//! (docs.slack.dev, "Formatting message text" and "Text object").

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Somebody whom a message notifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mention {
    /// One person, by id.
    User(String),
    /// A user group, by id.
    Group(String),
    /// `here`, `channel` or `everyone`.
    Everybody(String),
}

/// Something to follow by a click.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it leads.
    pub url: String,
    /// What it reads.
    pub label: String,
}

/// Text as a person sees it, and what in it acts.
#[derive(Clone, Debug, Default)]
pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) mentions: Vec<Mention>,
    pub(super) links: Vec<Link>,
}

/// What Slack does with text on its own account.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// Turns addresses into links.
    pub(super) links: bool,
    /// Turns `@here` and its like into mentions and `#name` into a channel link.
    pub(super) names: bool,
}

impl Rules {
    /// A `mrkdwn` object: "URLs will be auto-converted into links, conversation names will be link-ified, and certain mentions will be
    /// automatically parsed".
    pub(super) const MRKDWN: Self = Self { links: true, names: true };
    /// A `mrkdwn` object with `verbatim`: only what is written as a token acts.
    pub(super) const VERBATIM: Self = Self { links: false, names: false };

    pub(super) fn render(self, source: &str) -> Rendered {
        let mut out = Rendered::default();
        let mut rest = source;
        while let Some(open) = rest.find('<') {
            self.plain(&mut out, &rest[..open]);
            let inside = &rest[open + 1..];
            match inside.find(['>', '<', '\n']).filter(|end| inside[*end..].starts_with('>')) {
                Some(end) if out.token(&inside[..end]) => rest = &inside[end + 1..],
                _ => {
                    out.text.push('<');
                    rest = inside;
                }
            }
        }
        self.plain(&mut out, rest);
        out
    }

    fn plain(self, out: &mut Rendered, source: &str) {
        let text = unescape(source);
        for word in text.split_whitespace() {
            let bare = word.trim_matches(|c: char| "()[]{}*_~`'\",.;:!?".contains(c));
            let lower = bare.to_ascii_lowercase();
            if self.links && ["http://", "https://", "www.", "mailto:"].iter().any(|start| lower.find(start).is_some()) {
                out.links.push(Link { url: bare.to_owned(), label: bare.to_owned() });
            }
            if self.names {
                match lower.as_str() {
                    "@here" | "@channel" | "@everyone" => out.mentions.push(Mention::Everybody(lower[1..].to_owned())),
                    name if name.len() > 1 && name.starts_with('#') && name[1..].chars().all(|c| c.is_ascii_lowercase() || c == '-') => {
                        out.links.push(Link { url: bare.to_owned(), label: bare.to_owned() });
                    }
                    _ => {}
                }
            }
        }
        out.text.push_str(&text);
    }
}

impl Rendered {
    /// A `plain_text` object: nothing in it acts.
    pub(super) fn plain(source: &str) -> Self {
        Self { text: unescape(source), ..Self::default() }
    }

    /// Appends another text as a line of its own.
    pub(super) fn line(&mut self, other: Self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&other.text);
        self.mentions.extend(other.mentions);
        self.links.extend(other.links);
    }

    pub(super) fn mention(&mut self, mention: Mention) {
        match &mention {
            Mention::User(name) | Mention::Group(name) | Mention::Everybody(name) => {
                self.text.push('@');
                self.text.push_str(name);
            }
        }
        self.mentions.push(mention);
    }

    /// Renders the inside of `<…>`; `false` if it is no token, so that the angle brackets are text.
    fn token(&mut self, inside: &str) -> bool {
        let (target, label) = inside.split_once('|').map_or((inside, None), |(target, label)| (target, Some(unescape(label))));
        if let Some(user) = target.strip_prefix('@') {
            self.mention(Mention::User(user.to_owned()));
        } else if let Some(channel) = target.strip_prefix('#') {
            let label = format!("#{}", label.unwrap_or_else(|| channel.to_owned()));
            self.text.push_str(&label);
            self.links.push(Link { url: target.to_owned(), label });
        } else if let Some(special) = target.strip_prefix('!') {
            self.special(special, label);
        } else if !target.is_empty() && !target.contains(char::is_whitespace) && target.contains([':', '.']) {
            let url = unescape(target);
            let label = label.unwrap_or_else(|| url.clone());
            self.text.push_str(&label);
            self.links.push(Link { url, label });
        } else {
            return false;
        }
        true
    }

    fn special(&mut self, special: &str, label: Option<String>) {
        if let Some(group) = special.strip_prefix("subteam^") {
            self.mention(Mention::Group(group.to_owned()));
        } else if let Some(date) = special.strip_prefix("date^") {
            let mut parts = date.splitn(3, '^');
            let (seconds, format, link) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
            let text = date_text(seconds, format).or(label).unwrap_or_default();
            self.text.push_str(&text);
            self.links.extend(link.map(|url| Link { url: url.to_owned(), label: text }));
        } else if matches!(special, "here" | "channel" | "everyone" | "group") {
            self.mention(Mention::Everybody(special.to_owned()));
        } else {
            self.text.push_str(&label.unwrap_or_else(|| special.to_owned()));
        }
    }
}

/// Decodes the three entities that Slack knows.
pub(super) fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// A date token for a reader in UTC; `None` where the format has none of Slack's placeholders or the time is none.
fn date_text(seconds: &str, format: &str) -> Option<String> {
    let at = Timestamp::from_second(seconds.parse().ok()?).ok()?.to_zoned(TimeZone::UTC);
    let known = [
        ("{date_num}", "%Y-%m-%d"),
        ("{date_slash}", "%d/%m/%Y"),
        ("{date_short_pretty}", "%b %-d, %Y"),
        ("{date_long_pretty}", "%A, %B %-d, %Y"),
        ("{date_pretty}", "%B %-d, %Y"),
        ("{date_short}", "%b %-d, %Y"),
        ("{date_long}", "%A, %B %-d, %Y"),
        ("{date}", "%B %-d, %Y"),
        ("{time_secs}", "%H:%M:%S"),
        ("{time}", "%H:%M"),
        ("{ago}", "%Y-%m-%d %H:%M"),
    ];
    if !known.iter().any(|(name, _)| format.contains(name)) {
        return None;
    }
    Some(known.iter().fold(format.to_owned(), |text, (name, pattern)| text.replace(name, &at.strftime(pattern).to_string())))
}
