//! Hygiene for text that others wrote: labels, annotations, comments and program output on their way to people and to the database.

use std::borrow::Cow;
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// Labels kept of one alert.
pub const MAX_LABELS: usize = 64;
/// Longest label or annotation name, in bytes.
pub const MAX_NAME: usize = 256;
/// Longest label value, in bytes.
pub const MAX_VALUE: usize = 4 * 1024;
/// Longest annotation, in bytes.
pub const MAX_ANNOTATION: usize = 16 * 1024;

/// What stands where text was cut.
const CUT: char = '…';

/// Labels that decide where an alert belongs: these are kept first when an alert has too many.
const IDENTITY: [&str; 8] = ["alertname", "severity", "service", "instance", "job", "namespace", "cluster", "env"];

/// One line of at most `max_chars` characters, safe to show: line ends and tabs become blanks, other control characters visible
/// symbols (`␛`), direction overrides visible escapes (`\u{202e}`); invisible characters are dropped. A cut ends with `…`.
///
/// Markup, mentions and HTML are the business of whoever shows it.
pub fn clean_line(text: &str, max_chars: usize) -> String {
    clean(text, max_chars, false)
}

/// As [`clean_line`] but keeps the lines and tabs; `\r\n` and a lone `\r` become `\n`.
pub fn clean_block(text: &str, max_chars: usize) -> String {
    clean(text, max_chars, true)
}

/// Makes NUL visible (`␀`): PostgreSQL refuses it in text and JSON.
pub fn escape_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{2400}").into() } else { text.into() }
}

/// At most `max_chars` characters, the last of them `…` where text was cut. Nothing else changes.
pub fn shorten(text: &str, max_chars: usize) -> Cow<'_, str> {
    if text.char_indices().nth(max_chars).is_none() {
        return text.into();
    }
    let mut out: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    if max_chars > 0 {
        out.push(CUT);
    }
    out.into()
}

/// As [`shorten`] but counted in bytes of UTF-8, the mark included.
pub fn shorten_bytes(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return text.into();
    }
    let keep = text.floor_char_boundary(max_bytes.saturating_sub(CUT.len_utf8()));
    let mut out = text[..keep].to_owned();
    if max_bytes >= CUT.len_utf8() {
        out.push(CUT);
    }
    out.into()
}

/// Bounds the labels of one alert ([`MAX_LABELS`], [`MAX_NAME`], [`MAX_VALUE`]) and makes NUL visible. Returns how many labels were
/// shortened or dropped. The labels that say where an alert belongs go last: 64 others cannot push out `alertname`.
pub fn cap_labels(labels: BTreeMap<String, String>) -> (BTreeMap<String, String>, u32) {
    cap(labels, MAX_VALUE)
}

/// As [`cap_labels`], with room for prose in the values ([`MAX_ANNOTATION`]).
pub fn cap_annotations(annotations: BTreeMap<String, String>) -> (BTreeMap<String, String>, u32) {
    cap(annotations, MAX_ANNOTATION)
}

fn cap(mut pairs: BTreeMap<String, String>, max_value: usize) -> (BTreeMap<String, String>, u32) {
    let within = |(name, value): (&String, &String)| {
        name.len() <= MAX_NAME && value.len() <= max_value && !name.contains('\0') && !value.contains('\0')
    };
    if pairs.len() <= MAX_LABELS && pairs.iter().all(within) {
        return (pairs, 0);
    }
    let first: Vec<_> = IDENTITY.iter().filter_map(|name| pairs.remove_entry(*name)).collect();
    let (mut kept, mut cut) = (BTreeMap::new(), 0);
    for (name, value) in first.into_iter().chain(pairs) {
        let (nul_name, nul_value) = (escape_nul(&name), escape_nul(&value));
        let (short_name, short_value) = (shorten_bytes(&nul_name, MAX_NAME), shorten_bytes(&nul_value, max_value));
        let shortened = short_name.len() != nul_name.len() || short_value.len() != nul_value.len();
        // Two long names can become one: the first stays, the other counts as cut.
        let room = kept.len() < MAX_LABELS && !kept.contains_key(short_name.as_ref());
        cut += u32::from(shortened || !room);
        if room {
            kept.insert(short_name.into_owned(), short_value.into_owned());
        }
    }
    (kept, cut)
}

fn clean(text: &str, max_chars: usize, keep_lines: bool) -> String {
    let mut out = String::with_capacity(text.len().min(max_chars.saturating_mul(4)));
    // Characters written, and the length up to which there is room for the mark behind.
    let (mut written, mut room) = (0, 0);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\r' && chars.peek() == Some(&'\n') {
            continue;
        }
        written += push_visible(&mut out, c, keep_lines);
        if written > max_chars {
            out.truncate(room);
            if max_chars > 0 {
                out.push(CUT);
            }
            break;
        }
        if written < max_chars {
            room = out.len();
        }
    }
    out
}

/// Writes what stands for `c` and returns how many characters that is.
fn push_visible(out: &mut String, c: char, keep_lines: bool) -> usize {
    match c {
        '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' if keep_lines => out.push('\n'),
        '\t' if keep_lines => out.push('\t'),
        '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => out.push(' '),
        // Unicode's own pictures of the control characters.
        '\0'..'\u{20}' => out.push(char::from_u32(0x2400 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER)),
        '\u{7f}' => out.push('\u{2421}'),
        c if is_invisible(c) => return 0,
        c if c.is_control() || is_direction(c) => {
            let escape = c.escape_unicode();
            out.extend(escape.clone());
            return escape.len();
        }
        c => out.push(c),
    }
    1
}

/// Characters that turn the reading direction around: `gpj.exe` for `exe.jpg`.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters that show nothing and so can hide in names that look equal: zero-width marks, joiners, fillers, tags, selectors.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200d}'
            | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The known word that was probably meant by `word`.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = |other: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &other.to_lowercase());
    let near = |(far, other): &(usize, &str)| *far <= (other.chars().count().max(word.chars().count()) / 3).max(1);
    known.into_iter().map(|other| (far(other), other)).filter(near).min().map(|(_, other)| other)
}
#[cfg(test)]
pub(crate) use tests::hostile;
