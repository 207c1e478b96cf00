//! Which route takes an alert, and what it makes of it: one pure function for the live path, `simulate`, `test` and `explain`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::event::{Labels, Sighting};
use crate::expr::ExprError;
use crate::rules::{Channels, IncidentRule, Remedy, Route, RuleSet};
use crate::text::clean_line;

/// What the routes say of one alert.
#[derive(Clone, Debug)]
pub struct Routed<'r> {
    /// How its incident is opened; `None` records the alert only.
    pub incident: Option<IncidentPlan>,
    /// What to do about it, with the route that says so.
    pub remedies: Vec<(&'r Route, &'r Remedy)>,
    /// Why: one entry per route that was looked at.
    pub trace: Vec<Looked>,
}

/// How an incident is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IncidentPlan {
    /// The route that opens it.
    pub route: String,
    /// What its alerts have in common.
    pub group_key: String,
    /// The labels behind the group key.
    pub labels: Labels,
    /// Index into the severities.
    pub severity: usize,
    /// Where its card goes.
    pub channels: Channels,
    /// One line for people.
    pub title: String,
}

/// One route that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// Its name.
    pub route: String,
    /// Whether it took the alert.
    pub matched: bool,
    /// Why or why not.
    pub why: String,
}

/// Finds the routes for an alert: the first match wins, `continue` goes on. The first matching route that opens an incident decides it; later
/// ones add channels and remedies. The built-in last route takes what no other took.
pub fn route<'r>(rules: &'r RuleSet, source: &str, sighting: &Sighting) -> Routed<'r> {
    let context = context(source, sighting);
    let mut routed = Routed { incident: None, remedies: Vec::new(), trace: Vec::new() };
    let last = rules.routes.len().saturating_sub(1);
    let mut taken = false;
    for (index, route) in rules.routes.iter().enumerate() {
        if taken && index == last {
            break;
        }
        let verdict = matches(route, &sighting.labels, &context);
        let matched = verdict.incident || verdict.remedy;
        routed.trace.push(Looked { route: route.name.clone(), matched, why: verdict.why });
        if !matched {
            continue;
        }
        taken = true;
        if let Some(rule) = &route.incident {
            match &mut routed.incident {
                None => routed.incident = Some(incident_plan(rules, route, rule, sighting, &context)),
                Some(plan) => plan.channels.extend(rule.channels.iter().cloned()),
            }
        }
        if let Some(remedy) = route.remedy.as_ref().filter(|_| verdict.remedy) {
            routed.remedies.push((route, remedy));
        }
        if !route.go_on {
            break;
        }
    }
    routed
}

/// The variables that expressions and templates see. Labels and annotations are values in it, never text to be rendered.
pub fn context(source: &str, sighting: &Sighting) -> Value {
    json!({
        "labels": sighting.labels,
        "annotations": sighting.annotations,
        "alert": {
            "source": source,
            "fingerprint": sighting.fingerprint,
            "status": sighting.status,
            "starts_at": sighting.starts_at.to_string(),
            "labels": sighting.labels,
            "annotations": sighting.annotations,
        },
    })
}

struct Verdict {
    incident: bool,
    remedy: bool,
    why: String,
}

/// An expression that fails counts as a match for the incident and a refusal for the remedy: nobody is left untold, nothing is done in doubt.
fn matches(route: &Route, labels: &Labels, context: &Value) -> Verdict {
    if let Some(miss) = route.matchers.explain(labels) {
        return Verdict { incident: false, remedy: false, why: miss.to_string() };
    }
    let Some(when) = &route.when else {
        return Verdict { incident: true, remedy: true, why: "matched".to_owned() };
    };
    match when.eval_bool(context) {
        Ok(true) => Verdict { incident: true, remedy: true, why: format!("matched, and `{when}` holds") },
        Ok(false) => Verdict { incident: false, remedy: false, why: format!("`{when}` does not hold") },
        Err(error) => Verdict { incident: route.incident.is_some(), remedy: false, why: failed(when, &error) },
    }
}

fn failed(when: &crate::expr::Expr, error: &ExprError) -> String {
    format!("`{when}` failed ({error}): taken for the incident, refused for the remedy")
}

fn incident_plan(rules: &RuleSet, route: &Route, rule: &IncidentRule, sighting: &Sighting, context: &Value) -> IncidentPlan {
    let labels: BTreeMap<String, String> =
        rule.group_by.iter().map(|name| (name.clone(), sighting.labels.get(name).cloned().unwrap_or_default())).collect();
    let severity = rule
        .severity
        .or_else(|| sighting.labels.get("severity").and_then(|word| rules.severity_of(word)))
        .unwrap_or(rules.default_severity);
    let channels = if rule.channels.is_empty() { rules.default_channels.clone() } else { rule.channels.clone() };
    let title = rule.title.as_ref().and_then(|template| template.render(context).ok()).unwrap_or_else(|| default_title(sighting));
    IncidentPlan {
        route: route.name.clone(),
        // JSON keeps names and values apart, whatever they hold.
        group_key: json!([route.name, labels]).to_string(),
        labels,
        severity,
        channels,
        title: clean_line(&title, 150),
    }
}

/// Alert name and what tells it apart, as people write it.
pub fn default_title(sighting: &Sighting) -> String {
    let label = |name: &str| sighting.labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let name = label("alertname").unwrap_or("Alert");
    match ["service", "instance", "job", "host", "pod"].into_iter().find_map(label) {
        Some(what) => format!("{name} on {what}"),
        None => name.to_owned(),
    }
}

/// A paragraph for people: what the alert's author wrote for them.
pub fn summary(sighting: &Sighting) -> String {
    let text = ["summary", "description", "message"].into_iter().find_map(|name| sighting.annotations.get(name));
    text.map(|text| clean_line(text, 500)).unwrap_or_default()
}
