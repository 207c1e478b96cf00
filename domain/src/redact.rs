//! Keeps secrets out of chat, logs, stored output and error texts: an exact search for every configured secret in the forms in which
//! programs print it, and a second net of detectors for well-known credentials that nobody told us of.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

mod detect;
mod forms;
mod stream;
#[cfg(test)]
mod tests;

pub use stream::RedactStream;

/// What stands where a secret was.
pub const MARK: &str = "[redacted]";

/// A shorter secret would be found everywhere, and guessed anyway. In bytes.
pub const MIN_SECRET: usize = 6;

/// A longer one is a file put in the wrong place. In bytes.
pub const MAX_SECRET: usize = 16 * 1024;

/// Finds and removes secrets. Cheap to clone; its debug form shows nothing of them.
#[derive(Clone)]
pub struct Redactor {
    /// Nothing to search for without secrets.
    exact: Option<AhoCorasick>,
    /// Every form searched for, sorted: tells a stream what may be the beginning of one.
    forms: Arc<[Vec<u8>]>,
    /// Length of the longest form.
    longest: usize,
}

/// Why a redactor cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedactError {
    /// Searching for so little would redact ordinary text.
    #[error("secret number {0} is shorter than {MIN_SECRET} bytes: use a longer one, it could not be kept out of logs")]
    TooShort(usize),
    /// Not a secret but a file.
    #[error("secret number {0} is longer than {MAX_SECRET} bytes: is this the right file?")]
    TooLong(usize),
    /// The search table for this many secrets did not fit.
    #[error("the secrets are too many or too long to search for: {0}")]
    TooMany(String),
}

impl Redactor {
    /// Searches for these secrets and for the well-known kinds. White space around a secret is not part of it; an empty one is refused
    /// like a short one.
    ///
    /// # Errors
    /// A secret is too short or too long; its number counts from 1 in the order given.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Result<Redactor, RedactError> {
        let mut forms = Vec::new();
        for (i, secret) in secrets.into_iter().enumerate() {
            let secret = secret.as_ref().trim();
            match secret.len() {
                ..MIN_SECRET => return Err(RedactError::TooShort(i + 1)),
                MIN_SECRET..=MAX_SECRET => forms::add(secret, &mut forms),
                _ => return Err(RedactError::TooLong(i + 1)),
            }
        }
        forms.sort_unstable();
        forms.dedup();
        let exact = match forms.is_empty() {
            true => None,
            // Literals only: nothing in a secret has a meaning to the search.
            false => Some(AhoCorasick::new(&forms).map_err(|e| RedactError::TooMany(e.to_string()))?),
        };
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Redactor { exact, forms: forms.into(), longest })
    }

    /// As [`Redactor::new`], from where secrets are kept.
    ///
    /// # Errors
    /// As [`Redactor::new`].
    pub fn of_secrets<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Result<Redactor, RedactError> {
        Redactor::new(secrets.into_iter().map(ExposeSecret::expose_secret))
    }

    /// Only the second net: for programs that hold no secrets.
    pub fn detectors_only() -> Redactor {
        Redactor { exact: None, forms: Arc::new([]), longest: 0 }
    }

    /// The text with every secret replaced by [`MARK`].
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.redact_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => text.into(),
            // Everything found begins and ends at characters, so nothing is lost here.
            Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
        }
    }

    /// Replaces every secret in the texts of a JSON value.
    pub fn redact_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(less) = self.redact(text) {
                    *text = less;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_value(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.redact_value(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// As [`Redactor::redact`], for output that may not be text.
    pub fn redact_bytes<'t>(&self, bytes: &'t [u8]) -> Cow<'t, [u8]> {
        let found = self.find(bytes);
        if found.is_empty() {
            return bytes.into();
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut done = 0;
        for range in found {
            out.extend_from_slice(&bytes[done..range.start]);
            out.extend_from_slice(MARK.as_bytes());
            done = range.end;
        }
        out.extend_from_slice(&bytes[done..]);
        out.into()
    }

    /// For output that comes in pieces.
    pub fn stream(&self) -> RedactStream {
        RedactStream::new(self.clone())
    }

    /// Every place to blank, in order, without overlaps. Overlapping finds are one place: a part of a secret is a secret too.
    fn find(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = detect::find(bytes);
        if let Some(exact) = &self.exact {
            found.extend(exact.find_overlapping_iter(bytes).map(|m| m.range()));
        }
        found.sort_unstable_by_key(|r| (r.start, r.end));
        found.dedup_by(|next, kept| {
            let overlaps = next.start < kept.end;
            if overlaps {
                kept.end = kept.end.max(next.end);
            }
            overlaps
        });
        found
    }

    /// Where the first suffix begins that could be the beginning of a secret whose rest has not come yet.
    fn pending_from(&self, bytes: &[u8]) -> Option<usize> {
        let begins_a_form = |tail: &[u8]| {
            let at = self.forms.partition_point(|form| form.as_slice() < tail);
            // A form equal to the tail has all come; longer ones sort right behind it.
            self.forms[at..].iter().take_while(|form| form.starts_with(tail)).any(|form| form.len() > tail.len())
        };
        let start = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        (start..bytes.len()).find(|at| begins_a_form(&bytes[*at..]))
    }
}

impl Default for Redactor {
    fn default() -> Redactor {
        Redactor::detectors_only()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} forms)", self.forms.len())
    }
}
