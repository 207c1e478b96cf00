//! A card as embeds: one with what is known, one with what is asked, and rows of buttons. What others wrote is escaped or stands in a
//! fixed-width block; nobody is ever mentioned.

use domain::card::{ApprovalCard, Button, ButtonKind, ButtonStyle, Card, CardAlert, Message};
use domain::text::clean_line;
use jiff::Timestamp;
use serenity::builder::{
    CreateActionRow, CreateAllowedMentions, CreateButton, CreateEmbed, CreateEmbedFooter, CreateInputText, CreateInteractionResponseFollowup,
    CreateInteractionResponseMessage, CreateMessage, CreateModal, EditMessage,
};
use serenity::model::application::{ButtonStyle as Style, InputTextStyle};

use super::escape::{cost, escape, fence, fence_cost};
use crate::fit::{self, Limits};

/// Discord's limits (its documentation, "Message Create", "Embed Limits", "Component Object"), and ours below them.
const LIMITS: Limits = Limits {
    title: 200,
    summary: 1_500,
    facts: (25, 60, 300),
    alerts: (10, 400),
    automation: (6, 400),
    steps: (12, 300),
    links: 5,
    total: 5_600,
    cost,
};
/// A message's content, an embed's description, a button's label.
const CONTENT: usize = 2_000;
const DESCRIPTION: usize = 4_096;
const LABEL: usize = 80;
/// What a button may carry.
const CUSTOM_ID: usize = 100;
/// Rows of a message, and buttons of a row.
const ROWS: usize = 5;
const COLUMNS: usize = 5;

/// In front of the token of a button that asks first: Discord has no dialog for it, so an answer with two buttons asks.
pub(super) const ASKS_FIRST: char = '?';
/// In front of the card's message id and the token, on the button that confirms.
pub(super) const CONFIRMS: char = '!';
/// What the button carries that takes it back.
pub(super) const CANCELS: &str = "x";
/// The field of the dialog that asks why.
pub(super) const REASON: &str = "reason";

/// A new card.
pub(super) fn card(card: &Card) -> CreateMessage {
    let parts = parts(card);
    CreateMessage::new().content(parts.content).embeds(parts.embeds).components(parts.rows).allowed_mentions(nobody())
}

/// A card's newest state. Every part is given, so that what is over disappears.
pub(super) fn edit(card: &Card) -> EditMessage {
    let parts = parts(card);
    EditMessage::new().content(parts.content).embeds(parts.embeds).components(parts.rows).allowed_mentions(nobody())
}

/// A plain message.
pub(super) fn message(message: &Message) -> CreateMessage {
    let (text, _) = fit::message(message, CONTENT, 0, cost);
    let (_, block) = fit::message(message, 0, DESCRIPTION - 10, fence_cost);
    let embed = block.map(|block| CreateEmbed::new().description(fence(&block)));
    let text = if text.trim().is_empty() && embed.is_none() { "–".to_owned() } else { escape(&text) };
    CreateMessage::new().content(text).embeds(embed.into_iter().collect()).allowed_mentions(nobody())
}

/// A word to one person, later than the answer to Discord.
pub(super) fn whisper(text: &str) -> CreateInteractionResponseFollowup {
    CreateInteractionResponseFollowup::new().content(words(text)).ephemeral(true).allowed_mentions(nobody())
}

/// A word to one person, at once.
pub(super) fn aside(text: &str) -> CreateInteractionResponseMessage {
    CreateInteractionResponseMessage::new().content(words(text)).ephemeral(true).allowed_mentions(nobody())
}

/// Asks once more, before the button of the card `message` acts.
pub(super) fn question(kind: ButtonKind, message: &str, token: &str) -> CreateInteractionResponseMessage {
    let yes = CreateButton::new(format!("{CONFIRMS}{message}:{token}")).label("Confirm").style(Style::Danger);
    let no = CreateButton::new(CANCELS).label("Cancel").style(Style::Secondary);
    let text = format!("Really {}? This cannot be taken back. The card says what exactly would happen.", kind.code());
    aside(&text).components(vec![CreateActionRow::Buttons(vec![yes, no])])
}

/// Takes the place of a question that was answered.
pub(super) fn answered(text: &str) -> CreateInteractionResponseMessage {
    CreateInteractionResponseMessage::new().content(words(text)).components(Vec::new()).allowed_mentions(nobody())
}

/// The dialog that asks why; it carries the button's token.
pub(super) fn dialog(kind: ButtonKind, token: &str) -> CreateModal {
    let input = CreateInputText::new(InputTextStyle::Paragraph, kind.asks(), REASON).max_length(1_000).required(true);
    CreateModal::new(token, kind.question()).components(vec![CreateActionRow::InputText(input)])
}

struct Parts {
    content: String,
    embeds: Vec<CreateEmbed>,
    rows: Vec<CreateActionRow>,
}

fn parts(card: &Card) -> Parts {
    let card = fit::card(card, &LIMITS);
    let asks = card.approval.as_ref().is_some_and(|asked| asked.expires_at.is_some());
    let asks = if asks { " · approval needed" } else { "" };
    let head = format!("{} {}{asks}", card.state.emoji(), bold(&format!("[{}] #{} {}", card.severity, card.number, card.title)));
    let embeds = std::iter::once(about(&card)).chain(card.approval.as_ref().map(|asked| approval(&card, asked))).collect();
    Parts { content: head, embeds, rows: rows(&card.buttons) }
}

/// What is known: state, summary, alerts, automation, links; the facts beside.
fn about(card: &Card) -> CreateEmbed {
    let mut text = Description(format!("{} · opened {}", bold(card.state.as_str()), ago(card.opened_at)));
    if !card.summary.trim().is_empty() {
        text.add(&escape(&card.summary));
    }
    if !card.alerts.is_empty() || card.alerts_more > 0 {
        text.add(&bold("Alerts"));
        card.alerts.iter().for_each(|alert| text.add(&alert_line(alert)));
        if card.alerts_more > 0 {
            text.add(&format!("\\+{} more", card.alerts_more));
        }
    }
    if !card.automation.is_empty() {
        text.add(&bold("Automation"));
        card.automation.iter().for_each(|line| text.add(&format!("• {}", escape(line))));
    }
    // The address is shown, never hidden behind a name that others chose.
    card.links.iter().for_each(|(name, address)| text.add(&format!("{}: <{address}>", escape(name))));
    let facts = card.fields.iter().map(|(name, value)| (shown(name), shown(value), true));
    let footer = CreateEmbedFooter::new(format!("Incident #{}", card.number));
    let embed = CreateEmbed::new().colour(card.state.colour()).description(text.0).fields(facts).footer(footer);
    match serenity::model::Timestamp::from_unix_timestamp(card.updated_at.as_second()) {
        Ok(at) => embed.timestamp(at),
        Err(_) => embed,
    }
}

/// What is asked: exactly what would run, and who may decide until when.
fn approval(card: &Card, asked: &ApprovalCard) -> CreateEmbed {
    let title = if asked.expires_at.is_some() { "Approval needed" } else { "Approval" };
    let mut text = Description(format!("{} {}", bold(&format!("{title}:")), shown(&asked.runbook)));
    if !asked.steps.is_empty() {
        text.add(&fence(&asked.steps.join("\n")));
    }
    let roles = if asked.roles.is_empty() { String::new() } else { format!(" · may decide: {}", escape(&asked.roles.join(", "))) };
    let (status, risk, who, digest) = (escape(&asked.status), escape(&asked.risk), escape(&asked.requester), escape(&asked.digest));
    text.add(&format!("{status} · risk: {risk} · asked by {who}{roles} · plan {digest}"));
    if let Some(until) = asked.expires_at {
        text.add(&format!("expires {}", ago(until)));
    }
    CreateEmbed::new().colour(card.state.colour()).description(text.0)
}

fn alert_line(alert: &CardAlert) -> String {
    let (sign, word) = if alert.active { ("🔥", "since") } else { ("✅", "ended") };
    format!("{sign} {} · {word} {}", escape(&alert.text), ago(alert.since))
}

/// Rows of buttons; what does not fit into five rows of five, or is there twice, Discord would refuse.
fn rows(buttons: &[Button]) -> Vec<CreateActionRow> {
    let mut seen = std::collections::BTreeSet::new();
    let fit = |button: &&Button| (1..=CUSTOM_ID).contains(&button.token.chars().count()) && seen.insert(button.token.clone());
    let made: Vec<CreateButton> = buttons.iter().filter(fit).take(ROWS * COLUMNS).map(button).collect();
    made.chunks(COLUMNS).map(|row| CreateActionRow::Buttons(row.to_vec())).collect()
}

fn button(button: &Button) -> CreateButton {
    // Room for the message id that the confirming button also carries.
    let asks = button.confirm.is_some() && button.token.chars().count() + 22 <= CUSTOM_ID;
    let id = if asks { format!("{ASKS_FIRST}{}", button.token) } else { button.token.clone() };
    let style = match button.style {
        ButtonStyle::Primary => Style::Primary,
        ButtonStyle::Plain => Style::Secondary,
        ButtonStyle::Danger => Style::Danger,
    };
    let label = clean_line(&button.label, LABEL);
    CreateButton::new(id).label(if label.trim().is_empty() { "–".to_owned() } else { label }).style(style)
}

/// Lines of an embed, as many as it holds.
struct Description(String);

impl Description {
    fn add(&mut self, line: &str) {
        if self.0.chars().count() + 1 + line.chars().count() <= DESCRIPTION {
            self.0.push('\n');
            self.0.push_str(line);
        }
    }
}

fn words(text: &str) -> String {
    let text = fit::shorten(&domain::text::clean_block(text, CONTENT), CONTENT, cost);
    if text.trim().is_empty() { "–".to_owned() } else { escape(&text) }
}

fn shown(text: &str) -> String {
    if text.trim().is_empty() { "–".to_owned() } else { escape(text) }
}

fn bold(text: &str) -> String {
    format!("**{}**", escape(text))
}

/// A time as each reader's own zone has it.
fn ago(at: Timestamp) -> String {
    format!("<t:{}:R>", at.as_second())
}

fn nobody() -> CreateAllowedMentions {
    CreateAllowedMentions::new()
}
