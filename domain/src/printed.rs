//! What a command prints while it runs, for people who watch: pieces of its output, joined again in order, with secrets taken out across the borders
//! of pieces, and only the newest kept. Best effort: the result of the step is the truth.

use serde::{Deserialize, Serialize};

use crate::redact::{RedactStream, Redactor};
use crate::text::clean_block;

/// How much of a stream is shown, in bytes.
pub const SHOWN: usize = 32 * 1024;
/// What may be the rest of a secret whose beginning is lost: so much is left out after a gap, and what follows to the end of its line. In bytes.
const UNSAFE: usize = 4 * 1024;

/// Where a program writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Source {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// As files and API call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A piece of what was printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Where to.
    pub source: Source,
    /// How many bytes went there before.
    pub offset: u64,
    /// Whether whoever sends it has nothing older: what is missing before it is gone.
    pub oldest: bool,
    /// As they were written; a character or a secret may be cut at either end.
    pub bytes: Vec<u8>,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is joined.
    Joined,
    /// Something before it is missing: it was put aside; the sender should begin again with the oldest that it has.
    Gap,
}

/// What is shown of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The newest whole lines, without secrets and control characters. Untrusted.
    pub text: String,
    /// How many lines there were by now, with those that are not shown any more.
    pub lines: u64,
    /// The same in bytes, as they are shown.
    #[serde(skip)]
    pub end: u64,
}

/// A part of what is shown of a stream, for another process that shows it as well. It holds no secrets any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Of which stream.
    pub source: Source,
    /// How many bytes were shown before.
    pub offset: u64,
    /// How many lines there were by its end.
    pub lines: u64,
    /// The text: whole lines, where they are not longer than a part.
    pub text: String,
}

/// Both streams of one attempt.
#[derive(Debug)]
pub struct Screen([Stream; 2]);

impl Screen {
    /// An empty one.
    pub fn new(redactor: &Redactor) -> Self {
        Self(Source::ALL.map(|_| Stream::new(redactor)))
    }

    /// Takes a piece.
    pub fn push(&mut self, piece: &Printed, redactor: &Redactor) -> Taken {
        self.0[piece.source as usize].push(piece, redactor)
    }

    /// What can be seen now, by [`Source::ALL`].
    pub fn shown(&self) -> [&Shown; 2] {
        self.0.each_ref().map(|stream| &stream.shown)
    }
}

#[derive(Debug)]
struct Stream {
    /// Holds back an unfinished line, and what may become a secret.
    redact: RedactStream,
    end: u64,
    /// Bytes to leave out, and then to the end of the line.
    skip: Option<usize>,
    shown: Shown,
}

impl Stream {
    fn new(redactor: &Redactor) -> Self {
        Self { redact: redactor.stream(), end: 0, skip: None, shown: Shown::default() }
    }

    fn push(&mut self, piece: &Printed, redactor: &Redactor) -> Taken {
        if piece.offset > self.end {
            if !piece.oldest {
                return Taken::Gap;
            }
            (self.redact, self.skip, self.end) = (redactor.stream(), Some(UNSAFE), piece.offset);
        }
        let known = usize::try_from(self.end - piece.offset).unwrap_or(usize::MAX);
        let Some(mut fresh) = piece.bytes.get(known..).filter(|fresh| !fresh.is_empty()) else { return Taken::Joined };
        self.end += fresh.len() as u64;
        if let Some(left) = self.skip {
            let gone = left.min(fresh.len());
            fresh = &fresh[gone..];
            self.skip = Some(left - gone);
            let Some(line) = fresh.iter().position(|byte| *byte == b'\n') else { return Taken::Joined };
            (fresh, self.skip) = (&fresh[line + 1..], None);
        }
        let text = clean_block(&String::from_utf8_lossy(&self.redact.push(fresh)), usize::MAX);
        self.shown.add(&text);
        Taken::Joined
    }
}

impl Shown {
    /// What comes behind the first `from` bytes, as far as it is still there, and at most `most` bytes of it; nothing if there is no more.
    pub fn part(&self, source: Source, from: u64, most: usize) -> Option<Part> {
        let gone = self.end.saturating_sub(self.text.len() as u64);
        let offset = from.max(gone);
        // Another count than ours is begun anew.
        let rest = self.text.get(usize::try_from(offset - gone).ok()?..).filter(|rest| !rest.is_empty())?;
        let fits = &rest[..rest.floor_char_boundary(most)];
        let text = if fits.len() < rest.len() { fits.rfind('\n').map_or(fits, |line| &fits[..=line]) } else { fits };
        let lines = self.lines.saturating_sub(rest[text.len()..].matches('\n').count() as u64);
        Some(Part { source, offset, lines, text: text.to_owned() })
    }

    /// Adds what another process shows. What is known already is passed over; where something is missing it begins anew.
    pub fn join(&mut self, part: &Part) {
        let end = part.offset.saturating_add(part.text.len() as u64);
        if end <= self.end {
            return;
        }
        if part.offset > self.end {
            (self.text, self.end) = (String::new(), part.offset);
        }
        let fresh = usize::try_from(self.end - part.offset).ok().and_then(|known| part.text.get(known..));
        self.add(fresh.unwrap_or_default());
        (self.lines, self.end) = (part.lines, end);
    }

    fn add(&mut self, text: &str) {
        self.lines += text.matches('\n').count() as u64;
        self.end = self.end.saturating_add(text.len() as u64);
        self.text.push_str(text);
        if self.text.len() > SHOWN {
            let from = self.text.ceil_char_boundary(self.text.len() - SHOWN);
            let from = self.text[from..].find('\n').map_or(from, |line| from + line + 1);
            self.text.drain(..from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "Tr0ub4dor&3-correct-horse";

    fn piece(offset: usize, oldest: bool, bytes: &str) -> Printed {
        Printed { source: Source::Stdout, offset: offset as u64, oldest, bytes: bytes.as_bytes().to_vec() }
    }

    fn redactor() -> Redactor {
        Redactor::new([SECRET]).unwrap()
    }

    fn text(screen: &Screen) -> &str {
        &screen.shown()[0].text
    }

    #[test]
    fn pieces_are_joined_whatever_comes_twice() {
        let (redactor, all) = (redactor(), "one\ntwo\u{e9}\nthree\n");
        for size in 1..all.len() {
            let mut screen = Screen::new(&redactor);
            for (n, bytes) in all.as_bytes().chunks(size).enumerate() {
                let piece = Printed { source: Source::Stdout, offset: (n * size) as u64, oldest: false, bytes: bytes.to_vec() };
                assert_eq!(screen.push(&piece, &redactor), Taken::Joined);
                assert_eq!(screen.push(&piece, &redactor), Taken::Joined, "again");
            }
            assert_eq!((text(&screen), screen.shown()[0].lines), (all, 3), "{size}");
            assert_eq!(screen.shown()[1], &Shown::default());
        }
    }

    #[test]
    fn no_part_of_a_secret_is_seen_wherever_it_is_cut() {
        let (redactor, all) = (redactor(), format!("before {SECRET} after\nend\n"));
        for cut in 0..all.len() {
            let mut screen = Screen::new(&redactor);
            for (offset, part) in [(0, &all[..cut]), (cut, &all[cut..])] {
                screen.push(&piece(offset, false, part), &redactor);
                assert!((4..SECRET.len()).all(|n| !text(&screen).contains(&SECRET[..n])), "{cut}: {}", text(&screen));
            }
            assert_eq!(text(&screen), "before [redacted] after\nend\n");
        }
    }

    #[test]
    fn after_a_gap_it_is_begun_again_and_nothing_that_may_be_half_a_secret_is_shown() {
        let redactor = redactor();
        let mut screen = Screen::new(&redactor);
        screen.push(&piece(0, false, "one\n"), &redactor);
        assert_eq!(screen.push(&piece(10, false, "four\n"), &redactor), Taken::Gap);
        assert_eq!(text(&screen), "one\n");
        // The sender begins again: nothing is missing then.
        assert_eq!(screen.push(&piece(0, true, "one\ntwo\nx\nfour\n"), &redactor), Taken::Joined);
        assert_eq!(text(&screen), "one\ntwo\nx\nfour\n");
        // And if what is missing is gone:
        let rest = format!("{}\n{}\nshown\n", &SECRET[9..], "x".repeat(UNSAFE));
        assert_eq!(screen.push(&piece(100, true, &rest), &redactor), Taken::Joined);
        assert_eq!(text(&screen), "one\ntwo\nx\nfour\nshown\n");
    }

    #[test]
    fn parts_show_the_same_elsewhere_whatever_is_lost_or_comes_twice() {
        let redactor = redactor();
        let mut screen = Screen::new(&redactor);
        let (mut whole, mut late, mut other) = (0, 0, Shown::default());
        for n in 0..2000 {
            let line = format!("line {n} \u{e9}\u{e9} \"\n");
            screen.push(&piece(whole, false, &line), &redactor);
            whole += line.len();
            if n % 7 == 0 || n == 1999 {
                while let Some(part) = screen.shown()[0].part(Source::Stdout, late, 100) {
                    assert!(part.text.len() <= 100 && part.text.ends_with('\n'), "{part:?}");
                    late = part.offset + part.text.len() as u64;
                    other.join(&part);
                    other.join(&part);
                }
                assert_eq!(&other, screen.shown()[0]);
            }
        }
        assert_eq!(screen.shown()[0].part(Source::Stdout, late, 100), None);
        // Who comes later begins with the oldest that is there; what is lost is not pretended.
        let first = screen.shown()[0].part(Source::Stdout, 0, 100).unwrap();
        assert_eq!(first.offset, whole as u64 - screen.shown()[0].text.len() as u64);
        let next = screen.shown()[0].part(Source::Stdout, first.offset + 500, 100).unwrap();
        let mut gap = Shown::default();
        gap.join(&first);
        gap.join(&next);
        assert_eq!((&gap.text, gap.lines), (&next.text, next.lines));
        // A line that is longer than a part is cut between characters.
        let mut long = Shown::default();
        long.add(&"\u{e9}".repeat(90));
        let part = long.part(Source::Stdout, 0, 99).unwrap();
        assert_eq!(part.text.len(), 98);
        let mut other = Shown::default();
        other.join(&part);
        other.join(&long.part(Source::Stdout, 98, 99).unwrap());
        assert_eq!(other, long);
        other.join(&Part { source: Source::Stdout, offset: u64::MAX, lines: 1, text: "x".to_owned() });
        other.join(&Part { source: Source::Stdout, offset: 1, lines: 1, text: "\u{e9}".repeat(100) });
    }

    #[test]
    fn only_the_newest_is_kept() {
        let redactor = redactor();
        let mut screen = Screen::new(&redactor);
        let line = format!("{}\n", "y".repeat(99));
        for n in 0..1000 {
            screen.push(&piece(n * 100, false, &line), &redactor);
        }
        screen.push(&piece(100_000, false, "last\n\u{1b}[31m"), &redactor);
        assert!(text(&screen).len() <= SHOWN && text(&screen).ends_with("yyy\nlast\n") && text(&screen).starts_with('y'));
        assert_eq!(screen.shown()[0].lines, 1001);
        screen.push(&piece(100_010, false, "\n"), &redactor);
        assert!(text(&screen).ends_with("last\n\u{241b}[31m\n"), "control characters are made visible");
    }
}
