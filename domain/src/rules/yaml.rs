//! From YAML text to a tree with places, within budgets.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Spanned};

use super::tree::{Data, Node, Pos};

/// What is wrong with the text.
pub(super) struct Fault {
    pub(super) at: Pos,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Reads one file's text; `file` is its number in every place. The faults beside the node are of keys given twice.
///
/// # Errors
/// The text is no YAML, or exceeds the budgets: there is no reading on after that.
pub(super) fn read(file: usize, text: &str) -> Result<(Node, Vec<Fault>), Fault> {
    let nowhere = Pos { file, line: 0, column: 0, length: 0 };
    match serde_saphyr::from_str_with_options::<Option<Raw>>(text, options()) {
        Ok(None) => Ok((Node::new(nowhere, Data::Null), Vec::new())),
        Ok(Some(raw)) => {
            let mut reader = Reader { file, text, faults: Vec::new() };
            Ok((reader.node(raw), reader.faults))
        }
        Err(error) => {
            let at = error.location().map_or(nowhere, |location| pos(file, location));
            Err(Fault { at, message: not_yaml(&error), help: None })
        }
    }
}

/// Budgets against files made to exhaust us; spellings kept where YAML would guess a number.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 48,
            max_nodes: 200_000,
            max_events: 600_000,
            max_aliases: 2_000,
            max_anchors: 2_000,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        // Told by `Reader`, all of them, with both places.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// The parser's words, without the place that we show in our own form.
fn not_yaml(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.split(" at line ").next().unwrap_or_default().trim_end_matches([':', ',', ' ']);
    let ours = [
        ("budget breached: Documents", "it holds several documents: make a file of each"),
        ("recursion limit exceeded", "it is nested more than 48 levels deep"),
        ("budget breached: Depth", "it is nested more than 48 levels deep"),
        ("alias replay", "its aliases repeat more than can be meant"),
        ("budget breached", "it is larger than can be meant"),
    ];
    let ours = ours.into_iter().find(|(theirs, _)| text.contains(theirs)).map(|(_, ours)| ours);
    format!("this is not readable as YAML: {}", ours.unwrap_or(text))
}

fn pos(file: usize, location: Location) -> Pos {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Pos { file, line: size(location.line()), column: size(location.column()).max(1), length: size(location.span().len()) }
}

/// Turns what the YAML library gives into our tree.
struct Reader<'a> {
    file: usize,
    text: &'a str,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn node(&mut self, raw: Raw) -> Node {
        let Raw(Spanned { value, referenced, defined, .. }) = raw;
        let data = match value {
            RawData::Null => Data::Null,
            RawData::Bool(value) => Data::Bool(value),
            RawData::Number(value) => {
                let written = self.written(defined).unwrap_or_else(|| value.to_string());
                Data::Number(value, written)
            }
            RawData::Text(text) => Data::Text(text),
            RawData::List(items) => Data::List(items.into_iter().map(|item| self.node(item)).collect()),
            RawData::Map(entries) => self.map(entries),
        };
        Node::new(pos(self.file, referenced), data)
    }

    fn map(&mut self, entries: Vec<(Spanned<String>, Raw)>) -> Data {
        let mut kept: Vec<(String, Node)> = Vec::with_capacity(entries.len());
        let mut seen = HashMap::new();
        for (key, raw) in entries {
            let at = pos(self.file, key.referenced);
            let node = Node { key: Some(at), ..self.node(raw) };
            match seen.get(&key.value) {
                Some(first) => {
                    let help = Some(format!("it is at line {first} already: keep one of them"));
                    self.faults.push(Fault { at, message: format!("`{}` is given twice", key.value), help });
                }
                None => {
                    seen.insert(key.value.clone(), at.line);
                    kept.push((key.value, node));
                }
            }
        }
        Data::Map(kept)
    }

    fn written(&self, at: Location) -> Option<String> {
        let (from, len) = (at.span().byte_offset()?, at.span().byte_len()?);
        let from = usize::try_from(from).ok()?;
        let to = from.checked_add(usize::try_from(len).ok()?)?;
        self.text.get(from..to).map(|text| text.trim().to_owned())
    }
}

struct Raw(Spanned<RawData>);

enum RawData {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Spanned::deserialize(d).map(Raw)
    }
}

impl<'de> Deserialize<'de> for RawData {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawData;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<RawData, E> {
        Ok(RawData::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawData, E> {
        Ok(RawData::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawData, E> {
        Ok(RawData::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawData, E> {
        Ok(RawData::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<RawData, E> {
        Number::from_f64(value).map(RawData::Number).ok_or_else(|| E::custom("this number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawData, E> {
        Ok(RawData::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<RawData, E> {
        Ok(RawData::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawData, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(RawData::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawData, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(RawData::Map(entries))
    }
}
