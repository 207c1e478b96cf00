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
    fn add(&mut self, text: &str) {
        self.lines += text.matches('\n').count() as u64;
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
