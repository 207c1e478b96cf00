//! Cuts a card and a message to what a platform can show. A card that is too big loses alerts first, and never fails to be shown.

use domain::card::{ApprovalCard, Card, CardAlert, Message};
use domain::text::{clean_block, clean_line};

/// What a platform can show of a card. Lengths are in characters after escaping, which `cost` counts.
pub(crate) struct Limits {
    pub(crate) title: usize,
    pub(crate) summary: usize,
    /// How many facts, and the lengths of their names and values.
    pub(crate) facts: (usize, usize, usize),
    /// How many alerts, and the length of each.
    pub(crate) alerts: (usize, usize),
    /// How many lines of automation, the newest ones, and the length of each.
    pub(crate) automation: (usize, usize),
    /// How many steps of an approval, and the length of each.
    pub(crate) steps: (usize, usize),
    /// How many links.
    pub(crate) links: usize,
    /// Everything together.
    pub(crate) total: usize,
    /// How many characters a character becomes.
    pub(crate) cost: fn(char) -> usize,
}

/// The longest address that is shown; a longer one would be worth nothing cut.
const ADDRESS: usize = 500;
/// Names of people, runbooks, roles and links.
const NAME: usize = 80;
/// No text is cleaned beyond this: more than any platform shows of one, and the end of a command's output is still in it.
const WHOLE: usize = 1 << 20;

/// The card as it fits.
pub(crate) fn card(card: &Card, limits: &Limits) -> Card {
    let line = |text: &str, max: usize| line(text, max, limits.cost);
    let (count, name, value) = limits.facts;
    let mut fitted = Card {
        title: line(&card.title, limits.title),
        severity: line(&card.severity, NAME / 2),
        summary: shorten(&clean_block(&card.summary, WHOLE), limits.summary, limits.cost),
        fields: card
            .fields
            .iter()
            .filter(|(_, fact)| !fact.trim().is_empty())
            .take(count)
            .map(|(n, v)| (line(n, name), line(v, value)))
            .collect(),
        alerts: card
            .alerts
            .iter()
            .take(limits.alerts.0)
            .map(|alert| CardAlert { text: line(&alert.text, limits.alerts.1), ..alert.clone() })
            .collect(),
        alerts_more: card.alerts_more + surplus(card.alerts.len(), limits.alerts.0),
        automation: last(&card.automation, limits.automation.0).iter().map(|text| line(text, limits.automation.1)).collect(),
        approval: card.approval.as_ref().map(|asked| approval(asked, limits)),
        links: card.links.iter().filter_map(|(n, address)| Some((line(n, NAME), address_of(address)?))).take(limits.links).collect(),
        ..card.clone()
    };
    while cost(&fitted, limits.cost) > limits.total {
        if fitted.alerts.pop().is_some() {
            fitted.alerts_more += 1;
        } else if !fitted.automation.is_empty() {
            fitted.automation.remove(0);
        } else if fitted.summary.chars().count() > 1 {
            let half = fitted.summary.chars().map(limits.cost).sum::<usize>() / 2;
            fitted.summary = shorten(&fitted.summary, half, limits.cost);
        } else if fitted.links.pop().is_none() && fitted.fields.pop().is_none() {
            break;
        }
    }
    fitted
}

/// The text and the block of a message as they fit.
pub(crate) fn message(message: &Message, text: usize, block: usize, cost: fn(char) -> usize) -> (String, Option<String>) {
    let whole = message.block.as_deref().map(|block| clean_block(block, WHOLE)).filter(|block| !block.trim().is_empty());
    (shorten(&clean_block(&message.text, WHOLE), text, cost), whole.map(|whole| both_ends(&whole, block, cost)))
}

/// One clean line of at most `max` characters after escaping.
pub(crate) fn line(text: &str, max: usize, cost: fn(char) -> usize) -> String {
    shorten(&clean_line(text, max), max, cost)
}

/// At most `max` characters after escaping, with an ellipsis where something is missing.
pub(crate) fn shorten(text: &str, max: usize, cost: fn(char) -> usize) -> String {
    if text.chars().map(cost).sum::<usize>() <= max {
        return text.to_owned();
    }
    let mut room = max.saturating_sub(1);
    let kept = text.chars().take_while(|c| {
        let fits = cost(*c) <= room;
        room = room.saturating_sub(cost(*c));
        fits
    });
    let mut kept: String = kept.collect();
    kept.push('…');
    kept
}

fn approval(asked: &ApprovalCard, limits: &Limits) -> ApprovalCard {
    let line = |text: &str, max: usize| line(text, max, limits.cost);
    let (count, length) = limits.steps;
    let mut steps: Vec<String> = asked.steps.iter().take(count).map(|step| line(step, length)).collect();
    let hidden = surplus(asked.steps.len(), count);
    if hidden > 0 {
        steps.push(format!("… and {hidden} more steps: read them in the console before you decide"));
    } else if asked.steps.iter().any(|step| step.chars().map(limits.cost).sum::<usize>() > length) {
        steps.push("… a step is longer than what is shown here: read it in the console before you decide".to_owned());
    }
    ApprovalCard {
        runbook: line(&asked.runbook, NAME),
        requester: line(&asked.requester, NAME),
        risk: line(&asked.risk, NAME),
        digest: line(&asked.digest, NAME),
        status: line(&asked.status, 3 * NAME),
        roles: asked.roles.iter().take(10).map(|role| line(role, NAME)).collect(),
        steps,
        ..asked.clone()
    }
}

/// Everything in a card that takes room, with a little for what stands around each part.
fn cost(card: &Card, cost: fn(char) -> usize) -> usize {
    const AROUND: usize = 40;
    let of = |text: &str| text.chars().map(cost).sum::<usize>() + AROUND;
    let approval = card.approval.as_ref().map_or(0, |asked| {
        let names = of(&asked.runbook) + of(&asked.requester) + of(&asked.risk) + of(&asked.digest) + of(&asked.status);
        names + asked.steps.iter().chain(&asked.roles).map(|text| of(text)).sum::<usize>()
    });
    let pairs = card.fields.iter().chain(&card.links).map(|(name, value)| of(name) + of(value)).sum::<usize>();
    let lines = card.alerts.iter().map(|alert| &alert.text).chain(&card.automation).map(|text| of(text)).sum::<usize>();
    of(&card.title) + of(&card.severity) + of(&card.summary) + approval + pairs + lines
}

/// The beginning and the end: of a command's output both matter.
fn both_ends(text: &str, max: usize, cost: fn(char) -> usize) -> String {
    const GAP: &str = "\n… (cut: the console has all of it) …\n";
    if text.chars().map(cost).sum::<usize>() <= max {
        return text.to_owned();
    }
    let half = max.saturating_sub(GAP.chars().map(cost).sum()) / 2;
    let head = shorten(text, half, cost);
    let reversed: String = text.chars().rev().collect();
    let tail: String = shorten(&reversed, half, cost).chars().rev().collect();
    format!("{head}{GAP}{tail}")
}

/// An address that a platform may turn into a link.
fn address_of(address: &str) -> Option<String> {
    let url = reqwest::Url::parse(address.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let plain = url.username().is_empty() && url.password().is_none();
    (plain && url.host_str().is_some() && url.as_str().len() <= ADDRESS).then(|| url.into())
}

fn last(lines: &[String], count: usize) -> &[String] {
    &lines[lines.len().saturating_sub(count)..]
}

fn surplus(have: usize, shown: usize) -> i64 {
    i64::try_from(have.saturating_sub(shown)).unwrap_or(i64::MAX)
}
