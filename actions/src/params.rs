//! Reads the parameters of a step into the action's own type, with messages for the author of the runbook.

use domain::plan::Target;
use domain::text;
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The parameters, or what is wrong with which of them. The type must refuse unknown fields.
pub(crate) fn read<T: DeserializeOwned + JsonSchema>(with: &Value) -> Result<T, String> {
    // A step's parameters are read again whenever its plan is made. What is wrong with them is looked for where something is.
    if with.is_object()
        && let Ok(read) = T::deserialize(with)
    {
        return Ok(read);
    }
    let given = match with {
        Value::Null => Map::new(),
        Value::Object(given) => given.clone(),
        other => return Err(format!("`with` must be a mapping of parameters, not {other}")),
    };
    if let Some(unknown) = unknown::<T>(&given) {
        return Err(unknown);
    }
    let parse = |given: Map<String, Value>| serde_json::from_value::<T>(Value::Object(given)).map_err(|error| error.to_string());
    parse(given.clone()).map_err(|problem| {
        // serde does not say where it was; the parameter without which the problem goes away is the one.
        let culprit = given.keys().find(|name| {
            let mut others = given.clone();
            others.remove(*name);
            parse(others).err().as_ref() != Some(&problem)
        });
        culprit.map_or_else(|| problem.clone(), |name| format!("`{name}`: {problem}"))
    })
}

/// The target, which this action cannot do without.
pub(crate) fn needed(target: Option<&Target>) -> Result<&Target, String> {
    target.ok_or_else(|| "it needs a `target` from the inventory".to_owned())
}

fn unknown<T: JsonSchema>(given: &Map<String, Value>) -> Option<String> {
    let schema = schema_for!(T);
    let properties = schema.get("properties").and_then(Value::as_object);
    let known: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    let stranger = given.keys().find(|name| !known.contains(&name.as_str()))?;
    let hint = match text::nearest(stranger, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "this action takes none".to_owned(),
        None => format!("there are {}", known.join(", ")),
    };
    Some(format!("there is no parameter {:?}: {hint}", text::clean_line(stranger, 60)))
}

#[cfg(test)]
mod tests {
    use domain::duration::Dur;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct With {
        url: String,
        timeout: Option<Dur>,
    }

    #[test]
    fn messages_name_the_parameter() {
        let error = |with: Value| read::<With>(&with).unwrap_err();
        assert_eq!(error(json!({"url": "x", "timeuot": "5s"})), "there is no parameter \"timeuot\": did you mean `timeout`?");
        assert_eq!(error(json!({"url": "x", "q": 1})), "there is no parameter \"q\": there are timeout, url");
        assert_eq!(error(json!({})), "missing field `url`");
        assert_eq!(error(Value::Null), "missing field `url`");
        assert!(error(json!({"url": "x", "timeout": "5 minutes"})).starts_with("`timeout`: \"5 minutes\" is not a duration"));
        assert!(error(json!({"url": 5})).starts_with("`url`: invalid type"));
        assert!(error(json!(["x"])).contains("mapping"));
        let with: With = read(&json!({"url": "x", "timeout": "5s"})).unwrap();
        assert_eq!((with.url.as_str(), with.timeout), ("x", Some(Dur::from_secs(5))));
    }
}
