//! JSON to CEL and back, within bounds.

use std::collections::HashMap;

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt};
use cel::common::value::Val;
use cel::objects::Key;
use serde_json::{Map, Number, Value};

use super::ExprError;

/// Values, counted at every depth, that one evaluation may take in or give out.
pub(super) const MAX_NODES: usize = 200_000;

/// Text is borrowed, not copied.
pub(super) fn to_cel<'v>(json: &'v Value, left: &mut usize) -> Result<Box<dyn Val + 'v>, ExprError> {
    take(left)?;
    Ok(match json {
        Value::Null => Box::new(CelNull),
        Value::Bool(b) => Box::new(CelBool::from(*b)),
        Value::Number(n) => number(n),
        Value::String(s) => Box::new(CelString::from(s.as_str())),
        Value::Array(items) => {
            let items: Result<Vec<Box<dyn Val + 'v>>, ExprError> = items.iter().map(|item| to_cel(item, left)).collect();
            Box::new(CelList::from(items?))
        }
        Value::Object(fields) => {
            let mut map: HashMap<CelMapKey<'v>, Box<dyn Val + 'v>> = HashMap::with_capacity(fields.len());
            for (key, value) in fields {
                map.insert(CelMapKey::String(CelString::from(key.as_str())), to_cel(value, left)?);
            }
            Box::new(CelMap::from(map))
        }
    })
}

fn number<'v>(n: &Number) -> Box<dyn Val + 'v> {
    match (n.as_i64(), n.as_u64()) {
        (Some(i), _) => Box::new(CelInt::from(i)),
        (None, Some(u)) => Box::new(CelUInt::from(u)),
        (None, None) => Box::new(CelDouble::from(n.as_f64().unwrap_or(f64::NAN))),
    }
}

/// What a result is in JSON.
pub(super) fn to_json(value: &cel::Value, left: &mut usize) -> Result<Value, ExprError> {
    take(left)?;
    let none = |what: &str| ExprError::Failed(format!("the result holds {what}, which JSON cannot carry"));
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(b) => Value::Bool(*b),
        cel::Value::Int(i) => Value::from(*i),
        cel::Value::UInt(u) => Value::from(*u),
        cel::Value::Float(f) => Number::from_f64(*f).map(Value::Number).ok_or_else(|| none("a number that is not finite"))?,
        cel::Value::String(s) => Value::String(s.to_string()),
        cel::Value::Timestamp(t) => Value::String(t.to_rfc3339()),
        // As CEL's own string(duration).
        cel::Value::Duration(d) => Value::String(format!("{}s", d.as_seconds_f64())),
        cel::Value::List(items) => Value::Array(items.iter().map(|item| to_json(item, left)).collect::<Result<_, _>>()?),
        cel::Value::Map(map) => {
            let mut fields = Map::new();
            for (key, value) in map.map.iter() {
                let key = match key {
                    Key::String(s) => s.to_string(),
                    Key::Int(i) => i.to_string(),
                    Key::Uint(u) => u.to_string(),
                    Key::Bool(b) => b.to_string(),
                };
                fields.insert(key, to_json(value, left)?);
            }
            Value::Object(fields)
        }
        cel::Value::Bytes(_) => return Err(none("bytes")),
        cel::Value::Opaque(_) => return Err(none("an optional: add `.orValue(..)`")),
        cel::Value::Function(..) | cel::Value::Struct(_) => return Err(none("a function or a message")),
    })
}

fn take(left: &mut usize) -> Result<(), ExprError> {
    *left = left.checked_sub(1).ok_or(ExprError::TooMuch("it holds more than 200000 values"))?;
    Ok(())
}
