//! Routes and their remedies.

use std::collections::BTreeSet;

use super::Build;
use super::templates::{Scope, is_template};
use crate::duration::Dur;
use crate::planning::typed;
use crate::rules::model::{IncidentRule, Mode, Remedy, Route, RuleSet, Runbook};
use crate::rules::problem::suggest;
use crate::rules::schema;
use crate::rules::tree::{Data, Node};

/// The name of the built-in last route.
pub const CATCH_ALL: &str = "catch-all";

impl Build<'_, '_> {
    /// `rules` holds everything but the routes.
    pub(super) fn routes(&mut self, rules: &RuleSet) -> Vec<Route> {
        let mut all: Vec<Route> = Vec::new();
        // Whether some route before this one can have opened the incident that a remedy belongs to.
        let mut opened = false;
        // The first route that takes everything, which makes the rest unreachable.
        let mut dam = None;
        for (index, node, written) in self.list::<schema::Route>("routes") {
            let name = self.route_name(&all, index, node, &written);
            if let Some(dam) = &dam {
                let help = format!("{dam} takes every alert: give it a `match`, or `continue: true`, or move it to the end");
                self.add(node.at, format!("no alert ever comes to the route `{name}`"), help);
            }
            let incident = self.incident(rules, node, &written);
            if incident.is_none() && written.remedy.is_some() && !opened {
                let help = "add `incident: {}` to it, or let a route before it with `continue: true` open one".to_owned();
                self.add(node.find(&["remedy"]).name_at(), "this remedy has no incident to belong to", help);
            }
            let when = written.when.as_ref().and_then(|when| self.condition(node.find(&["when"]), when));
            let remedy = written.remedy.as_ref().map(|remedy| self.remedy(rules, node.find(&["remedy"]), remedy));
            if written.r#match.0.is_empty() && written.when.is_none() && !written.r#continue && dam.is_none() {
                dam = Some(format!("`{name}` ({})", self.report.tree.place(node.at)));
            }
            opened |= incident.is_some() && written.r#continue;
            all.push(Route { name, matchers: written.r#match, when, go_on: written.r#continue, incident, remedy });
        }
        all.push(catch_all(rules));
        all
    }

    fn route_name(&mut self, before: &[Route], index: usize, node: &Node, written: &schema::Route) -> String {
        let Some(name) = &written.name else { return format!("routes[{index}]") };
        let at = node.find(&["name"]).at;
        self.name(name, at);
        if name == CATCH_ALL {
            self.add(at, format!("`{CATCH_ALL}` is the built-in last route"), "choose another name".to_owned());
        } else if before.iter().any(|route| route.name == *name) {
            self.add(at, format!("there is a route `{name}` already"), "names of routes are unique".to_owned());
        }
        name.clone()
    }

    fn incident(&mut self, rules: &RuleSet, node: &Node, written: &schema::Route) -> Option<IncidentRule> {
        if let Some(node) = node.get("incident").filter(|node| matches!(node.data, Data::Null)) {
            let help = "write `incident: {}` for one with all defaults, or remove the key to only record the alert".to_owned();
            self.add(node.name_at(), "it is not clear whether this opens an incident", help);
        }
        let written = written.incident.as_ref()?;
        let node = node.find(&["incident"]);
        for (index, name) in written.channels.iter().enumerate() {
            self.known("channel", name, "channels", node.find(&["channels", &index.to_string()]).at);
        }
        let severity = written.severity.as_ref().and_then(|word| self.severity(&rules.severities, word, node.find(&["severity"]).at));
        let title = written.title.as_ref().and_then(|_| self.template(node.find(&["title"]), &Scope::Alert));
        for (index, label) in written.group_by.iter().enumerate() {
            // Alertmanager's word for "all labels" would be the name of a label that no alert has, and put everything together.
            if label.is_empty() || label == "..." {
                let help = "name the labels whose values tell incidents apart, such as [alertname, service]".to_owned();
                self.add(node.find(&["group_by", &index.to_string()]).at, format!("{label:?} is no label"), help);
            }
        }
        let named: BTreeSet<String> = written.channels.iter().cloned().collect();
        let channels = if named.is_empty() { rules.default_channels.clone() } else { named };
        Some(IncidentRule { group_by: written.group_by.clone(), severity, channels, title })
    }

    fn remedy(&mut self, rules: &RuleSet, node: &Node, written: &schema::Remedy) -> Remedy {
        let mode = written.mode.unwrap_or(Mode::Approve);
        let at = node.find(&["runbook"]).at;
        if self.known("runbook", &written.runbook, "runbooks", at)
            && let Some(runbook) = rules.runbooks.get(&written.runbook)
        {
            self.params_given(rules, node, written, runbook);
            if matches!(mode, Mode::Approve | Mode::Suggest) && runbook.approval.is_none() {
                let word = if mode == Mode::Approve { "asks for approval" } else { "shows a button" };
                let message = format!("this remedy {word}, and `{}` does not say who may approve", written.runbook);
                let help = format!("give the runbook `{}` its `approval: {{ roles: [..] }}`", written.runbook);
                let at = if written.mode.is_some() { node.find(&["mode"]).at } else { at };
                self.add(at, message, help);
            }
        }
        self.templates(node.find(&["with"]), &Scope::Alert);
        let hold = written.hold.unwrap_or(Dur::ZERO);
        Remedy { runbook: written.runbook.clone(), with: written.with.clone(), mode, hold }
    }

    fn params_given(&mut self, rules: &RuleSet, node: &Node, written: &schema::Remedy, runbook: &Runbook) {
        for (name, value) in &written.with {
            let node = node.find(&["with", name]);
            let Some(spec) = runbook.params.get(name) else {
                let known: Vec<&str> = runbook.params.keys().map(String::as_str).collect();
                let none = "it takes none".to_owned();
                self.add(node.name_at(), format!("`{}` has no parameter `{name}`", runbook.name), suggest(name, known, &none));
                continue;
            };
            if !value.as_str().is_some_and(is_template)
                && let Err(why) = typed(rules, &spec.kind, value)
            {
                self.add(node.at, format!("parameter `{name}` will not do: {why}"), None);
            }
        }
        for (name, spec) in &runbook.params {
            if spec.default.is_none() && !written.with.contains_key(name) {
                let message = format!("the parameter `{name}` of `{}` is missing", runbook.name);
                self.add(node.find(&["runbook"]).at, message, format!("add `with: {{ {name}: .. }}`"));
            }
        }
    }
}

/// Nothing accepted ends unseen.
fn catch_all(rules: &RuleSet) -> Route {
    let incident =
        IncidentRule { group_by: vec!["alertname".to_owned()], severity: None, channels: rules.default_channels.clone(), title: None };
    Route {
        name: CATCH_ALL.to_owned(),
        matchers: crate::matcher::Matchers::default(),
        when: None,
        go_on: false,
        incident: Some(incident),
        remedy: None,
    }
}
