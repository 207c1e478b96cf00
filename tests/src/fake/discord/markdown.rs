//! Discord's text: escapes, links, and mentions under `allowed_mentions` (discord.com/developers/docs, "Message Formatting", "Allowed Mentions
//! Object").

use serde_json::Value;

use super::super::json::items;

/// Somebody whom a message pings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mention {
    /// One person, by id.
    User(String),
    /// A role, by id.
    Role(String),
    /// `everyone` or `here`.
    Everyone(String),
}

/// Something to follow by a click.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it leads.
    pub url: String,
    /// What it reads.
    pub label: String,
}

/// Text as a person sees it, and the links in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) links: Vec<Link>,
}

impl Rendered {
    /// Appends another text as a line of its own.
    pub(super) fn line(&mut self, other: Self) {
        self.links.extend(other.links);
        if other.text.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&other.text);
    }

    /// Appends text in which nothing is markup.
    pub(super) fn plain(&mut self, text: &Value) {
        self.line(Self { text: text.as_str().unwrap_or_default().to_owned(), links: Vec::new() });
    }
}

/// The text with escapes resolved and links found; code spans are left alone.
pub(super) fn render(source: &str) -> Rendered {
    let mut out = Rendered::default();
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let taken = code(rest).inspect(|span| out.text.push_str(span)).map(str::len);
        let taken = taken.or_else(|| escape(&mut out, rest)).or_else(|| masked(&mut out, rest)).or_else(|| bare(&mut out, rest));
        let taken = taken.unwrap_or_else(|| {
            out.text.push(next);
            next.len_utf8()
        });
        rest = &rest[taken..];
    }
    out
}

/// Whom `content` pings. What looks like a mention counts wherever it stands: escapes and code spans are the client's affair.
pub(super) fn mentions(content: &str, allowed: Option<&Value>) -> Vec<Mention> {
    let mut found = Vec::new();
    for (at, _) in content.match_indices("<@") {
        let Some(end) = content[at..].find('>') else { continue };
        let inside = &content[at + 2..at + end];
        let (role, id) = inside.strip_prefix('&').map_or((false, inside.trim_start_matches('!')), |id| (true, id));
        if !id.is_empty() && id.chars().all(|c| c.is_ascii_digit()) {
            found.push(if role { Mention::Role(id.to_owned()) } else { Mention::User(id.to_owned()) });
        }
    }
    found.extend(
        ["everyone", "here"]
            .into_iter()
            .filter(|name| content.contains(&format!("@{name}")))
            .map(|name| Mention::Everyone(name.to_owned())),
    );
    found.retain(|mention| {
        let Some(allowed) = allowed else { return true };
        let parses = |kind: &str| items(&allowed["parse"]).iter().any(|parsed| parsed == kind);
        let lists = |kind: &str, id: &str| items(&allowed[kind]).iter().any(|listed| listed == id);
        match mention {
            Mention::User(id) => parses("users") || lists("users", id),
            Mention::Role(id) => parses("roles") || lists("roles", id),
            Mention::Everyone(_) => parses("everyone"),
        }
    });
    found
}

/// A code span or block at the start of `rest`, with its marks.
fn code(rest: &str) -> Option<&str> {
    let ticks = rest.len() - rest.trim_start_matches('`').len();
    let marks = &rest[..ticks];
    let end = rest[ticks..].find(marks).filter(|_| (1..=3).contains(&ticks))?;
    Some(&rest[..ticks + end + ticks])
}

fn escape(out: &mut Rendered, rest: &str) -> Option<usize> {
    let escaped = rest.strip_prefix('\\')?.chars().next().filter(char::is_ascii_punctuation)?;
    out.text.push(escaped);
    Some(2)
}

/// `[label](url)`; escapes inside the label are resolved.
fn masked(out: &mut Rendered, rest: &str) -> Option<usize> {
    let close = rest.strip_prefix('[')?.find("](")? + 1;
    let end = rest[close..].find(')')? + close;
    let url = rest[close + 2..end].trim_matches(['<', '>']).split_whitespace().next()?;
    if !is_url(url) || rest[..close].contains('\n') {
        return None;
    }
    let label = render(&rest[1..close]).text;
    out.text.push_str(&label);
    out.links.push(Link { url: url.to_owned(), label });
    Some(end + 1)
}

/// An address by itself, in angle brackets or not.
fn bare(out: &mut Rendered, rest: &str) -> Option<usize> {
    let (open, inside) = rest.strip_prefix('<').map_or((0, rest), |inside| (1, inside));
    if !is_url(inside) {
        return None;
    }
    let length = inside.find(|c: char| c.is_whitespace() || "<>\"".contains(c)).unwrap_or(inside.len());
    let url = if open == 1 { &inside[..length] } else { inside[..length].trim_end_matches([')', ']', '.', ',', ';', '*', '`']) };
    out.text.push_str(url);
    out.links.push(Link { url: url.to_owned(), label: url.to_owned() });
    let closed = open == 1 && inside[length..].starts_with('>');
    Some(open + url.len() + usize::from(closed))
}

fn is_url(text: &str) -> bool {
    let start = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    start.starts_with("http://") || start.starts_with("https://")
}
