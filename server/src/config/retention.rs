//! `retention`: how long what is kept.

use domain::duration::Dur;
use handlers::Retention;
use schemars::JsonSchema;
use serde::Deserialize;

use super::part::Sections;

/// How long what is kept. What is open, under way, unknown or waiting is never let go of, however old it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// Bodies as they were received. Default 7d.
    #[serde(default)]
    deliveries: Option<Dur>,
    /// What was heard, by which a repeat is recognised. At least 1d. Default 30d.
    #[serde(default)]
    events: Option<Dur>,
    /// Closed incidents with their timeline, alerts and runs. At least 1d. Default 400d.
    #[serde(default)]
    incidents: Option<Dur>,
    /// What failed for good: jobs, events that could not be handled, bodies that could not be read. Default 30d.
    #[serde(default)]
    dead: Option<Dur>,
    /// The audit log, as far as a signed checkpoint covers it, and the counts of refusals. At least 1d. Default 400d, or as long as `incidents`.
    #[serde(default)]
    audit: Option<Dur>,
}

/// Repeats, redeliveries and cooldowns reach back less than this.
const LEAST: Dur = Dur::from_mins(24 * 60);

pub(super) fn read(cx: &mut Sections<'_, '_, '_>) -> Retention {
    let usual = Retention::default();
    let Some((node, written)) = cx.value::<Written>("retention") else { return usual };
    for (name, value) in [("events", written.events), ("incidents", written.incidents), ("audit", written.audit)] {
        if value.is_some_and(|value| value < LEAST) {
            let help = "write 1d or more: repeats, cooldowns and whoever asks who did it look back that far".to_owned();
            cx.report().add(node.find(&[name]).at, format!("`{name}` is kept for less than a day"), help);
        }
    }
    let incidents = written.incidents.unwrap_or(usual.incidents);
    Retention {
        deliveries: written.deliveries.unwrap_or(usual.deliveries),
        events: written.events.unwrap_or(usual.events),
        incidents,
        dead: written.dead.unwrap_or(usual.dead),
        // Evidence of an incident that is kept should have its rows.
        audit: written.audit.unwrap_or(usual.audit.max(incidents)),
    }
}
