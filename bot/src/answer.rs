//! What a slash command comes to: an answer that only reads, given at the edge, or an act to store.

use domain::act::Verb;
use domain::id::IncidentId;
use domain::inbox::{Choice, InboxError, Lookup};

use crate::command::{Asked, Deed, Wish};

/// How many entries a list shows.
const LISTED: usize = 20;

/// What to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Tell the person. Untrusted: it quotes titles.
    Say(String),
    /// Store it.
    Store(Verb),
}

/// Finds what was asked for.
///
/// # Errors
/// If the store cannot be asked.
pub(crate) async fn step(lookup: &dyn Lookup, asked: Asked) -> Result<Step, InboxError> {
    Ok(match asked {
        Asked::Say(text) => Step::Say(text),
        Asked::Incidents => Step::Say(list("open incidents", lookup.incidents("", LISTED).await?)),
        Asked::Runbooks => Step::Say(list("runbooks", lookup.runbooks("", LISTED))),
        Asked::Incident(number) => Step::Say(show(lookup, number).await?),
        Asked::Do(Wish::Pause { paused, reason }) => Step::Store(Verb::Pause { paused, reason }),
        Asked::Do(Wish::OnIncident { number, deed }) => match lookup.incident_id(number).await? {
            Some(incident) => Step::Store(on(incident, deed)),
            None => Step::Say(missing(number)),
        },
        Asked::Do(Wish::Run { runbook, incident: None, params }) => Step::Store(Verb::Run { incident: None, runbook, params }),
        Asked::Do(Wish::Run { runbook, incident: Some(number), params }) => match lookup.incident_id(number).await? {
            Some(incident) => Step::Store(Verb::Run { incident: Some(incident), runbook, params }),
            None => Step::Say(missing(number)),
        },
    })
}

fn on(incident: IncidentId, deed: Deed) -> Verb {
    match deed {
        Deed::Acknowledge => Verb::Acknowledge { incident },
        Deed::Unacknowledge => Verb::Unacknowledge { incident },
        Deed::Resolve => Verb::Resolve { incident },
        Deed::Reopen => Verb::Reopen { incident },
        Deed::Close => Verb::Close { incident },
        Deed::Note(text) => Verb::Note { incident, text },
    }
}

async fn show(lookup: &dyn Lookup, number: i64) -> Result<String, InboxError> {
    let value = number.to_string();
    let open = lookup.incidents(&value, LISTED).await?;
    if let Some(choice) = open.into_iter().find(|choice| choice.value == value) {
        return Ok(choice.label);
    }
    Ok(match lookup.incident_id(number).await? {
        Some(_) => format!("#{number} is over. Its timeline is in the console."),
        None => missing(number),
    })
}

fn missing(number: i64) -> String {
    format!("There is no incident #{number}. /incident list shows the open ones.")
}

fn list(what: &str, choices: Vec<Choice>) -> String {
    if choices.is_empty() {
        return format!("There are no {what}.");
    }
    let more = if choices.len() == LISTED { format!("\n(the first {LISTED}; the console shows all)") } else { String::new() };
    choices.into_iter().map(|choice| choice.label).collect::<Vec<_>>().join("\n") + &more
}
