//! A look at a template before the engine compiles it: only offered statements, filters and tests may appear, so that a misspelt one is
//! found at load and not in the night.

use std::ops::Range;

use super::TemplateError;
use super::engine::{FILTERS, TESTS};
use crate::text::nearest;

/// Statements on offer. Assignments could double a text with every line, and the rest needs authority or is for pages.
const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];

/// Names and signs in one block. The engine recurses for each link of a chain such as `a ~ b ~ c` when it compiles.
const MAX_WORDS: usize = 200;
/// How deep `if`, `elif` and `for` may nest.
const MAX_NESTING: usize = 16;

/// A `{{ .. }}`, `{% .. %}` or `{# .. #}`.
#[derive(Debug, PartialEq)]
pub(super) struct Block {
    /// The second character of its opening: `{`, `%` or `#`.
    kind: char,
    /// With its delimiters.
    outer: Range<usize>,
    /// Between its delimiters and `-` or `+` marks.
    inner: Range<usize>,
}

/// Every block; an unclosed one reaches to the end and is left to the engine to refuse.
///
/// # Errors
/// A statement, filter or test that is not offered; blocks that are too long or nest too deep.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>, TemplateError> {
    let mut found = Vec::new();
    let (mut at, mut nesting) = (0, Nesting::default());
    while let Some(open) = next_open(text, at) {
        let block = block(text, open);
        if block.kind != '#' {
            let words = words(&text[block.inner.clone()]);
            let checked = check(&words, block.kind == '%').and_then(|()| if block.kind == '%' { nesting.follow(&words) } else { Ok(()) });
            checked.map_err(|message| TemplateError::new(line_of(text, open), message))?;
        }
        at = block.outer.end;
        found.push(block);
    }
    Ok(found)
}

/// The expression, if the whole text is one `{{ expression }}`.
pub(super) fn only_expression<'t>(text: &'t str, blocks: &[Block]) -> Option<&'t str> {
    match blocks {
        [only] if only.kind == '{' && only.outer == (0..text.len()) => Some(text[only.inner.clone()].trim()),
        _ => None,
    }
}

/// A part of a template, in the order of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    /// It stands for itself.
    Text(&'t str),
    /// The expression between `{{` and `}}`.
    Value(&'t str),
    /// `{% .. %}`, which makes nothing itself and may leave out or repeat what is around.
    Statement,
}

/// The parts of a template that compiles; remarks are left out.
pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut found, mut at) = (Vec::new(), 0);
    for block in blocks(text).unwrap_or_default() {
        found.push(Part::Text(&text[at..block.outer.start]));
        match block.kind {
            '{' => found.push(Part::Value(&text[block.inner.clone()])),
            '%' => found.push(Part::Statement),
            _ => {}
        }
        at = block.outer.end;
    }
    found.push(Part::Text(&text[at..]));
    found
}

/// Whether all that an expression makes goes through the filter `urlencode` at last. A filter binds closer than any operator, so outside of brackets
/// there may be none.
pub(crate) fn is_urlencoded(body: &str) -> bool {
    let words = words(body);
    let mut depth = 0_usize;
    let plain = words.iter().all(|word| {
        match *word {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            "." | "|" | "\"\"" => {}
            word => return is_name(word) && !["if", "else", "and", "or", "not", "in", "is"].contains(&word),
        }
        true
    });
    plain && words.ends_with(&["|", "urlencode"])
}

fn next_open(text: &str, from: usize) -> Option<usize> {
    let rest = &text[from..];
    ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min().map(|at| from + at)
}

fn block(text: &str, open: usize) -> Block {
    let kind = text[open + 1..].chars().next().unwrap_or('{');
    let body = open + 2;
    let (close, end) = match kind {
        '#' => text[body..].find("#}").map_or((text.len(), text.len()), |at| (body + at, body + at + 2)),
        kind => match close_of(&text[body..], if kind == '%' { "%}" } else { "}}" }) {
            Some(at) => (body + at, body + at + 2),
            None => (text.len(), text.len()),
        },
    };
    let mut inner = body..close;
    // White space control marks belong to the delimiters.
    if text[inner.clone()].starts_with(['-', '+']) {
        inner.start += 1;
    }
    if text[inner.clone()].ends_with(['-', '+']) {
        inner.end -= 1;
    }
    Block { kind, outer: open..end, inner }
}

/// The closing delimiter outside of quotes and brackets, as the engine's lexer finds it.
fn close_of(body: &str, close: &str) -> Option<usize> {
    let (mut quote, mut escaped, mut depth) = (None, false, 0);
    for (at, c) in body.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if depth == 0 && body[at..].starts_with(close) => return Some(at),
            None => match c {
                '"' | '\'' => quote = Some(c),
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            },
        }
    }
    None
}

/// Names and signs in order; texts in quotes are left out, so nothing inside them counts.
fn words(body: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '"' | '\'' => {
                let mut escaped = false;
                let end = rest[1..].find(|x| {
                    let ends = !escaped && x == c;
                    escaped = !escaped && x == '\\';
                    ends
                });
                // A place holder, so that `|` before a text is not joined with a name behind it.
                found.push("\"\"");
                end.map_or(rest.len(), |at| at + 2)
            }
            c if c.is_alphanumeric() || c == '_' => {
                let end = rest.find(|x: char| !(x.is_alphanumeric() || x == '_')).unwrap_or(rest.len());
                found.push(&rest[..end]);
                end
            }
            c if c.is_whitespace() => c.len_utf8(),
            c => {
                found.push(&rest[..c.len_utf8()]);
                c.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    found
}

fn check(words: &[&str], is_statement: bool) -> Result<(), String> {
    if words.len() > MAX_WORDS {
        return Err(format!("a block holds more than {MAX_WORDS} names and signs: split it"));
    }
    if is_statement && let Some(word) = words.first() {
        known("statement", word, &STATEMENTS)?;
    }
    for (i, word) in words.iter().enumerate() {
        let attribute = i > 0 && words[i - 1] == ".";
        match (*word, &words[i + 1..]) {
            ("*", _) => {
                return Err("`*` is not offered: a label could ask for a hundred megabytes; count in the source of the value".to_owned());
            }
            ("|", [filter, ..]) if is_name(filter) => known("filter", filter, &FILTERS)?,
            ("is", ["not", test, ..] | [test, ..]) if !attribute && is_name(test) => known("test", test, &TESTS)?,
            _ => {}
        }
    }
    Ok(())
}

/// How deep the statements nest: an `elif` is one more `if` inside to the engine. Each open statement counts what it will close.
#[derive(Default)]
struct Nesting(Vec<usize>);

impl Nesting {
    fn follow(&mut self, words: &[&str]) -> Result<(), String> {
        match words.first() {
            Some(&("if" | "for")) => self.0.push(1),
            Some(&"elif") => {
                if let Some(inner) = self.0.last_mut() {
                    *inner += 1;
                }
            }
            Some(&("endif" | "endfor")) => drop(self.0.pop()),
            _ => {}
        }
        match self.0.iter().sum::<usize>() {
            0..=MAX_NESTING => Ok(()),
            _ => Err(format!("statements nest more than {MAX_NESTING} deep (each `elif` counts): simplify the template")),
        }
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn known(kind: &str, word: &str, offered: &[&str]) -> Result<(), String> {
    if offered.contains(&word) {
        return Ok(());
    }
    let hint = match nearest(word, offered.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", offered.join(", ")),
    };
    Err(format!("there is no {kind} `{}` here; {hint}", crate::text::clean_line(word, 40)))
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}
