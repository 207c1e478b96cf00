//! A person asked for something: who is it, may they, is the button ours; then the verb decides. Every refusal is audited and answered.

use domain::act::{Act, ActOutcome, Identity, Verb};
use domain::audit::AuditDecision;
use domain::button::Pressed;
use domain::card::ButtonKind;
use domain::id::{ApprovalId, IncidentId, RunId};
use domain::job::{NewJob, Urgency};
use domain::permission::Granted;
use serde_json::json;
use store::CardPost;

use crate::acts;
use crate::batch::Batch;

/// Handles one act.
pub(crate) async fn handle(batch: &mut Batch<'_>, seq: i64, act: &Act) -> Result<ActOutcome, store::Error> {
    let outcome = match gate(batch, act).await? {
        Ok(granted) => acts::dispatch(batch, &granted, &act.verb).await?,
        Err(refused) => refused,
    };
    metrics::counter!("watchkeeper_acts_total", "verb" => act.verb.name(), "outcome" => if outcome.done { "done" } else { "refused" })
        .increment(1);
    if !outcome.done {
        batch.audit(
            &actor(batch, &act.actor),
            act.verb.name(),
            object(&act.verb),
            AuditDecision::Refused,
            &outcome.code,
            json!({ "platform": act.actor.platform, "place": act.place }),
        );
    }
    if let Some(reply) = &act.reply {
        batch.job(NewJob {
            kind: "chat.reply",
            key: seq.to_string(),
            due_at: batch.now,
            urgency: Urgency::Person,
            payload: json!({ "to": reply, "outcome": outcome, "at": batch.now }),
        });
    }
    Ok(outcome)
}

/// Who it is, whether they may, and whether the button is ours and on its own card.
async fn gate(batch: &mut Batch<'_>, act: &Act) -> Result<Result<Granted, ActOutcome>, store::Error> {
    let granted = match batch.rules.people.check(&act.actor, act.verb.right()) {
        Ok(granted) => granted,
        Err(denied) => return Ok(Err(ActOutcome::refused(denied.code(), denied.to_string()))),
    };
    let platform = act.actor.platform.as_str();
    if matches!(platform, "console" | "api") {
        return Ok(Ok(granted));
    }
    match (&act.button, &act.verb) {
        (Some(token), verb) => Ok(ours(batch, act, token, verb).await?.map(|()| granted)),
        (None, Verb::Approve { .. } | Verb::Deny { .. } | Verb::Settle { .. }) => Ok(Err(forged())),
        (None, _) => Ok(Ok(granted)),
    }
}

async fn ours(batch: &mut Batch<'_>, act: &Act, token: &str, verb: &Verb) -> Result<Result<(), ActOutcome>, store::Error> {
    let Some(place) = &act.place else { return Ok(Err(forged())) };
    let platform = act.actor.platform.as_str();
    let Some(pressed) = batch.cx.buttons.check(token, platform, &place.channel) else { return Ok(Err(forged())) };
    if !says(pressed, verb) {
        return Ok(Err(forged()));
    }
    let Some(incident) = incident_of(batch, pressed).await? else { return Ok(Err(forged())) };
    let on_its_card = match batch.tx.card_at(platform, &place.channel, &place.message).await? {
        Some(card) => card.incident == incident,
        // Somebody may be quicker than the platform's answer to the post, or than its storing: then the card is in no other place yet.
        None => {
            let elsewhere = |card: &CardPost| card.platform == platform && card.channel_id == place.channel && card.message.is_some();
            !batch.tx.cards_of(incident).await?.iter().any(elsewhere)
        }
    };
    Ok(if on_its_card { Ok(()) } else { Err(forged()) })
}

/// Whether the token names the same thing as the act.
fn says(pressed: Pressed, verb: &Verb) -> bool {
    let kind = match verb {
        Verb::Acknowledge { .. } => ButtonKind::Acknowledge,
        Verb::Unacknowledge { .. } => ButtonKind::Unacknowledge,
        Verb::Resolve { .. } => ButtonKind::Resolve,
        Verb::Reopen { .. } => ButtonKind::Reopen,
        Verb::Approve { .. } => ButtonKind::Approve,
        Verb::Deny { .. } => ButtonKind::Deny,
        Verb::Run { .. } => ButtonKind::Run,
        Verb::Settle { how, .. } => ButtonKind::of_settlement(*how),
        Verb::Close { .. } | Verb::Note { .. } | Verb::Cancel { .. } | Verb::Pause { .. } => return false,
    };
    pressed.kind == kind && verb.object() == Some(pressed.object)
}

/// The incident on whose card a button is.
async fn incident_of(batch: &mut Batch<'_>, pressed: Pressed) -> Result<Option<IncidentId>, store::Error> {
    Ok(match pressed.kind {
        kind if kind.settlement().is_some() => batch.tx.run(RunId(pressed.object)).await?.and_then(|run| run.incident),
        ButtonKind::Approve | ButtonKind::Deny => {
            batch.tx.approval(ApprovalId(pressed.object)).await?.and_then(|approval| approval.incident)
        }
        _ => Some(IncidentId(pressed.object)),
    })
}

fn forged() -> ActOutcome {
    ActOutcome::refused(
        "forged",
        "This button is not one of mine, or not on its own card. Nothing happened. Use the newest card of the incident.",
    )
}

/// How the audit log names an actor: the principal if there is one, else the bare identity.
pub(crate) fn actor(batch: &Batch<'_>, identity: &Identity) -> String {
    match batch.rules.people.resolve(identity) {
        Ok(principal) => format!("principal:{}", principal.name),
        Err(_) => format!("identity:{}/{}/{}", identity.platform, identity.workspace, identity.user),
    }
}

fn object(verb: &Verb) -> String {
    let kind = match verb {
        Verb::Approve { .. } | Verb::Deny { .. } => "approval",
        Verb::Cancel { .. } | Verb::Settle { .. } => "run",
        Verb::Pause { .. } => return "automation".to_owned(),
        Verb::Run { incident: None, runbook, .. } => return format!("runbook:{runbook}"),
        _ => "incident",
    };
    verb.object().map_or_else(|| kind.to_owned(), |id| format!("{kind}:{id}"))
}
