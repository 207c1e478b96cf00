//! From the tree to typed structs, by serde. Unlike most deserializers it does not stop at the first mistake: what is wrong is told, left out,
//! and the rest read again, so that one `check` shows everything.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeOwned};

use super::problem::suggest;
use super::report::Report;
use super::tree::{Node, Pos};
use crate::text::nearest;
use reading::Reading;

mod reading;

/// Findings of one value beyond this many are not searched for.
const MOST: usize = 40;

/// Reads a value. `None` if anything in it was wrong: what was is in the report.
pub fn decode<T: DeserializeOwned>(node: &Node, report: &mut Report<'_>) -> Option<T> {
    let state = State::default();
    let mut value = None;
    for _ in 0..MOST {
        match T::deserialize(Reading { node, state: &state }).map_err(|fault| fault.within(node)) {
            Ok(read) => {
                value = Some(read);
                break;
            }
            Err(fault) => match state.leave_out(node, fault) {
                true => {}
                false => break,
            },
        }
    }
    let found = state.found.into_inner();
    let clean = found.is_empty();
    for (at, message, help) in found {
        report.add(at, message, help);
    }
    value.filter(|_| clean)
}

/// What one `decode` knows across its attempts. Nodes are told apart by address: they do not move meanwhile.
#[derive(Default)]
struct State {
    left_out: RefCell<HashSet<usize>>,
    told: RefCell<HashSet<usize>>,
    found: RefCell<Vec<(Pos, String, Option<String>)>>,
}

impl State {
    /// Tells the fault and leaves its node out of the next attempt. False when that leaves nothing.
    fn leave_out(&self, root: &Node, fault: Fault) -> bool {
        let (node, at) = fault.place.unwrap_or((address(root), root.at));
        let mut found = self.found.borrow_mut();
        if !fault.cascade || found.is_empty() {
            found.push((at, fault.message, fault.help));
        }
        node != address(root) && self.left_out.borrow_mut().insert(node)
    }

    fn is_left_out(&self, node: &Node) -> bool {
        self.left_out.borrow().contains(&address(node))
    }

    fn unknown_key(&self, name: &str, node: &Node, known: &'static [&'static str]) {
        if self.told.borrow_mut().insert(address(node)) {
            let help = suggest(name, known.iter().copied(), "nothing is known here");
            self.found.borrow_mut().push((node.name_at(), format!("unknown key `{name}`"), Some(help)));
        }
    }
}

fn address(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

/// What went wrong, and in which node once that is known.
#[derive(Debug)]
struct Fault {
    message: String,
    help: Option<String>,
    place: Option<(usize, Pos)>,
    /// The name of a key that is missing, until the map is known.
    missing: Option<&'static str>,
    /// It follows from something told already.
    cascade: bool,
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, place: None, missing: None, cascade: false }
    }

    fn within(mut self, node: &Node) -> Self {
        if self.place.is_some() {
            return self;
        }
        let at = match self.missing {
            Some(name) => {
                // The key is there and was left out for its own fault, or it is misspelt, which is told already.
                self.cascade = node.entries().iter().any(|(key, _)| key == name || nearest(key, [name]).is_some());
                node.name_at()
            }
            None => node.at,
        };
        if node.masked {
            self.message = "the value that was put in here is not acceptable (it is not shown: it may be a secret)".to_owned();
            self.help = Some("look at the environment variable or file that it comes from".to_owned());
        }
        self.place = Some((address(node), at));
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            de::Unexpected::Str(text) => format!("text {:?}", text.chars().take(40).collect::<String>()),
            de::Unexpected::Unsigned(n) => format!("the number {n}"),
            de::Unexpected::Signed(n) => format!("the number {n}"),
            de::Unexpected::Seq => "a list".to_owned(),
            de::Unexpected::Unit => "nothing".to_owned(),
            other => other.to_string(),
        };
        Self::new(format!("expected {}, found {found}", plain(&expected.to_string())))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        let help = suggest(found, known.iter().copied(), "nothing is known here");
        Self { help: Some(help), ..Self::new(format!("`{found}` is none of {}", known.join(", "))) }
    }

    fn missing_field(name: &'static str) -> Self {
        Self { missing: Some(name), ..Self::new(format!("the key `{name}` is missing")) }
    }
}

/// Serde's words for what it expects, in ours.
fn plain(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list",
        "a string" | "a character" | "string" => "text",
        "a boolean" => "true or false",
        "i64" | "i32" | "i16" | "i8" => "a whole number",
        "u64" | "u32" | "u16" | "u8" | "usize" | "a nonzero u32" | "a nonzero u64" => "a whole number that is not negative",
        _ if expected.starts_with("struct ") || expected.starts_with("internally tagged") => "a map",
        _ => expected,
    }
}
