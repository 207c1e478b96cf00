//! A card as Block Kit: a header, then a coloured bar with the facts, then one with what is asked and the buttons.
//!
//! What others wrote stands in `plain_text` objects and in `rich_text` leaves, which Slack never parses. The one `mrkdwn` text is ours alone.

use domain::card::{ApprovalCard, Button, ButtonStyle, Card, Message};
use jiff::Timestamp;
use slack_morphism::blocks::*;
use slack_morphism::{SlackDateTime, SlackMessageAttachment, SlackMessageContent};

use crate::fit::{self, Limits};

/// Slack's limits (docs.slack.dev, "Block Kit reference"), and ours below them where a card should stay readable.
const LIMITS: Limits = Limits {
    title: 140,
    summary: 2_000,
    facts: (12, 40, 300),
    alerts: (10, 400),
    automation: (8, 400),
    steps: (20, 600),
    links: 8,
    total: 12_000,
    cost,
};
/// A header block, a button's label, and the texts of a confirmation.
const HEADER: usize = 150;
const LABEL: usize = 75;
const CONFIRM: (usize, usize) = (300, 30);
/// Buttons of one actions block.
const BUTTONS: usize = 25;
/// A section's text and a leaf of rich text.
const TEXT: usize = 3_000;

/// The content of a card's message. Every part is always there, because `chat.update` leaves alone what it is not given.
pub(super) fn card(card: &Card) -> SlackMessageContent {
    let card = fit::card(card, &LIMITS);
    let head = format!("{} [{}] #{} {}", card.state.emoji(), card.severity, card.number, card.title);
    let header = SlackHeaderBlock::new(plain(&head, HEADER).into());
    let bars = [about(&card), asked(&card)].map(|blocks| bar(&card, blocks));
    let content = SlackMessageContent::new().with_text(fallback(&card)).with_blocks(vec![header.into()]);
    content.with_attachments(bars.into_iter().flatten().collect())
}

/// The content of a plain message.
pub(super) fn message(message: &Message) -> SlackMessageContent {
    let (text, block) = fit::message(message, TEXT, TEXT, cost);
    let text = if text.trim().is_empty() { "–".to_owned() } else { text };
    let mut blocks = vec![said(&text)];
    blocks.extend(block.map(|block| rich(vec![fixed(block)])));
    SlackMessageContent::new().with_text(escape(&text)).with_blocks(blocks)
}

/// The content of an answer to one person.
pub(super) fn words(text: &str) -> SlackMessageContent {
    let at = Timestamp::UNIX_EPOCH;
    message(&Message { text: text.to_owned(), block: None, at })
}

/// A `plain_text` object of at most `max` characters as Slack counts them.
pub(super) fn plain(text: &str, max: usize) -> SlackBlockPlainText {
    let line = fit::line(text, max, cost);
    SlackBlockPlainText::new(escape(if line.is_empty() { "–" } else { &line })).with_emoji(false)
}

/// Slack's three special characters (docs.slack.dev, "Escaping text").
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// How long [`escape`] makes a character.
pub(super) fn cost(c: char) -> usize {
    match c {
        '&' => 5,
        '<' | '>' => 4,
        _ => 1,
    }
}

/// What a notification and a screen reader get.
fn fallback(card: &Card) -> String {
    let asks = match &card.approval {
        Some(asked) if asked.expires_at.is_some() => format!("; approval needed: {}", asked.runbook),
        _ => String::new(),
    };
    escape(&format!("{} [{}] #{} {} ({}{asks})", card.state.emoji(), card.severity, card.number, card.title, card.state.as_str()))
}

fn bar(card: &Card, blocks: Vec<SlackBlock>) -> Option<SlackMessageAttachment> {
    let colour = format!("#{:06x}", card.state.colour());
    (!blocks.is_empty()).then(|| SlackMessageAttachment::new().with_color(colour).with_fallback(fallback(card)).with_blocks(blocks))
}

/// What is known: facts, summary, alerts, automation.
fn about(card: &Card) -> Vec<SlackBlock> {
    let mut blocks = Vec::new();
    if !card.fields.is_empty() {
        let last = card.fields.len() - 1;
        let line = |(index, (name, value)): (usize, &(String, String))| [bold(&format!("{name}: ")), leaf(&ended(value, index < last))];
        blocks.push(rich(vec![section(card.fields.iter().enumerate().flat_map(line).collect())]));
    }
    if !card.summary.trim().is_empty() {
        blocks.push(said(&card.summary));
    }
    if !card.alerts.is_empty() || card.alerts_more > 0 {
        let line = |alert: &domain::card::CardAlert| {
            let (sign, word) = if alert.active { ("🔥", "since") } else { ("✅", "ended") };
            vec![leaf(&format!("{sign} {} · {word} ", alert.text)), date(alert.since)]
        };
        let mut parts = vec![section(vec![bold("Alerts")])];
        parts.extend(list(card.alerts.iter().map(line).collect()));
        parts.extend((card.alerts_more > 0).then(|| section(vec![leaf(&format!("+{} more", card.alerts_more))])));
        blocks.push(rich(parts));
    }
    if !card.automation.is_empty() {
        let mut parts = vec![section(vec![bold("Automation")])];
        parts.extend(list(card.automation.iter().map(|line| vec![leaf(line)]).collect()));
        blocks.push(rich(parts));
    }
    blocks
}

/// What is asked: the approval with exactly what would run, the buttons, the links, the times.
fn asked(card: &Card) -> Vec<SlackBlock> {
    let mut blocks: Vec<SlackBlock> = card.approval.iter().map(approval).collect();
    let buttons: Vec<SlackActionBlockElement> = card.buttons.iter().take(BUTTONS).enumerate().map(|(at, it)| button(at, it).into()).collect();
    if !buttons.is_empty() {
        blocks.push(SlackActionsBlock::new(buttons).into());
    }
    if !card.links.is_empty() {
        let link = |(index, (name, address)): (usize, &(String, String))| {
            let label = if name.is_empty() { address } else { name };
            let link = SlackRichTextLink::new(address.as_str().into()).with_text(label.clone());
            (index > 0).then(|| leaf(" · ")).into_iter().chain([link.into()])
        };
        blocks.push(rich(vec![section(card.links.iter().enumerate().flat_map(link).collect())]));
    }
    let times = format!("{} · opened {} · updated {}", card.state.as_str(), token(card.opened_at), token(card.updated_at));
    let times = SlackBlockMarkDownText::new(times).with_verbatim(true);
    blocks.push(SlackContextBlock::new(vec![SlackContextBlockElement::MarkDown(times)]).into());
    blocks
}

fn approval(asked: &ApprovalCard) -> SlackBlock {
    let title = if asked.expires_at.is_some() { "Approval needed: " } else { "Approval: " };
    let mut parts = vec![section(vec![bold(title), bold(&asked.runbook)])];
    if !asked.steps.is_empty() {
        parts.push(fixed(asked.steps.join("\n")));
    }
    let roles = if asked.roles.is_empty() { String::new() } else { format!(" · may decide: {}", asked.roles.join(", ")) };
    let facts = format!("{} · risk: {} · asked by {}{roles} · plan {}", asked.status, asked.risk, asked.requester, asked.digest);
    let mut line = vec![leaf(&facts)];
    if let Some(until) = asked.expires_at {
        line.extend([leaf(" · until "), date(until)]);
    }
    parts.push(section(line));
    rich(parts)
}

fn button(at: usize, button: &Button) -> SlackBlockButtonElement {
    let id = format!("{}.{at}", button.kind.code());
    let mut element = SlackBlockButtonElement::new(plain(&button.label, LABEL).into()).with_action_id(id.into()).with_value(button.token.clone());
    element.style = match button.style {
        ButtonStyle::Primary => Some(SlackBlockButtonStyle::Primary),
        ButtonStyle::Danger => Some(SlackBlockButtonStyle::Danger),
        ButtonStyle::Plain => None,
    };
    element.confirm = button.confirm.as_ref().map(|question| {
        let (text, yes) = (plain(question, CONFIRM.0), plain(&button.label, CONFIRM.1));
        SlackBlockConfirmItem::new("Are you sure?".into(), text.into(), yes.into(), "Cancel".into())
    });
    element
}

/// A paragraph that others wrote.
fn said(text: &str) -> SlackBlock {
    let text = SlackBlockPlainText::new(escape(&fit::shorten(text, TEXT, cost))).with_emoji(false);
    SlackSectionBlock::new().with_text(text.into()).into()
}

fn rich(parts: Vec<SlackRichTextElement>) -> SlackBlock {
    SlackRichTextBlock::new(parts).into()
}

fn section(leaves: Vec<SlackRichTextInlineElement>) -> SlackRichTextElement {
    SlackRichTextSection::new(leaves).into()
}

fn list(items: Vec<Vec<SlackRichTextInlineElement>>) -> Option<SlackRichTextElement> {
    let items: Vec<SlackRichTextListElement> = items.into_iter().map(|leaves| SlackRichTextSection::new(leaves).into()).collect();
    (!items.is_empty()).then(|| SlackRichTextList::new(SlackRichTextListStyle::Bullet, items).into())
}

/// Text in a fixed width, as it is.
fn fixed(text: String) -> SlackRichTextElement {
    SlackRichTextPreformatted::new(vec![leaf(&fit::shorten(&text, TEXT, |_| 1))]).into()
}

fn leaf(text: &str) -> SlackRichTextInlineElement {
    if text.is_empty() { "–".into() } else { text.into() }
}

fn bold(text: &str) -> SlackRichTextInlineElement {
    SlackRichTextText::new(if text.is_empty() { "–".to_owned() } else { text.to_owned() }).bold().into()
}

fn ended(text: &str, more: bool) -> String {
    if more { format!("{text}\n") } else { text.to_owned() }
}

/// A time as each reader's own zone has it, in rich text.
fn date(at: Timestamp) -> SlackRichTextInlineElement {
    SlackRichTextDate::new(SlackDateTime(at), "{date_short_pretty} {time}".to_owned()).with_fallback(utc(at)).into()
}

/// The same in `mrkdwn`.
fn token(at: Timestamp) -> String {
    format!("<!date^{}^{{date_short_pretty}} {{time}}|{}>", at.as_second(), utc(at))
}

fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
