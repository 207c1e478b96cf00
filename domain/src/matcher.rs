//! Alertmanager's label matchers: `severity="critical"`, `!=`, `=~` and `!~`, in routes, silences and inhibitions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

mod parse;
#[cfg(test)]
mod tests;

/// Compiled size one expression may take, in bytes; the same for the lazy tables it builds while matching.
const REGEX_LIMIT: usize = 256 * 1024;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`: the expression must match the whole value.
    Match,
    /// `!~`
    NotMatch,
}

/// One condition on one label. An absent label is the empty string.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: Op,
    value: String,
    /// Present exactly for `=~` and `!~`.
    regex: Option<Regex>,
}

/// Why a text is no matcher, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct MatcherError {
    /// The first character at fault, counted in characters from 1.
    pub column: usize,
    /// What is wrong and what to write instead.
    pub reason: String,
}

/// Conditions that must all hold; none at all match everything.
///
/// In YAML a list of texts, or one text in braces: `{alertname="Down", severity=~"critical|page"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Matchers(pub Vec<Matcher>);

/// The matcher that failed and what it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch<'a> {
    /// The first matcher that does not hold.
    pub matcher: &'a Matcher,
    /// The label's value; `None` when the label is absent.
    pub seen: Option<&'a str>,
}

impl Matcher {
    /// Reads one matcher. Quotes around the value are optional where it has no blank, comma, brace, quote or backslash; inside quotes
    /// `\n`, `\"` and `\\` are escapes and any other backslash stands for itself, so `"\d+"` needs no doubling. Names outside
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*` are quoted.
    ///
    /// # Errors
    /// The first thing wrong, with its column: also an expression that does not compile or is too large.
    pub fn parse(text: &str) -> Result<Matcher, MatcherError> {
        parse::one(text)
    }

    /// A matcher from its parts.
    ///
    /// # Errors
    /// The name is empty, or the expression does not compile or is too large.
    pub fn new(name: impl Into<String>, op: Op, value: impl Into<String>) -> Result<Matcher, MatcherError> {
        let (name, value) = (name.into(), value.into());
        if name.is_empty() {
            return Err(MatcherError { column: 1, reason: "the label name is empty".into() });
        }
        let regex = match op {
            Op::Match | Op::NotMatch => Some(anchored(&value).map_err(|reason| MatcherError { column: 1, reason })?),
            Op::Equal | Op::NotEqual => None,
        };
        Ok(Matcher { name, op, value, regex })
    }

    /// The label this looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The value or expression it compares with, unescaped.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether the condition holds for these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_value(labels.get(&self.name).map_or("", String::as_str))
    }

    /// Whether the condition holds for this value of the label.
    pub fn matches_value(&self, seen: &str) -> bool {
        let full_match = || self.regex.as_ref().is_some_and(|r| r.is_match(seen));
        match self.op {
            Op::Equal => seen == self.value,
            Op::NotEqual => seen != self.value,
            Op::Match => full_match(),
            Op::NotMatch => !full_match(),
        }
    }
}

impl Matchers {
    /// Reads a list: `a="b", c!="d"`, with or without braces around.
    ///
    /// # Errors
    /// The first thing wrong, with its column in the whole text.
    pub fn parse(text: &str) -> Result<Matchers, MatcherError> {
        parse::list(text).map(Matchers)
    }

    /// Whether every condition holds.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|m| m.matches(labels))
    }

    /// The first condition that does not hold, with the value it saw; `None` when all hold.
    pub fn explain<'a>(&'a self, labels: &'a BTreeMap<String, String>) -> Option<Mismatch<'a>> {
        let matcher = self.0.iter().find(|m| !m.matches(labels))?;
        Some(Mismatch { matcher, seen: labels.get(&matcher.name).map(String::as_str) })
    }
}

/// Compiles for whole-value matches, as Alertmanager does. The expression is compiled alone first: `a)|(b` must not escape the group around it.
fn anchored(expression: &str) -> Result<Regex, String> {
    let build = |text: &str| RegexBuilder::new(text).size_limit(REGEX_LIMIT).dfa_size_limit(REGEX_LIMIT).nest_limit(64).build();
    build(expression).and_then(|_| build(&format!("^(?:{expression})$"))).map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => "the expression is too large when compiled: use smaller repetitions".to_owned(),
        // The last line of a syntax error says what is wrong; the lines above draw the expression.
        e => format!("the expression does not compile: {}", e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ")),
    })
}

impl Op {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Equal => "=",
            Op::NotEqual => "!=",
            Op::Match => "=~",
            Op::NotMatch => "!~",
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.name, self.op, &self.value).hash(state);
    }
}

/// Canonical form: the name quoted only where it must be, the value always.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if parse::is_plain_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            parse::write_quoted(f, &self.name)?;
        }
        f.write_str(self.op.as_str())?;
        parse::write_quoted(f, &self.value)
    }
}

impl fmt::Display for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, matcher) in self.0.iter().enumerate() {
            write!(f, "{}{matcher}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not hold: ", self.matcher)?;
        match self.seen {
            Some(seen) => write!(f, "{} is {:?}", self.matcher.name, crate::text::shorten(seen, 120)),
            None => write!(f, "there is no label {}", self.matcher.name),
        }
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Matcher, MatcherError> {
        Matcher::parse(text)
    }
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Matcher, D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        Matcher::parse(&text).map_err(|e| de::Error::custom(format_args!("matcher {text:?}, {e}")))
    }
}

impl Serialize for Matchers {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Matchers {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Matchers, D::Error> {
        struct Both;

        impl<'de> de::Visitor<'de> for Both {
            type Value = Matchers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a list of matchers such as 'severity="critical"'"#)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Matchers, E> {
                Matchers::parse(text).map_err(|e| E::custom(format_args!("matchers {text:?}, {e}")))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Matchers, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Matchers)
            }
        }

        d.deserialize_any(Both)
    }
}

impl JsonSchema for Matcher {
    fn schema_name() -> Cow<'static, str> {
        "Matcher".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An Alertmanager label matcher with =, !=, =~ or !~.",
            "examples": ["severity=\"critical\"", "service=~\"api|web\""],
        })
    }
}

impl JsonSchema for Matchers {
    fn schema_name() -> Cow<'static, str> {
        "Matchers".into()
    }

    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        let item = g.subschema_for::<Matcher>();
        json_schema!({ "anyOf": [{ "type": "array", "items": item }, { "type": "string" }] })
    }
}
