//! Runs checked trees: the standard library, the lookup of labels and the budget for looping.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::{CelString, DYN_TYPE};
use cel::common::value::CowVal;
use cel::{Context, Env, ExecutionError};
use serde_json::Value;

use super::{ExprError, value};

/// The lookup that selections from labels become. No name in an expression can begin with `@`.
pub(super) const LOOKUP: &str = "@label";
/// What every range passes through.
pub(super) const CHARGE: &str = "@charge";

/// Elements that all ranges of one evaluation may visit together.
const BUDGET: u64 = 100_000;
const SPENT: &str = "it loops over more than 100000 elements";

thread_local! {
    /// What is left for the evaluation that runs on this thread. An overload is a plain function and can carry no state of its own.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// The standard library with our two functions.
pub(super) static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let added = env
        .add_overload(LOOKUP, "label_or_empty", vec![DYN_TYPE, DYN_TYPE], lookup)
        .and_then(|()| env.add_overload(CHARGE, "charge_range", vec![DYN_TYPE], charge));
    if let Err(error) = added {
        // Then every expression that needs them fails at run time, which tests would show.
        tracing::error!(%error, "functions of the expression language are missing");
    }
    Arc::new(env)
});

/// Evaluates with exactly the variables the tree uses.
pub(super) fn eval(tree: &IdedExpr, variables: &[String], vars: &Value) -> Result<Value, ExprError> {
    let mut context = Context::with_env(Arc::clone(&ENV));
    let mut nodes = value::MAX_NODES;
    for name in variables {
        let given = vars.get(name).ok_or_else(|| ExprError::NoValue(name.clone()))?;
        context.add_variable_as_val(name.as_str(), value::to_cel(given, &mut nodes)?);
    }
    LEFT.set(BUDGET);
    let result = cel::Value::resolve(tree, &context).map_err(explain)?;
    value::to_json(&result, &mut value::MAX_NODES.clone())
}

/// `map[key]`, or the empty string when the key is absent; anything but a map is left to CEL's own rules.
fn lookup<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (Some(key), Some(map)) = (args.pop(), args.pop()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let Some(indexer) = map.as_indexer() else {
        return Err(ExecutionError::no_such_overload("_[_]", vec![map.get_type().name().to_owned(), key.get_type().name().to_owned()]));
    };
    match indexer.get(key.as_ref()) {
        Ok(found) => Ok(CowVal::Owned(found.into_owned())),
        Err(ExecutionError::NoSuchKey(_)) => Ok(CowVal::owned(CelString::from(String::new()))),
        Err(error) => Err(error),
    }
}

/// Hands a range on unchanged when its elements fit into what is left.
fn charge<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let Some(range) = args.pop() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let size = range.as_sizer().map_or(0, |s| u64::try_from(*s.size().inner()).unwrap_or(u64::MAX));
    match LEFT.get().checked_sub(size.max(1)) {
        Some(left) => {
            LEFT.set(left);
            Ok(range)
        }
        None => Err(ExecutionError::function_error(CHARGE, SPENT)),
    }
}

fn explain(error: ExecutionError) -> ExprError {
    match error {
        ExecutionError::FunctionError { function, .. } if function == CHARGE => ExprError::TooMuch(SPENT),
        ExecutionError::NoSuchKey(key) => {
            let key = crate::text::clean_line(&key, 60);
            ExprError::Failed(format!("there is no key `{key}`: test it with `has(..)`, or write `.?{key}.orValue(..)`"))
        }
        // Some errors hold the value at fault, which can be large and hostile.
        other => ExprError::Failed(crate::text::clean_line(&other.to_string(), 300)),
    }
}
