//! Runbooks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Build;
use super::templates::Scope;
use crate::action::Risk;
use crate::duration::Dur;
use crate::plan::{ApprovalPolicy, Guards, MaxRuns, OnFailure, Retry};
use crate::planning::typed;
use crate::rules::model::{ParamSpec, ParamType, RuleSet, Runbook, StepSpec, VerifySpec};
use crate::rules::schema::{self, Escalate, ParamKind};
use crate::rules::tree::Node;

/// The step id of a runbook's own verification.
const VERIFY: &str = "verify";

impl Build<'_, '_> {
    /// `rules` holds everything but runbooks and routes.
    pub(super) fn runbooks(&mut self, rules: &RuleSet) -> BTreeMap<String, Runbook> {
        let mut all = BTreeMap::new();
        for (name, node, written) in self.map::<schema::Runbook>("runbooks") {
            let params = self.params(rules, node, &written);
            let steps = self.steps(rules, node, &written, &params);
            let verify = written.verify.as_ref().map(|verify| self.verify(rules, node.find(&["verify"]), verify, &params));
            let runbook = Runbook {
                name: name.to_owned(),
                about: written.about.clone(),
                approval: written.approval.as_ref().map(|approval| self.approval(rules, node.find(&["approval"]), approval)),
                guards: self.guards(node.find(&["guards"]), written.guards.as_ref()),
                on_failure: self.on_failure(node, &written),
                params,
                steps,
                verify,
            };
            self.harm(node, &runbook);
            all.insert(name.to_owned(), runbook);
        }
        all
    }

    fn params(&mut self, rules: &RuleSet, node: &Node, written: &schema::Runbook) -> BTreeMap<String, ParamSpec> {
        let mut all = BTreeMap::new();
        for (name, param) in &written.params {
            let node = node.find(&["params", name]);
            if !is_variable(name) {
                let help = "templates say `params.name`: use letters, digits and `_`, beginning with a letter".to_owned();
                self.add(node.name_at(), format!("{name:?} cannot be the name of a parameter"), help);
            }
            self.only_for(node, param);
            let Some(kind) = self.param_type(node, param) else { continue };
            if let Some(default) = &param.default
                && let Err(why) = typed(rules, &kind, default)
            {
                self.add(node.find(&["default"]).at, format!("the default of `{name}` will not do: {why}"), None);
            }
            all.insert(name.clone(), ParamSpec { kind, default: param.default.clone(), about: param.about.clone() });
        }
        all
    }

    /// Bounds that the parameter's type does not have would be bounds that nobody checks.
    fn only_for(&mut self, node: &Node, param: &schema::Param) {
        let kind = param.r#type;
        let given = [
            ("kinds", param.kinds.is_some(), kind == ParamKind::Target),
            ("pattern", param.pattern.is_some(), kind == ParamKind::Text),
            ("values", param.values.is_some(), kind == ParamKind::Choice),
            ("min", param.min.is_some(), kind == ParamKind::Integer),
            ("max", param.max.is_some(), matches!(kind, ParamKind::Integer | ParamKind::Text)),
        ];
        for (key, given, fits) in given {
            if given && !fits {
                let message = format!("`{key}` means nothing for a parameter of this type");
                self.add(node.find(&[key]).name_at(), message, "remove it, or change `type`".to_owned());
            }
        }
    }

    fn param_type(&mut self, node: &Node, param: &schema::Param) -> Option<ParamType> {
        Some(match param.r#type {
            ParamKind::Target => {
                for (index, item) in node.find(&["kinds"]).items().iter().enumerate() {
                    if let Some(kind) = item.text() {
                        self.known_kind(kind, node.find(&["kinds", &index.to_string()]).at);
                    }
                }
                ParamType::Target(param.kinds.clone().unwrap_or_default())
            }
            ParamKind::Text => {
                let max = usize::try_from(param.max.unwrap_or(200)).unwrap_or(0);
                if max == 0 || max > 65_536 {
                    self.add(node.find(&["max"]).at, "a text has from 1 to 65536 bytes", None);
                }
                let compiled = |pattern: &String| regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(256 * 1024).build();
                if let Some(Err(error)) = param.pattern.as_ref().map(compiled) {
                    let why = error.to_string();
                    let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    self.add(node.find(&["pattern"]).at, format!("this is no regular expression: {why}"), None);
                    return None;
                }
                ParamType::Text { max, pattern: param.pattern.clone() }
            }
            ParamKind::Choice => {
                let values = param.values.clone().unwrap_or_default();
                if values.is_empty() {
                    self.add(node.name_at(), "there is nothing to choose from", "give it `values: [one, another]`".to_owned());
                }
                ParamType::Choice(values)
            }
            ParamKind::Integer => {
                let (min, max) = (param.min.unwrap_or(0), param.max.unwrap_or(i64::from(i32::MAX)));
                if min > max {
                    self.add(node.find(&["min"]).at, format!("no number is at least {min} and at most {max}"), None);
                }
                ParamType::Integer { min, max }
            }
            ParamKind::Boolean => ParamType::Boolean,
            ParamKind::Duration => ParamType::Duration,
        })
    }

    fn steps(&mut self, rules: &RuleSet, node: &Node, written: &schema::Runbook, params: &BTreeMap<String, ParamSpec>) -> Vec<StepSpec> {
        let list = node.find(&["steps"]);
        if written.steps.is_empty() {
            self.add(list.name_at(), "a runbook without steps does nothing", "give it at least one step".to_owned());
        }
        let mut all: Vec<StepSpec> = Vec::new();
        for (node, step) in list.items().iter().zip(&written.steps) {
            let id_at = node.find(&["id"]).at;
            if step.id == VERIFY || all.iter().any(|other| other.id == step.id) {
                let help = if step.id == VERIFY { "it is the id of the runbook's own `verify`" } else { "ids are unique in a runbook" };
                self.add(id_at, format!("the step id `{}` is taken", step.id), help.to_owned());
            }
            self.name(&step.id, id_at);
            let timeout = step.timeout.unwrap_or(Dur::from_mins(1));
            self.some_time(node, "timeout", timeout);
            let with = Value::Object(step.with.clone().into_iter().collect());
            self.uses(rules, node, &step.uses, &with, &Scope::Steps(params));
            all.push(StepSpec {
                id: step.id.clone(),
                uses: step.uses.clone(),
                with,
                timeout,
                retry: self.retry(node, step.retry.as_ref()),
                continue_on_error: step.continue_on_error,
                effect: step.effect,
                on_unknown: step.on_unknown,
                check: self.effect(rules, node, step, &Scope::Steps(params)),
            });
        }
        all
    }

    fn retry(&mut self, node: &Node, written: Option<&schema::Retry>) -> Retry {
        let once = Retry { attempts: 1, delay: Dur::from_secs(1), max_delay: Dur::from_mins(1) };
        let Some(written) = written else { return once };
        let node = node.find(&["retry"]);
        if !(1..=20).contains(&written.attempts) {
            let message = format!("{} attempts are not possible", written.attempts);
            self.add(node.find(&["attempts"]).at, message, "count the first one too: from 1 to 20".to_owned());
        }
        let delay = written.delay.unwrap_or(once.delay);
        let max_delay = written.max_delay.unwrap_or(once.max_delay.max(delay));
        if delay > max_delay {
            self.add(node.find(&["max_delay"]).at, format!("the longest wait is shorter than the first, {delay}"), None);
        }
        Retry { attempts: written.attempts, delay, max_delay }
    }

    fn verify(&mut self, rules: &RuleSet, node: &Node, written: &schema::Verify, params: &BTreeMap<String, ParamSpec>) -> VerifySpec {
        let (within, every) = (written.within.unwrap_or(Dur::from_mins(2)), written.every.unwrap_or(Dur::from_secs(5)));
        let timeout = written.timeout.unwrap_or(Dur::from_secs(10));
        for (key, time) in [("within", within), ("every", every), ("timeout", timeout)] {
            self.some_time(node, key, time);
        }
        if every > within {
            self.add(node.find(&["every"]).at, format!("it would be tried every {every}, but has only {within} to pass"), None);
        }
        let with = Value::Object(written.with.clone().into_iter().collect());
        let risk = self.uses(rules, node, &written.uses, &with, &Scope::Steps(params));
        if risk.is_some_and(|risk| risk > Risk::Read) {
            let help = "verify with an action that only looks, such as `http.check`".to_owned();
            self.add(node.find(&["uses"]).at, format!("`{}` changes things, so it cannot verify", written.uses), help);
        }
        let retry = self.retry(node, None);
        let (id, uses) = (VERIFY.to_owned(), written.uses.clone());
        let step = StepSpec { id, uses, with, timeout, retry, continue_on_error: false, effect: None, on_unknown: None, check: None };
        VerifySpec { step, within, every }
    }

    fn approval(&mut self, rules: &RuleSet, node: &Node, written: &schema::Approval) -> ApprovalPolicy {
        let mut good = true;
        for (index, role) in written.roles.iter().enumerate() {
            good &= self.known_role(role, node.find(&["roles", &index.to_string()]).at);
        }
        for (index, name) in written.exclude.iter().enumerate() {
            good &= self.known("principal", name, "principals", node.find(&["exclude", &index.to_string()]).at);
        }
        let (quorum, expires) = (written.quorum.unwrap_or(1), written.expires.unwrap_or(Dur::from_mins(15)));
        if quorum == 0 {
            self.add(node.find(&["quorum"]).at, "a quorum of nobody approves everything", "at least 1".to_owned());
        }
        self.some_time(node, "expires", expires);
        // People with mistakes in their entries are not in `rules`: do not call them missing.
        if good && rules.people.principals.len() == self.names("principals").len() {
            self.reachable(&rules.people, written, node);
        }
        let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        ApprovalPolicy { roles: set(&written.roles), quorum, expires, exclude: set(&written.exclude) }
    }

    fn guards(&mut self, node: &Node, written: Option<&schema::Guards>) -> Guards {
        let Some(written) = written else { return Guards { concurrency: 1, ..Guards::default() } };
        let concurrency = written.concurrency.unwrap_or(1);
        if concurrency == 0 {
            self.add(node.find(&["concurrency"]).at, "a concurrency of 0 lets nothing run", "at least 1".to_owned());
        }
        let max_runs = written.max_runs.as_ref().map(|max| {
            let node = node.find(&["max_runs"]);
            if max.count == 0 {
                self.add(node.find(&["count"]).at, "a budget of 0 runs lets nothing run", "at least 1".to_owned());
            }
            self.some_time(node, "per", max.per);
            MaxRuns { count: max.count, per: max.per }
        });
        Guards { cooldown: written.cooldown, max_runs, concurrency }
    }

    fn on_failure(&mut self, node: &Node, written: &schema::Runbook) -> OnFailure {
        let Some(on_failure) = &written.on_failure else { return OnFailure::default() };
        if on_failure.lock_after == Some(0) {
            self.add(node.find(&["on_failure", "lock_after"]).at, "it cannot lock after no failure", "at least 1".to_owned());
        }
        OnFailure { escalate: on_failure.escalate == Escalate::Now, lock_after: on_failure.lock_after }
    }

    /// What is needed of a runbook because of the harm that it can do, whoever asks for it.
    fn harm(&mut self, node: &Node, runbook: &Runbook) {
        let help = || "give it `approval: { roles: [..] }`: who may say yes".to_owned();
        let mut worst = Risk::Read;
        for (step, node) in runbook.steps.iter().zip(node.find(&["steps"]).items()) {
            let risk = self.actions.get(&step.uses).map_or(Risk::Read, |action| action.risk());
            worst = worst.max(risk);
            if risk == Risk::Destructive && step.with.get("target").is_none() {
                let message = format!("`{}` is destructive and names no target", step.uses);
                self.add(node.find(&["uses"]).at, message, "give it `with: { target: .. }`, a name from `targets`".to_owned());
            }
        }
        if runbook.approval.is_some() {
            return;
        }
        if worst == Risk::Destructive {
            self.add(node.name_at(), format!("`{}` is destructive, so every run of it needs an approval", runbook.name), help());
        } else if runbook.on_failure.lock_after.is_some() {
            let at = node.find(&["on_failure", "lock_after"]).name_at();
            self.add(at, "after these failures it asks for an approval, and nobody is named who could give it", help());
        }
    }

    fn some_time(&mut self, node: &Node, key: &str, time: Dur) {
        if time.is_zero() {
            self.add(node.find(&[key]).at, format!("`{key}` of no time at all cannot work"), None);
        }
    }
}

fn is_variable(name: &str) -> bool {
    name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
