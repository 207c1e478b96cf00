//! An alert was seen: decide, route, open or change its incident, ask for its remedies.

use domain::alert::{Alert, AlertChange, LATE_DUPLICATE, may_be_new, on_sighting};
use domain::event::{Event, Payload, Sighting, Status};
use domain::id::IncidentId;
use domain::incident::{Happening, Incident, IncidentState};
use domain::job::{NewJob, Urgency};
use domain::route::{self, IncidentPlan, Routed};
use domain::rules::RuleSet;
use domain::timeline::EntryKind;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::batch::Batch;
use crate::runs;

/// What the routes say of an alert that seems to fire anew, as far as it is known: asked for beforehand, so that the incidents of many alerts are read
/// in one query.
pub(crate) fn expect<'r>(rules: &'r RuleSet, known: Option<&Alert>, source: &str, payload: &Payload) -> Option<Routed<'r>> {
    let Payload::Alert(sighting) = payload else { return None };
    let active = known.is_some_and(|alert| alert.state.is_active());
    (sighting.status == Status::Firing && !active).then(|| route::route(rules, source, sighting))
}

/// Handles one sighting.
pub(crate) async fn handle(
    batch: &mut Batch<'_>,
    event: &Event,
    sighting: &Sighting,
    expected: Option<Routed<'_>>,
) -> Result<(), store::Error> {
    let before = batch.alert(&event.source, &sighting.fingerprint).await?;
    let over = match before.as_ref().filter(|before| may_be_new(before, sighting)).and_then(|before| before.incident) {
        Some(incident) => batch.incident(incident).await?.is_none_or(|incident| incident.state == IncidentState::Closed),
        None => false,
    };
    let (mut alert, change) = on_sighting(&event.source, before.as_ref(), sighting, event.last_seen, over);
    metrics::counter!("watchkeeper_alerts_total", "change" => word(change)).increment(1);
    match change {
        AlertChange::Fired => {
            if over {
                leave(batch, &alert).await?;
            }
            let rules = batch.rules.clone();
            let routed = expected.unwrap_or_else(|| route::route(&rules, &alert.source, sighting));
            fired(batch, &mut alert, sighting, routed).await?;
        }
        AlertChange::Resolved => resolved(batch, &alert).await?,
        AlertChange::LateFiring if event.seen > 1 || is_of_the_last_episode(before.as_ref(), sighting) => {
            batch.job(recheck(&alert, batch.now));
        }
        AlertChange::LateFiring
        | AlertChange::Refreshed
        | AlertChange::StillResolved
        | AlertChange::UnknownResolved
        | AlertChange::StaleResolve => {}
    }
    batch.put_alert(alert);
    Ok(())
}

/// Begins an episode for a firing that seemed too late and that no resolve followed.
pub(crate) async fn refire(batch: &mut Batch<'_>, mut alert: Alert) -> Result<(), store::Error> {
    let Some(heard) = alert.late_at else { return Ok(()) };
    if alert.state.is_active() {
        return Ok(());
    }
    let starts_at = alert.starts_at;
    domain::alert::begin_episode(&mut alert, starts_at, heard);
    let (sighting, rules) = (as_sighting(&alert), batch.rules.clone());
    let routed = route::route(&rules, &alert.source, &sighting);
    fired(batch, &mut alert, &sighting, routed).await?;
    batch.put_alert(alert);
    Ok(())
}

/// Whether this firing's episode was heard firing before its resolve: annotations may say something else by now, so the event need not be the same.
fn is_of_the_last_episode(before: Option<&Alert>, sighting: &Sighting) -> bool {
    before.is_some_and(|before| before.episode > 0 && before.starts_at == sighting.starts_at)
}

/// An alert leaves a closed incident that still counts it as active.
async fn leave(batch: &mut Batch<'_>, alert: &Alert) -> Result<(), store::Error> {
    let Some(id) = alert.incident else { return Ok(()) };
    if let Some(mut incident) = batch.incident(id).await? {
        incident.alerts_active = (incident.alerts_active - 1).max(0);
        incident.version += 1;
        batch.put_incident(incident);
    }
    Ok(())
}

async fn fired(batch: &mut Batch<'_>, alert: &mut Alert, sighting: &Sighting, routed: Routed<'_>) -> Result<(), store::Error> {
    let Routed { incident: plan, remedies, trace } = routed;
    let matched = trace.iter().filter(|looked| looked.matched).map(|looked| looked.route.as_str()).collect::<Vec<_>>().join(", ");
    let id = match plan {
        Some(plan) => Some(gather(batch, alert, sighting, plan, &matched).await?),
        None => None,
    };
    alert.incident = id;
    for (route, remedy) in remedies {
        runs::ask_for_remedy(batch, alert, sighting, id, route, remedy).await?;
    }
    Ok(())
}

/// Puts a firing alert into its incident: the open one, the one that it reopens, or a new one.
async fn gather(
    batch: &mut Batch<'_>,
    alert: &Alert,
    sighting: &Sighting,
    plan: IncidentPlan,
    matched: &str,
) -> Result<IncidentId, store::Error> {
    let now = batch.now;
    let waits = batch.rules.waits;
    let latest = batch.latest_incident(&alert.source, &plan.group_key).await?;
    let title = route::default_title(sighting);
    let incident = match latest {
        Some(mut incident) if incident.state.is_open() || incident.may_reopen(now, &waits) => {
            let reopens = incident.state == IncidentState::Resolved;
            if alert.incident != Some(incident.id) {
                incident.alerts_total += 1;
            }
            incident.alerts_active += 1;
            if plan.severity < incident.severity {
                incident.severity = plan.severity;
                incident.severity_name = batch.rules.severities[plan.severity].name.clone();
            }
            incident.version += 1;
            let id = incident.id;
            batch.put_incident(incident);
            // An open incident may have nothing to change but its count.
            let _unchanged = batch.happen(id, &Happening::Fired).await?;
            if reopens {
                batch.tell(id, EntryKind::Opened, None, format!("Reopened: {title} fires again."));
            }
            id
        }
        _ => open(batch, alert, sighting, plan, matched).await?,
    };
    batch.tell_alert(incident, true, title);
    Ok(incident)
}

async fn open(
    batch: &mut Batch<'_>,
    alert: &Alert,
    sighting: &Sighting,
    plan: IncidentPlan,
    matched: &str,
) -> Result<IncidentId, store::Error> {
    let number = batch.tx.next_incident_number().await?;
    let severity = &batch.rules.severities[plan.severity];
    let incident = Incident {
        id: IncidentId::new(batch.now),
        number,
        source: alert.source.clone(),
        group_key: plan.group_key,
        route: plan.route.clone(),
        title: plan.title,
        summary: route::summary(sighting),
        severity: plan.severity,
        severity_name: severity.name.clone(),
        state: IncidentState::Open,
        labels: plan.labels,
        channels: plan.channels,
        opened_at: batch.now,
        acked: None,
        ack_due: severity.ack_within.map(|within| within.after(batch.now)),
        quiet_since: None,
        resolved: None,
        closed_at: None,
        reopened: 0,
        alerts_total: 1,
        alerts_active: 1,
        automation: None,
        rule_set: batch.rules.digest.clone(),
        links: links(alert),
        version: 1,
    };
    let id = incident.id;
    tracing::info!(incident.id = %id, incident.number = number, route = %plan.route, "incident opened");
    metrics::counter!("watchkeeper_incidents_opened_total", "severity" => incident.severity_name.clone()).increment(1);
    batch.tell(
        id,
        EntryKind::Opened,
        None,
        format!("Opened as {} by route {matched} for {} from {}.", incident.severity_name, route::default_title(sighting), alert.source),
    );
    batch.audit(
        "automation",
        "incident.open",
        format!("incident:{id}"),
        domain::audit::AuditDecision::Allowed,
        "route",
        json!({ "number": number, "route": plan.route, "rule_set": incident.rule_set, "fingerprint": alert.fingerprint }),
    );
    batch.insert_incident(incident);
    Ok(id)
}

/// A resolve finds its incident by stored membership, never by grouping again: the rules may have changed since.
async fn resolved(batch: &mut Batch<'_>, alert: &Alert) -> Result<(), store::Error> {
    let Some(id) = alert.incident else { return Ok(()) };
    let Some(mut incident) = batch.incident(id).await? else { return Ok(()) };
    incident.alerts_active = (incident.alerts_active - 1).max(0);
    incident.version += 1;
    let quiet = incident.alerts_active == 0;
    let state = incident.state;
    batch.put_incident(incident);
    batch.tell_alert(id, false, route::default_title(&as_sighting(alert)));
    if quiet {
        // A person may have resolved it already: then it ages towards its close.
        let happening = if state.is_open() { Happening::Quiet } else { Happening::Aged };
        let _unchanged = batch.happen(id, &happening).await?;
    }
    Ok(())
}

/// The alert as if it were heard again now.
pub(crate) fn as_sighting(alert: &Alert) -> Sighting {
    Sighting {
        fingerprint: alert.fingerprint.clone(),
        status: if alert.state.is_active() { Status::Firing } else { Status::Resolved },
        labels: alert.labels.clone(),
        annotations: alert.annotations.clone(),
        starts_at: alert.starts_at,
        ends_at: alert.ends_at,
        generator_url: alert.generator_url.clone(),
        external_url: alert.external_url.clone(),
        cut: 0,
    }
}

fn links(alert: &Alert) -> Vec<(String, String)> {
    let annotation = |name: &str| alert.annotations.get(name).cloned();
    let found = [
        ("Runbook", annotation("runbook_url")),
        ("Dashboard", annotation("dashboard_url")),
        ("Graph", alert.generator_url.clone()),
        ("Alertmanager", alert.external_url.clone()),
    ];
    let web = |url: &String| (url.starts_with("https://") || url.starts_with("http://")) && url.len() <= 2000;
    found.into_iter().filter_map(|(name, url)| url.filter(web).map(|url| (name.to_owned(), url))).collect()
}

fn recheck(alert: &Alert, now: Timestamp) -> NewJob {
    NewJob {
        kind: "alert.recheck",
        key: format!("{}/{}", alert.source, alert.fingerprint),
        due_at: recheck_at(alert, now),
        urgency: Urgency::Upkeep,
        payload: json!({ "source": alert.source, "fingerprint": alert.fingerprint }),
    }
}

/// When it is no longer in question whether a firing came too late for the last resolve.
pub(crate) fn recheck_at(alert: &Alert, now: Timestamp) -> Timestamp {
    alert.resolved_at.unwrap_or(now) + LATE_DUPLICATE + SignedDuration::from_secs(1)
}

fn word(change: AlertChange) -> &'static str {
    match change {
        AlertChange::Fired => "fired",
        AlertChange::Refreshed => "refreshed",
        AlertChange::Resolved => "resolved",
        AlertChange::StillResolved => "still_resolved",
        AlertChange::UnknownResolved => "unknown_resolved",
        AlertChange::StaleResolve => "stale_resolve",
        AlertChange::LateFiring => "late_firing",
    }
}
