//! The text form of matchers, read character by character so that every error has its column.

use std::fmt::{self, Write as _};

use super::{Matcher, MatcherError, Op};

/// A text longer than this is no matcher, in bytes.
const MAX_TEXT: usize = 8 * 1024;

/// Reads exactly one matcher.
pub(super) fn one(text: &str) -> Result<Matcher, MatcherError> {
    let mut p = Parser::new(text)?;
    let matcher = p.matcher()?;
    p.blanks();
    match p.peek() {
        None => Ok(matcher),
        Some(',') => Err(p.error("one matcher was expected here: put each on its own list item, or quote a value that holds a comma")),
        Some(c) => Err(p.error(&format!("unexpected {c:?} after the value: quote a value that holds blanks or braces"))),
    }
}

/// Reads matchers between commas, with or without braces around them all.
pub(super) fn list(text: &str) -> Result<Vec<Matcher>, MatcherError> {
    let mut p = Parser::new(text)?;
    p.blanks();
    let braces = p.eat('{');
    let mut found = Vec::new();
    loop {
        p.blanks();
        if p.peek().is_none_or(|c| braces && c == '}') {
            break;
        }
        found.push(p.matcher()?);
        p.blanks();
        if !p.eat(',') {
            break;
        }
    }
    if braces && !p.eat('}') {
        return Err(p.error("expected a comma or the closing brace"));
    }
    p.blanks();
    match p.peek() {
        None => Ok(found),
        Some(c) => Err(p.error(&format!("unexpected {c:?}: expected a comma between matchers"))),
    }
}

/// A name Prometheus accepts unquoted.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut chars = name.chars();
    let start = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    chars.next().is_some_and(start) && chars.all(|c| start(c) || c.is_ascii_digit())
}

/// Quotes so that [`one`] reads the same text back.
pub(super) fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

struct Parser<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    /// Characters read so far.
    read: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, MatcherError> {
        if text.len() > MAX_TEXT {
            return Err(MatcherError { column: 1, reason: format!("the text is longer than {MAX_TEXT} bytes") });
        }
        Ok(Parser { chars: text.chars().peekable(), read: 0 })
    }

    fn matcher(&mut self) -> Result<Matcher, MatcherError> {
        self.blanks();
        let name_at = self.column();
        let name = match self.peek() {
            Some('"') => self.quoted()?,
            _ => self.word(),
        };
        if name.is_empty() {
            return Err(self.error(r#"expected a label name, as in severity="critical""#));
        }
        self.blanks();
        let op = self.op()?;
        self.blanks();
        let value_at = self.column();
        let value = match self.peek() {
            Some('"') => self.quoted()?,
            Some(c @ ('\'' | '`')) => return Err(self.error(&format!("values are quoted with \", not with {c}"))),
            // `a!==b` and `a=~~b` are typing errors, not values that begin with an operator.
            Some('=' | '~' | '!') => return Err(self.error("expected a value after the operator: quote it if it begins with =, ~ or !")),
            _ => self.word(),
        };
        // Either part can be at fault, and only an expression fails after a name was found.
        Matcher::new(name, op, value).map_err(|e| MatcherError { column: if op.as_str().contains('~') { value_at } else { name_at }, ..e })
    }

    fn op(&mut self) -> Result<Op, MatcherError> {
        let first = self.peek();
        let wrong = |p: &Self| p.error("expected =, !=, =~ or !~ after the label name");
        match first {
            Some('=') => {
                self.next();
                Ok(if self.eat('~') { Op::Match } else { Op::Equal })
            }
            Some('!') => {
                self.next();
                if self.eat('=') {
                    Ok(Op::NotEqual)
                } else if self.eat('~') {
                    Ok(Op::NotMatch)
                } else {
                    Err(wrong(self))
                }
            }
            _ => Err(wrong(self)),
        }
    }

    /// Text between quotes, unescaped; the opening quote is next.
    fn quoted(&mut self) -> Result<String, MatcherError> {
        let opened = self.column();
        self.next();
        let mut out = String::new();
        while let Some(c) = self.next() {
            match c {
                '"' => return Ok(out),
                '\\' => match self.next() {
                    Some('n') => out.push('\n'),
                    Some(c @ ('"' | '\\')) => out.push(c),
                    // As Alertmanager's classic parser: a spurious escape is a literal backslash, which is what regexes want.
                    Some(c) => out.extend(['\\', c]),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(MatcherError { column: opened, reason: "this quote is never closed".into() })
    }

    /// Unquoted text: up to a blank or a character that must be quoted.
    fn word(&mut self) -> String {
        let mut out = String::new();
        while let Some(c) = self.peek().filter(|c| !c.is_whitespace() && !"{}!=~,\\\"'`".contains(*c)) {
            out.push(c);
            self.next();
        }
        out
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next();
        self.read += usize::from(c.is_some());
        c
    }

    fn column(&self) -> usize {
        self.read + 1
    }

    fn error(&self, reason: &str) -> MatcherError {
        MatcherError { column: self.column(), reason: reason.to_owned() }
    }
}
