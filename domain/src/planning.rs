//! From a runbook and its inputs to a plan: rendering, type checks, the inventory. Pure, so that it can be done afresh at click and at claim.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::action::{ActionCatalogue, Effect, Risk};
use crate::duration::Dur;
use crate::plan::{Plan, PlannedStep, PlannedVerify, Retry, Target};
use crate::rules::{Mode, ParamSpec, ParamType, Remedy, RuleSet, Runbook, StepSpec};
use crate::template::render_json;

/// Why there is no plan. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// No such runbook.
    #[error("there is no runbook {0:?} in the configuration")]
    NoRunbook(String),
    /// A parameter is missing, unknown or of the wrong kind.
    #[error("parameter `{name}`: {problem}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A template did not render, or an action refused what came of it.
    #[error("step `{step}`: {problem}")]
    Step {
        /// The step's id.
        step: String,
        /// What is wrong.
        problem: String,
    },
    /// Somebody must approve and nobody is named.
    #[error("runbook {0:?} needs an approval: give it `approval: {{ roles: [..] }}`")]
    NoApprovers(String),
}

/// Who asks, which decides whether somebody must approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A route's remedy in this mode.
    ByRoute(Mode),
    /// A person: what has an approval policy needs it.
    ByPerson,
}

/// The parameters that a route gives to its runbook, rendered from an alert.
///
/// # Errors
/// If a template fails: an undefined name is an error.
pub fn remedy_params(remedy: &Remedy, context: &Value) -> Result<Map<String, Value>, NoPlan> {
    let render = |(name, template): (&String, &Value)| {
        let value = render_json(template, context).map_err(|error| NoPlan::Parameter { name: name.clone(), problem: error.to_string() })?;
        Ok((name.clone(), value))
    };
    remedy.with.iter().map(render).collect()
}

/// Renders a runbook.
///
/// # Errors
/// See [`NoPlan`].
pub fn plan(
    rules: &RuleSet,
    actions: &dyn ActionCatalogue,
    runbook: &str,
    given: &Map<String, Value>,
    context: &Value,
    asked: Asked,
) -> Result<Plan, NoPlan> {
    let runbook = rules.runbooks.get(runbook).ok_or_else(|| NoPlan::NoRunbook(runbook.to_owned()))?;
    let params = typed_params(rules, runbook, given)?;
    let mut context = context.clone();
    context["params"] = json!(params);
    let cx = Cx { rules, actions, context: &context };
    let steps = runbook.steps.iter().map(|step| cx.step(step)).collect::<Result<Vec<_>, _>>()?;
    let verify = match &runbook.verify {
        Some(verify) => Some(PlannedVerify { step: cx.step(&verify.step)?, within: verify.within, every: verify.every }),
        None => None,
    };
    let mut plan = Plan {
        runbook: runbook.name.clone(),
        params,
        approval: None,
        guards: runbook.guards.clone(),
        steps,
        verify,
        on_failure: runbook.on_failure.clone(),
    };
    let must = match asked {
        Asked::ByRoute(Mode::Approve) => true,
        Asked::ByRoute(Mode::Auto | Mode::Observe) => plan.risk() == Risk::Destructive,
        // What is suggested is asked for by a person.
        Asked::ByRoute(Mode::Suggest) | Asked::ByPerson => runbook.approval.is_some() || plan.risk() == Risk::Destructive,
    };
    if must {
        plan.approval = Some(runbook.approval.clone().ok_or_else(|| NoPlan::NoApprovers(runbook.name.clone()))?);
    }
    Ok(plan)
}

/// The action that carries out the `check` of a step.
pub(crate) const CHECK: &str = "command";
/// The most time that a check may take.
const CHECK_TIME: Dur = Dur::from_secs(30);

struct Cx<'a> {
    rules: &'a RuleSet,
    actions: &'a dyn ActionCatalogue,
    context: &'a Value,
}

impl Cx<'_> {
    fn step(&self, spec: &StepSpec) -> Result<PlannedStep, NoPlan> {
        let fail = |problem: String| NoPlan::Step { step: spec.id.clone(), problem };
        let action = self.actions.get(&spec.uses).ok_or_else(|| fail(format!("there is no action {:?}", spec.uses)))?;
        let mut with = render_json(&spec.with, self.context).map_err(|error| fail(error.to_string()))?;
        let target = self.target(&with).map_err(fail)?;
        if let (Some(target), kinds) = (&target, action.target_kinds())
            && !kinds.is_empty()
            && !kinds.contains(&target.kind.as_str())
        {
            return Err(fail(format!("`{}` works on {}, and {:?} is a {}", spec.uses, kinds.join(", "), target.name, target.kind)));
        }
        if let Some(fields) = with.as_object_mut() {
            fields.remove("target");
        }
        action.check(&with, target.as_ref()).map_err(fail)?;
        if action.risk() == Risk::Destructive && target.is_none() {
            return Err(fail("a destructive step needs a `target` from the inventory".to_owned()));
        }
        let effect = spec.effect.unwrap_or_else(|| action.effect());
        Ok(PlannedStep {
            id: spec.id.clone(),
            uses: spec.uses.clone(),
            with,
            target,
            timeout: spec.timeout,
            retry: spec.retry,
            risk: action.risk(),
            effect,
            on_unknown: spec.on_unknown.unwrap_or_else(|| effect.on_unknown()),
            check: spec.check.as_ref().map(|check| self.check(spec, check).map(Box::new)).transpose()?,
            continue_on_error: spec.continue_on_error,
        })
    }

    /// The command that tells whether a checkable step happened, as a step that only looks.
    fn check(&self, spec: &StepSpec, check: &Value) -> Result<PlannedStep, NoPlan> {
        let mut with = check.clone();
        with["expect_exit"] = json!([0, 10]);
        let step = StepSpec {
            id: format!("{}.check", spec.id),
            uses: CHECK.to_owned(),
            with,
            timeout: CHECK_TIME,
            retry: Retry { attempts: 1, ..spec.retry },
            continue_on_error: false,
            effect: Some(Effect::ReadOnly),
            on_unknown: None,
            check: None,
        };
        Ok(PlannedStep { risk: Risk::Read, ..self.step(&step)? })
    }

    fn target(&self, with: &Value) -> Result<Option<Target>, String> {
        match with.get("target") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) => find_target(self.rules, name).map(|target| Some(target.clone())),
            Some(other) => Err(format!("`target` must be a name from the inventory, not {other}")),
        }
    }
}

fn find_target<'r>(rules: &'r RuleSet, name: &str) -> Result<&'r Target, String> {
    rules.targets.get(name).ok_or_else(|| {
        let name = crate::text::clean_line(name, 80);
        format!("{name:?} is not in the inventory: add it under `targets`, or correct the label")
    })
}

fn typed_params(rules: &RuleSet, runbook: &Runbook, given: &Map<String, Value>) -> Result<BTreeMap<String, Value>, NoPlan> {
    if let Some(name) = given.keys().find(|name| !runbook.params.contains_key(*name)) {
        let known = runbook.params.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(NoPlan::Parameter { name: name.clone(), problem: format!("runbook {:?} takes {known}", runbook.name) });
    }
    let one = |(name, spec): (&String, &ParamSpec)| {
        let fail = |problem: String| NoPlan::Parameter { name: name.clone(), problem };
        let value = given.get(name).or(spec.default.as_ref()).ok_or_else(|| fail("it is required".to_owned()))?;
        typed(rules, &spec.kind, value).map(|value| (name.clone(), value)).map_err(fail)
    };
    runbook.params.iter().map(one).collect()
}

/// Checks a value against its parameter's kind. Text from labels becomes a number only where a number is asked for.
pub(crate) fn typed(rules: &RuleSet, kind: &ParamType, value: &Value) -> Result<Value, String> {
    let text = || value.as_str().ok_or_else(|| format!("it must be text, not {value}"));
    match kind {
        ParamType::Target(kinds) => {
            let target = find_target(rules, text()?)?;
            if !kinds.is_empty() && !kinds.contains(&target.kind) {
                let kinds = kinds.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(format!("it takes a target of kind {kinds}, and {:?} is a {}", target.name, target.kind));
            }
            Ok(json!(target.name))
        }
        ParamType::Text { max, pattern } => {
            let text = text()?;
            if text.len() > *max {
                return Err(format!("it is longer than {max} bytes"));
            }
            if text.starts_with('-') {
                return Err("it may not begin with `-`".to_owned());
            }
            if text.chars().any(char::is_control) {
                return Err("it may not hold control characters".to_owned());
            }
            if let Some(pattern) = pattern {
                let anchored = regex::Regex::new(&format!("^(?:{pattern})$")).map_err(|error| error.to_string())?;
                if !anchored.is_match(text) {
                    return Err(format!("it does not match `{pattern}`"));
                }
            }
            Ok(json!(text))
        }
        ParamType::Choice(choices) => {
            let text = text()?;
            if choices.iter().any(|choice| choice == text) {
                Ok(json!(text))
            } else {
                Err(format!("it must be one of {}", choices.join(", ")))
            }
        }
        ParamType::Integer { min, max } => {
            let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
            let number = number.ok_or_else(|| "it must be a whole number".to_owned())?;
            if number < *min || number > *max { Err(format!("it must be from {min} to {max}")) } else { Ok(json!(number)) }
        }
        ParamType::Boolean => match (value.as_bool(), value.as_str()) {
            (Some(yes), _) => Ok(json!(yes)),
            (_, Some("true")) => Ok(json!(true)),
            (_, Some("false")) => Ok(json!(false)),
            _ => Err("it must be true or false".to_owned()),
        },
        ParamType::Duration => {
            let text = text()?;
            text.parse::<Dur>().map(|duration| json!(duration)).map_err(|error| error.to_string())
        }
    }
}
