//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::text::{clean_line, nearest};

/// The most characters of a source line that a snippet shows.
const SNIPPET_WIDTH: usize = 120;

/// One finding. Its text form is `file:line:column: message`, the line with the place underlined, and the help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as it was named to us.
    pub file: String,
    /// From 1; 0 where the finding is about the whole file.
    pub line: usize,
    /// In characters from 1; 0 where the finding is about the whole file.
    pub column: usize,
    /// How many characters are at fault, at least 1.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The line and a mark under the place; empty where there is no place.
    pub snippet: String,
    /// The file's text, for renderers of their own.
    #[serde(skip)]
    pub source: Option<Arc<str>>,
}

impl Problem {
    /// A finding about a file as a whole.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>, help: Option<String>) -> Self {
        let (file, message, help) = one_line(file.into(), message.into(), help);
        Self { file, line: 0, column: 0, length: 1, message, help, snippet: String::new(), source: None }
    }

    /// A finding at a place of a file's text; line and column count from 1.
    pub fn at(
        file: impl Into<String>,
        source: Arc<str>,
        (line, column, length): (usize, usize, usize),
        message: impl Into<String>,
        help: Option<String>,
    ) -> Self {
        let snippet = source.lines().nth(line.saturating_sub(1)).map(|text| snippet(text, line, column, length)).unwrap_or_default();
        let (file, message, help) = one_line(file.into(), message.into(), help);
        Self { file, line, column, length: length.max(1), message, help, snippet, source: Some(source) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message)?,
            _ => write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?,
        }
        if !self.snippet.is_empty() {
            write!(f, "\n{}", self.snippet)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// `did you mean ..?`, or the list of what is known, or that there is nothing yet.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone, none: &str) -> String {
    if let Some(near) = nearest(word, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    if known.is_empty() { none.to_owned() } else { format!("known here: {}", known.join(", ")) }
}

/// What findings quote comes from files that may be somebody else's.
fn one_line(file: String, message: String, help: Option<String>) -> (String, String, Option<String>) {
    (clean_line(&file, 300), clean_line(&message, 500), help.map(|help| clean_line(&help, 500)))
}

/// The line, cut to what a terminal shows, with a mark under the characters at fault.
fn snippet(text: &str, line: usize, column: usize, length: usize) -> String {
    let chars: Vec<char> = text.chars().map(printable).collect();
    let from = column.saturating_sub(1).min(chars.len());
    let start = if chars.len() <= SNIPPET_WIDTH { 0 } else { from.saturating_sub(SNIPPET_WIDTH / 3) };
    let shown: String = chars.iter().skip(start).take(SNIPPET_WIDTH).collect();
    let marks = length.clamp(1, (chars.len().saturating_sub(from)).max(1)).min(SNIPPET_WIDTH);
    let number = line.to_string();
    format!("  {number} | {}\n  {} | {}{}", shown.trim_end(), " ".repeat(number.len()), " ".repeat(from - start), "^".repeat(marks))
}

/// Terminals obey control characters, and a configuration file may be somebody else's.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_marks_the_place_and_obeys_no_control_character() {
        let source: Arc<str> = "a: 1\nruns: \u{1b}[31mred\n".into();
        let problem = Problem::at("x.yaml", source, (2, 7, 8), "odd", Some("do this".into()));
        assert_eq!(problem.to_string(), "x.yaml:2:7: odd\n  2 | runs: \u{fffd}[31mred\n    |       ^^^^^^^^\n  help: do this");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let source: Arc<str> = format!("{}X{}", "a".repeat(500), "b".repeat(500)).into();
        let problem = Problem::at("x.yaml", source, (1, 501, 1), "odd", None);
        let lines: Vec<&str> = problem.snippet.lines().collect();
        assert_eq!(lines[0].find('X'), lines[1].find('^'));
        assert!(lines[0].len() < 140, "{}", lines[0]);
    }

    #[test]
    fn the_nearest_word_is_suggested_or_all_of_them() {
        assert_eq!(suggest("aproval", ["approval", "guards"], "-"), "did you mean `approval`?");
        assert_eq!(suggest("zebra", ["b", "a"], "-"), "known here: a, b");
        assert_eq!(suggest("zebra", [], "there are none"), "there are none");
    }
}
