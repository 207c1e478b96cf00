//! A step's action and what it is given: checked against the action's own schema as far as the values are known before an alert comes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Build;
use super::literal::mismatches;
use super::templates::{Scope, is_template};
use crate::action::{Action, Risk};
use crate::plan::Target;
use crate::rules::model::{ParamType, RuleSet};
use crate::rules::problem::suggest;
use crate::rules::tree::Node;

impl Build<'_, '_> {
    /// Checks `uses` and `with` of a step or verification; the action's risk, if there is such an action.
    pub(super) fn uses(&mut self, rules: &RuleSet, node: &Node, uses: &str, with: &Value, scope: &Scope<'_>) -> Option<Risk> {
        self.uses_in(rules, node, "with", uses, with, scope)
    }

    /// The same, where the parameters stand under another key than `with`.
    pub(super) fn uses_in(&mut self, rules: &RuleSet, node: &Node, key: &str, uses: &str, with: &Value, scope: &Scope<'_>) -> Option<Risk> {
        let before = self.report.count();
        self.templates(node.find(&[key]), scope);
        if let Some(with) = node.get(key).filter(|_| before == self.report.count()) {
            self.places(with, scope);
        }
        let Some(action) = self.actions.get(uses) else {
            let names: Vec<&str> = self.actions.all().into_iter().map(|action| action.name()).collect();
            self.add(node.find(&["uses"]).at, format!("there is no action `{uses}`"), suggest(uses, names, ""));
            return None;
        };
        let before = self.report.count();
        let target = self.target(rules, node.find(&[key, "target"]), action, with, scope);
        let mut own = with.clone();
        if let Some(fields) = own.as_object_mut() {
            fields.remove("target");
        }
        for mismatch in mismatches(&action.schema().to_value(), &own) {
            let path: Vec<&str> = std::iter::once(key).chain(mismatch.path.iter().map(String::as_str)).collect();
            let node = node.find(&path);
            let at = if mismatch.about_name { node.name_at() } else { node.at };
            self.add(at, mismatch.message, mismatch.help);
        }
        // Where nothing is left open the action itself can judge.
        if before == self.report.count() && !any_template(&own) {
            let judge = |target: Option<&Target>| action.check(&own, target);
            let place = node.get(key).unwrap_or_else(|| node.find(&["uses"]));
            match target {
                Chosen::None => self.judged(place, uses, judge(None)),
                Chosen::Known(target) => self.judged(place, uses, judge(Some(&target))),
                Chosen::OneOf(kinds) if action.risk() > Risk::Read => {
                    let chosen =
                        |target: &&Target| fits(action.target_kinds(), &target.kind) && (kinds.is_empty() || kinds.contains(&target.kind));
                    for target in rules.targets.values().filter(chosen) {
                        let place = self.root.find(&["targets", &target.name]);
                        self.judged(place, uses, judge(Some(target)));
                    }
                }
                // What only looks may well not be able to look at every target.
                Chosen::OneOf(_) | Chosen::Later => {}
            }
        }
        Some(action.risk())
    }

    fn judged(&mut self, place: &Node, uses: &str, verdict: Result<(), String>) {
        if let Err(why) = verdict {
            self.add(place.name_at(), format!("`{uses}` refuses this: {why}"), None);
        }
    }

    fn target(&mut self, rules: &RuleSet, node: &Node, action: &dyn Action, with: &Value, scope: &Scope<'_>) -> Chosen {
        let Some(value) = with.get("target") else { return Chosen::None };
        let kinds = action.target_kinds();
        let Some(name) = value.as_str() else {
            self.add(node.at, "a target is a name from `targets`", None);
            return Chosen::Later;
        };
        if is_template(name) {
            return self.target_param(node, action, name, scope);
        }
        if !self.known("target", name, "targets", node.at) {
            return Chosen::Later;
        }
        let Some(target) = rules.targets.get(name) else { return Chosen::Later };
        if !fits(kinds, &target.kind) {
            let message = format!("`{}` works on {}, and `{name}` is of kind {}", action.name(), kinds.join(", "), target.kind);
            self.add(node.at, message, None);
        }
        Chosen::Known(target.clone())
    }

    /// `{{ params.target }}` where the parameter's kinds and the action's have nothing in common can never work; one that is no target at all
    /// would let a label choose.
    fn target_param(&mut self, node: &Node, action: &dyn Action, text: &str, scope: &Scope<'_>) -> Chosen {
        let name =
            text.trim().strip_prefix("{{").and_then(|text| text.strip_suffix("}}")).and_then(|text| text.trim().strip_prefix("params."));
        let Some((name, spec)) = name.and_then(|name| scope.params()?.get_key_value(name)) else {
            if action.risk() == Risk::Destructive {
                let help = "give the runbook a parameter of type `target` and write `{{ params.NAME }}` alone".to_owned();
                self.add(node.at, "the target of a destructive step must be a parameter of type `target` or a name", help);
            }
            return Chosen::Later;
        };
        let kinds = action.target_kinds();
        match &spec.kind {
            ParamType::Target(of) if of.is_empty() || of.iter().any(|kind| fits(kinds, kind)) => return Chosen::OneOf(of.clone()),
            ParamType::Target(of) => {
                let of = of.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let message = format!("`{}` works on {}, and the parameter `{name}` takes {of}", action.name(), kinds.join(", "));
                self.add(node.at, message, None);
            }
            _ => {
                let help = format!("give the parameter `{name}` the type `target`: it is checked against the inventory then");
                self.add(node.at, format!("the parameter `{name}` is no target"), help);
            }
        }
        Chosen::Later
    }
}

enum Chosen {
    None,
    Known(Target),
    /// A parameter: any target of these kinds, or of all.
    OneOf(BTreeSet<String>),
    /// Known when an alert comes, or told to be wrong.
    Later,
}

/// Whether an action that works on `kinds` works on `kind`; one that names none is told the target and does not mind.
fn fits(kinds: &[&str], kind: &str) -> bool {
    kinds.is_empty() || kinds.contains(&kind)
}

fn any_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(any_template),
        Value::Object(fields) => fields.values().any(any_template),
        _ => false,
    }
}
