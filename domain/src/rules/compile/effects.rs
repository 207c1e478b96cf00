//! What may follow when a step's outcome cannot be known: what the runbook says of it must not be more than is true.

use serde_json::{Map, Value};

use super::Build;
use super::templates::Scope;
use crate::action::{Effect, OnUnknown};
use crate::planning::CHECK;
use crate::rules::model::RuleSet;
use crate::rules::schema;
use crate::rules::tree::Node;

impl Build<'_, '_> {
    /// Checks `effect`, `on_unknown` and `check` of a step against its action; returns the check's parameters.
    pub(super) fn effect(&mut self, rules: &RuleSet, node: &Node, step: &schema::Step, scope: &Scope<'_>) -> Option<Value> {
        let known = self.actions.get(&step.uses).map(|action| action.effect());
        let effect = step.effect.or(known).unwrap_or_default();
        if let (Some(said), Some(own)) = (step.effect, known)
            && own != Effect::AtMostOnce
            && !own.allows(said)
        {
            let help = format!("leave it out, or be stricter: `{}` is {}", step.uses, own.as_str());
            self.add(node.find(&["effect"]).at, format!("`{}` is not {}", step.uses, said.as_str()), help);
        }
        if step.on_unknown == Some(OnUnknown::Retry) && effect == Effect::AtMostOnce {
            let help =
                "say in `effect` why a repeat does no harm (idempotent, keyed, checkable), or leave `on_unknown` at `ask`".to_owned();
            self.add(node.find(&["on_unknown"]).at, "an at_most_once step must not be retried when nobody knows whether it happened", help);
        }
        match (&step.check, effect) {
            (Some(check), Effect::Checkable) => {
                let with = Value::Object(check.clone().into_iter().collect::<Map<_, _>>());
                if check.contains_key("expect_exit") {
                    let at = node.find(&["check", "expect_exit"]).name_at();
                    self.add(at, "a check's exit codes are fixed: 0 it happened, 10 it did not", "remove it".to_owned());
                }
                self.uses_in(rules, node, "check", CHECK, &with, scope);
                Some(with)
            }
            (Some(_), _) => {
                self.add(
                    node.find(&["check"]).name_at(),
                    "`check` belongs to `effect: checkable`",
                    "say so, or remove the check".to_owned(),
                );
                None
            }
            (None, Effect::Checkable) if step.effect.is_some() => {
                let help = "give it `check: { program: .., args: [..] }`, which exits with 0 or 10".to_owned();
                self.add(node.find(&["effect"]).at, "nothing can tell whether a checkable step without `check` happened", help);
                None
            }
            (None, _) => None,
        }
    }
}
