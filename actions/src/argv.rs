//! Builds the arguments of a program so that data stays data: no shell, and nothing that came from a label can act as an option.
//!
//! `args` is one list, in order. Its elements are
//! - text or a number: one argument, which may not begin with `-`;
//! - a mapping of one option to its value: `{--format: custom}` becomes `--format=custom`, `{-C: /srv/app}` becomes `-C` and `/srv/app`,
//!   `{--verbose: true}` becomes `--verbose`, `{--verbose: false}` nothing, `{--: true}` the separator `--`.
//!
//! Templates fill values, never keys, so options are always the author's own words and a value can only ever be a value.

use std::collections::BTreeMap;

use domain::text::clean_line;
use schemars::JsonSchema;
use serde_json::Value;

const MAX_ARGS: usize = 256;
const MAX_ARG: usize = 8 * 1024;
const MAX_ALL: usize = 64 * 1024;

/// What an element of `args` looks like, for the schema alone: [`build`] reads it, with better messages.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a shape for the schema; values are read by hand")]
pub(crate) enum Arg {
    /// One argument. It may not begin with `-`.
    Text(String),
    /// One argument.
    Number(f64),
    /// One option and its value, or true.
    Option(BTreeMap<String, Scalar>),
}

/// The value of an option.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a shape for the schema; values are read by hand")]
pub(crate) enum Scalar {
    Flag(bool),
    Number(f64),
    Text(String),
}

/// The arguments of `args`, or what is wrong with them.
pub(crate) fn build(args: &[Value]) -> Result<Vec<String>, String> {
    let mut argv = vec![];
    for (i, arg) in args.iter().enumerate() {
        let at = |problem: String| format!("`args`, element {}: {problem}", i + 1);
        match arg {
            Value::Object(option) => match option.iter().next() {
                Some((name, value)) if option.len() == 1 => push_option(&mut argv, name, value).map_err(at)?,
                _ => return Err(at("a mapping must hold exactly one option".to_owned())),
            },
            other => argv.push(data(other).map_err(at)?),
        }
    }
    if argv.len() > MAX_ARGS || argv.iter().map(String::len).sum::<usize>() > MAX_ALL {
        return Err(format!("`args`: more than {MAX_ARGS} arguments or {MAX_ALL} bytes; give large data as `stdin`"));
    }
    Ok(argv)
}

/// Text that may stand in an argument or in the environment.
pub(crate) fn plain(text: &str) -> Result<(), String> {
    if let Some(bad) = text.chars().find(|c| matches!(c, '\0' | '\n' | '\r')) {
        return Err(format!("{:?} holds {bad:?}, which no argument may; give such data as `stdin`", clean_line(text, 60)));
    }
    if text.len() > MAX_ARG {
        return Err(format!("{:?} is longer than {MAX_ARG} bytes; give large data as `stdin`", clean_line(text, 60)));
    }
    Ok(())
}

fn push_option(argv: &mut Vec<String>, name: &str, value: &Value) -> Result<(), String> {
    let word = name.strip_prefix("--").or_else(|| name.strip_prefix('-')).unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let named = word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.len() <= 100 && word.chars().all(fits);
    if name != "--" && !named {
        return Err(format!("{:?} is no option: write it like {{--name: value}} or {{-n: value}}", clean_line(name, 60)));
    }
    match value {
        Value::Bool(true) => argv.push(name.to_owned()),
        Value::Bool(false) => {}
        _ if name == "--" => return Err("write {--: true}".to_owned()),
        value if name.starts_with("--") => {
            // Glued to its option, a value may begin as it likes.
            let value = scalar(value)?;
            plain(&value)?;
            argv.push(format!("{name}={value}"));
        }
        value => argv.extend([name.to_owned(), data(value)?]),
    }
    Ok(())
}

/// An argument of its own.
fn data(value: &Value) -> Result<String, String> {
    let text = scalar(value)?;
    plain(&text)?;
    match text.starts_with('-') {
        true => Err(format!(
            "{:?} begins with `-`: write an option as a mapping, {{--name: value}}; data may not begin so",
            clean_line(&text, 60)
        )),
        false => Ok(text),
    }
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("it must be text, a number, or a mapping of one option".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(args: Value) -> Result<Vec<String>, String> {
        build(args.as_array().unwrap())
    }

    #[test]
    fn options_are_mappings_and_values_stay_values() {
        let argv = of(
            json!(["compose", {"--file": "/srv/app.yml"}, {"-C": "/srv"}, {"-n": 3}, {"--quiet": true}, {"-v": false}, {"--": true}, "api", 5]),
        );
        assert_eq!(argv.unwrap(), ["compose", "--file=/srv/app.yml", "-C", "/srv", "-n", "3", "--quiet", "--", "api", "5"]);
        assert_eq!(of(json!([{"--since": "-1h"}, ""])).unwrap(), ["--since=-1h", ""]);
    }

    #[test]
    fn data_cannot_become_an_option() {
        for args in [
            json!(["-rf"]),
            json!(["--"]),
            json!(["-"]),
            json!([-5]),
            json!([{"-C": "-rf"}]),
            json!([{"-n": -1}]),
            json!([{"x": "y"}]),
            json!([{"--a=b": "c"}]),
            json!([{"--a b": "c"}]),
            json!([{"---": true}]),
            json!([{"-": true}]),
            json!([{"--": "x"}]),
            json!([{"--a": 1, "--b": 2}]),
            json!([{}]),
            json!([null]),
            json!([true]),
            json!([["x"]]),
            json!([{"--a": ["x"]}]),
            json!([{"--a": null}]),
        ] {
            let error = of(args.clone()).unwrap_err();
            assert!(error.starts_with("`args`, element 1: "), "{args}: {error}");
        }
    }

    proptest! {
        /// Whatever the values are, what begins with `-` was written by the author, and every value is one element or a part of its own.
        #[test]
        fn only_keys_become_options(word in ".{0,30}", long in ".{0,30}", short in ".{0,30}") {
            if let Ok(argv) = of(json!([word, {"--long": long}, {"-s": short}, {"--": true}])) {
                prop_assert_eq!(argv, [word.clone(), format!("--long={long}"), "-s".to_owned(), short.clone(), "--".to_owned()]);
                prop_assert!(!word.starts_with('-') && !short.starts_with('-'));
            }
        }
    }

    #[test]
    fn sizes_and_line_ends_are_bounded() {
        for text in ["a\0b".to_owned(), "a\nb".to_owned(), "a\rb".to_owned(), "x".repeat(MAX_ARG + 1)] {
            assert!(of(json!([text])).unwrap_err().contains("stdin"));
            assert!(of(json!([{"--x": text}])).unwrap_err().contains("stdin"));
        }
        assert!(of(json!(vec!["x"; MAX_ARGS + 1])).is_err());
        assert!(of(json!(vec!["x".repeat(MAX_ARG); 9])).is_err());
        assert_eq!(of(json!(["x".repeat(MAX_ARG), "$(id); `id` && '\"\t*~ \u{202e}é"])).unwrap().len(), 2);
    }
}
