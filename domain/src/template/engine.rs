//! The engine behind templates: what it offers, its limits, and its errors in our words.

use std::io::{self, Write};
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Expression, Output, State, UndefinedBehavior, Value, filters, tests};

use super::{FUEL, MAX_OUTPUT, TemplateError};
use crate::text::{clean_line, nearest};

/// Filters on offer: conversions and lookups, none that can blow up its input (`format` and `indent` pad without bound) and none that
/// belongs to a sink (`escape`, `safe`). The exception is `urlencode`: only who writes a URL knows which part of it is one value.
pub(super) const FILTERS: [&str; 31] = [
    "abs",
    "bool",
    "capitalize",
    "default",
    "dictsort",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "replace",
    "reverse",
    "round",
    "select",
    "sort",
    "split",
    "string",
    "title",
    "tojson",
    "trim",
    "upper",
    "urlencode",
];

/// Tests on offer, as in `x is defined`.
pub(super) const TESTS: [&str; 11] =
    ["defined", "undefined", "none", "string", "number", "mapping", "sequence", "startingwith", "endingwith", "equalto", "in"];

/// What every template starts from. Nothing here has authority: no loader, no functions, no globals.
pub(super) static BASE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::empty();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(format);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(32);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        env.set_syntax(syntax);
    }
    add_filters(&mut env);
    add_tests(&mut env);
    env
});

/// How to allow what is not there.
pub(super) const ABSENCE: &str = "correct the name, or allow its absence with `| default(\"..\")`";

/// Why rendering failed: an undefined name can be explained further with the context at hand.
pub(super) enum Failure {
    /// Some name is undefined.
    Undefined(TemplateError),
    /// Anything else.
    Other(TemplateError),
}

impl Failure {
    /// Without the distinction.
    pub(super) fn into_error(self) -> TemplateError {
        match self {
            Failure::Undefined(error) | Failure::Other(error) => error,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        match error.kind() {
            ErrorKind::UndefinedError => Failure::Undefined(TemplateError::from_engine(error)),
            _ => Failure::Other(TemplateError::from_engine(error)),
        }
    }
}

/// Renders within the limits.
pub(super) fn render(env: &Environment<'static>, name: &str, context: &Value) -> Result<String, Failure> {
    let mut out = Limited::default();
    let rendered = env.get_template(name).and_then(|t| t.render_captured_to(context.clone(), &mut out).map(|_| ()));
    match rendered {
        _ if out.full => Err(too_large()),
        Err(error) => Err(Failure::from(&error)),
        Ok(()) => String::from_utf8(out.bytes).map_err(|_| no_json("not text")),
    }
}

/// Evaluates to JSON within the limits.
pub(super) fn evaluate(expression: &Expression<'static, 'static>, context: &Value) -> Result<serde_json::Value, Failure> {
    let value = expression.eval(context.clone()).map_err(|e| Failure::from(&e))?;
    if value.is_undefined() {
        return Err(Failure::from(&Error::from(ErrorKind::UndefinedError)));
    }
    let mut out = Limited::default();
    match serde_json::to_writer(&mut out, &value) {
        _ if out.full => Err(too_large()),
        Err(error) => Err(no_json(error)),
        Ok(()) => serde_json::from_slice(&out.bytes).map_err(no_json),
    }
}

/// Says that `path` (`labels.servce`) leads nowhere in the context, and the name that is near; `None` where it leads somewhere.
pub(super) fn missing(path: &str, context: &Value) -> Option<String> {
    let mut at = context.clone();
    let mut done = String::new();
    for step in path.split('.') {
        let next = at.get_attr(step).unwrap_or_default();
        if next.is_undefined() {
            let known: Vec<String> = at.try_iter().into_iter().flatten().filter_map(|k| k.as_str().map(str::to_owned)).collect();
            let near =
                nearest(step, known.iter().map(String::as_str)).map(|near| format!(" (did you mean `{done}{near}`?)")).unwrap_or_default();
            return Some(format!("`{}` is not defined{near}", clean_line(path, 120)));
        }
        done.push_str(step);
        done.push('.');
        at = next;
    }
    None
}

/// The engine's error for people who write templates.
pub(super) fn explain(error: &Error) -> String {
    let detail = error.detail();
    match error.kind() {
        ErrorKind::UndefinedError => format!("{}: {ABSENCE}", detail.unwrap_or("a value is not defined")),
        ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps to render: loop over less"),
        ErrorKind::SyntaxError => format!("it is not a template: {}", detail.unwrap_or("syntax error")),
        kind => match detail {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    }
}

fn too_large() -> Failure {
    Failure::Other(TemplateError::new(0, format!("the result is larger than {MAX_OUTPUT} bytes")))
}

fn no_json(why: impl std::fmt::Display) -> Failure {
    Failure::Other(TemplateError::new(0, format!("the value has no JSON form: {why}")))
}

/// Text as it is, all else as JSON writes it, and no silent `none`.
fn format(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::None => {
            Err(Error::new(ErrorKind::InvalidOperation, "a value is null where text is wanted: use `| default(\"..\", true)` to allow it"))
        }
        ValueKind::Bool | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let json = serde_json::to_string(value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
            out.write_str(&json).map_err(Error::from)
        }
        ValueKind::Bytes | ValueKind::Plain | ValueKind::Invalid => {
            Err(Error::new(ErrorKind::InvalidOperation, "a value has no text form"))
        }
        _ => write!(out, "{value}").map_err(Error::from),
    }
}

fn add_filters(env: &mut Environment<'static>) {
    env.add_filter("abs", filters::abs);
    env.add_filter("bool", filters::bool);
    env.add_filter("capitalize", filters::capitalize);
    env.add_filter("default", filters::default);
    env.add_filter("dictsort", filters::dictsort);
    env.add_filter("first", filters::first);
    env.add_filter("float", filters::float);
    env.add_filter("int", filters::int);
    env.add_filter("items", filters::items);
    env.add_filter("join", filters::join);
    env.add_filter("last", filters::last);
    env.add_filter("length", filters::length);
    env.add_filter("lines", filters::lines);
    env.add_filter("list", filters::list);
    env.add_filter("lower", filters::lower);
    env.add_filter("map", filters::map);
    env.add_filter("max", filters::max);
    env.add_filter("min", filters::min);
    env.add_filter("reject", filters::reject);
    env.add_filter("replace", replace);
    env.add_filter("reverse", filters::reverse);
    env.add_filter("round", filters::round);
    env.add_filter("select", filters::select);
    env.add_filter("sort", filters::sort);
    env.add_filter("split", filters::split);
    env.add_filter("string", filters::string);
    env.add_filter("title", filters::title);
    env.add_filter("tojson", tojson);
    env.add_filter("trim", filters::trim);
    env.add_filter("upper", filters::upper);
    env.add_filter("urlencode", urlencode);
}

fn add_tests(env: &mut Environment<'static>) {
    env.add_test("defined", tests::is_defined);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("none", tests::is_none);
    env.add_test("string", tests::is_string);
    env.add_test("number", tests::is_number);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("sequence", tests::is_sequence);
    env.add_test("startingwith", tests::is_startingwith);
    env.add_test("endingwith", tests::is_endingwith);
    env.add_test("equalto", tests::is_eq);
    env.add_test("in", tests::is_in);
}

/// Label by label a replacement could grow without bound.
fn replace(value: &str, from: &str, to: &str) -> Result<String, Error> {
    let size = value.len() + value.matches(from).count() * to.len();
    if size > MAX_OUTPUT {
        return Err(Error::new(ErrorKind::InvalidOperation, "the replaced text is too large"));
    }
    Ok(value.replace(from, to))
}

/// Plain JSON: escaping for HTML is the page's business.
fn tojson(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// One value as one piece of a path or a query: whatever it holds, it ends neither.
fn urlencode(value: &Value) -> Result<String, Error> {
    let text = match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::String | ValueKind::Number | ValueKind::Bool => value.to_string(),
        _ => return Err(Error::new(ErrorKind::InvalidOperation, "only text and numbers can be a part of a URL")),
    };
    if text == "." || text == ".." {
        // Even escaped they would lead up in a path.
        return Err(Error::new(ErrorKind::InvalidOperation, "`.` and `..` cannot be a part of a URL"));
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

/// A writer that takes [`MAX_OUTPUT`] bytes and remembers when more came.
#[derive(Default)]
struct Limited {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Limited {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > MAX_OUTPUT {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
