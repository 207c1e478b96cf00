//! Draws a card. All its text is data; maud escapes every piece of it.

use domain::card::{ApprovalCard, Button, ButtonKind, ButtonStyle, Card};
use jiff::Timestamp;
use maud::{Markup, html};

use super::layout::csrf;
use super::session::Viewer;
use super::words::{ago, badge};

/// The card with its buttons, whose tokens are the ids of what they are about.
pub(super) fn card(viewer: &Viewer, card: &Card, now: Timestamp) -> Markup {
    html! {
        section class={ "panel card " (card.state.as_str()) } id={ "card-" (card.number) } {
            div.head {
                strong { (card.severity) }
                (badge(card.state.as_str()))
                span.soft.num { "#" (card.number) }
                span.soft { "opened " (ago(card.opened_at, now)) }
            }
            h1 { (card.title) }
            @if !card.summary.is_empty() { p { (card.summary) } }
            dl.facts {
                @for (name, value) in &card.fields { div { dt { (name) } dd { (value) } } }
            }
            @if !card.alerts.is_empty() {
                ul.alerts {
                    @for alert in &card.alerts {
                        li.active[alert.active] { (alert.text) " " span.soft.small { (ago(alert.since, now)) } }
                    }
                    @if card.alerts_more > 0 { li.soft { "and " (card.alerts_more) " more" } }
                }
            }
            @for line in &card.automation { p.auto { (line) } }
            @if let Some(approval) = &card.approval { (approval_block(approval, now)) }
            @if !card.buttons.is_empty() { (buttons(viewer, card)) }
            @if !card.links.is_empty() {
                p.small {
                    @for (name, url) in &card.links { a href=(url) rel="noopener noreferrer" target="_blank" { (name) } " " }
                }
            }
        }
    }
}

/// What exactly would run, and what was decided.
pub(super) fn approval_block(approval: &ApprovalCard, now: Timestamp) -> Markup {
    html! {
        div.approval {
            div { strong { (approval.runbook) } " asked for by " (approval.requester) " · risk " strong { (approval.risk) } }
            pre { @for step in &approval.steps { (step) "\n" } }
            div.small {
                strong { (approval.status) }
                " · takes " (approval.roles.join(", "))
                " · plan " code { (approval.digest) }
                @if let Some(until) = approval.expires_at { " · ends " (ago(until, now)) }
            }
        }
    }
}

fn buttons(viewer: &Viewer, card: &Card) -> Markup {
    html! {
        div.buttons { @for button in &card.buttons { (one(viewer, card, button)) } }
    }
}

fn one(viewer: &Viewer, card: &Card, button: &Button) -> Markup {
    let look = match button.style {
        ButtonStyle::Primary => "primary",
        ButtonStyle::Plain => "",
        ButtonStyle::Danger => "danger",
    };
    let about = match button.kind {
        ButtonKind::Approve | ButtonKind::Deny => Some("approval"),
        kind => kind.settlement().map(|_| "run"),
    };
    let hidden = html! {
        (csrf(viewer))
        input type="hidden" name="act" value=(button.kind.code());
        @if let Some(about) = about { input type="hidden" name=(about) value=(button.token); }
    };
    let action = format!("/incidents/{}/act", card.number);
    let kind = button.kind.code();
    if button.kind.asks_reason() {
        return html! {
            details.ask id={ "ask-" (kind) } {
                summary.calm[button.style != ButtonStyle::Danger] { (button.label) }
                form method="post" action=(action) {
                    (hidden)
                    input name="reason" placeholder=(button.kind.asks()) maxlength="500" required;
                    button.danger[button.style == ButtonStyle::Danger] type="submit" { (button.label) }
                }
            }
        };
    }
    if let Some(question) = &button.confirm {
        return html! {
            details.ask id={ "ask-" (kind) } {
                summary { (button.label) }
                p { (question) }
                form method="post" action=(action) { (hidden) button.danger type="submit" { "Yes: " (button.label) } }
            }
        };
    }
    html! {
        form method="post" action=(action) { (hidden) button class=(look) type="submit" data-act=(kind) { (button.label) } }
    }
}
