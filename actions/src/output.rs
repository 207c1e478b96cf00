//! Bounded capture of what a program writes: the first and the last 64 KiB, whatever it writes in between.

use std::collections::VecDeque;

use domain::redact::Redactor;
use domain::text::clean_block;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much of the beginning and of the end is shown.
const KEEP: usize = 64 * 1024;
/// How much more is kept beyond each cut, so that a secret that lies across it is whole when it is looked for.
const OVERLAP: usize = 64 * 1024;

/// What has been read so far. It takes at most 256 KiB.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

/// What is shown of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Redacted, with no control characters but newline and tab.
    pub(crate) text: String,
    /// How much was written.
    pub(crate) bytes: u64,
    /// Whether something in the middle was left out.
    pub(crate) cut: bool,
}

impl Capture {
    /// Reads to the end, as fast as it comes: the writer never waits for us. `tell` sees what comes.
    pub(crate) async fn fill(&mut self, mut from: impl AsyncRead + Unpin, tell: impl Fn(&[u8])) {
        let mut buffer = vec![0; 16 * 1024];
        // A broken pipe is the end of what there is to read.
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            tell(&buffer[..n]);
            self.push(&buffer[..n]);
        }
    }

    /// As it can be stored: the lengths of head and tail and what was written in all, and the bytes of head and tail.
    pub(crate) fn into_parts(self) -> ([u64; 3], Vec<u8>) {
        let lengths = [self.head.len() as u64, self.tail.len() as u64, self.total];
        let mut bytes = self.head;
        bytes.extend(self.tail);
        (lengths, bytes)
    }

    /// Reads what `into_parts` gave, from the beginning of `bytes`; the rest of them too.
    pub(crate) fn from_parts([head, tail, total]: [u64; 3], bytes: &[u8]) -> Option<(Capture, &[u8])> {
        let (head, rest) = bytes.split_at_checked(usize::try_from(head).ok()?)?;
        let (tail, rest) = rest.split_at_checked(usize::try_from(tail).ok()?)?;
        Some((Capture { head: head.to_vec(), tail: tail.to_vec().into(), total }, rest))
    }

    /// Everything up to the bound, redacted.
    pub(crate) fn show(self, redactor: &Redactor) -> Shown {
        // Only what is kept is searched: a program that writes without end must not cost a search of it all.
        let redact = |bytes: &[u8]| String::from_utf8_lossy(&redactor.redact_bytes(bytes)).into_owned();
        let tail: Vec<u8> = self.tail.into();
        let whole = self.total == (self.head.len() + tail.len()) as u64;
        let (head, tail) = if whole {
            // Nothing was dropped yet: the tail only holds what did not fit into the head.
            let all = redact(&[self.head, tail].concat());
            if all.len() <= 2 * KEEP {
                return Shown { text: clean(&all), bytes: self.total, cut: false };
            }
            (all[..all.floor_char_boundary(KEEP)].to_owned(), all[all.ceil_char_boundary(all.len() - KEEP)..].to_owned())
        } else {
            // A secret across a cut stands whole within the overlap and is masked; a part of one can only stand at the overlap's
            // far end. So the overlap is redacted too, and then goes.
            let (head, tail) = (redact(&self.head), redact(&tail));
            let end = head.floor_char_boundary(head.len().saturating_sub(OVERLAP));
            let start = tail.ceil_char_boundary(OVERLAP.min(tail.len()));
            (head[..end].to_owned(), tail[start..].to_owned())
        };
        let left_out = self.total.saturating_sub(2 * KEEP as u64);
        let text = format!("{}\n[... about {left_out} bytes left out ...]\n{}", clean(&head), clean(&tail));
        Shown { text, bytes: self.total, cut: true }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = (KEEP + OVERLAP).saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(KEEP + OVERLAP);
        self.tail.drain(..excess);
    }
}

/// The last `max` bytes, from the beginning of a line where there is one.
pub(crate) fn last(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = &text[text.ceil_char_boundary(text.len() - max)..];
    end.split_once('\n').map_or(end, |(_, lines)| lines)
}

fn clean(text: &str) -> String {
    clean_block(text, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn captured(bytes: &[u8]) -> Capture {
        let mut capture = Capture::default();
        capture.fill(bytes, |_| {}).await;
        capture
    }

    #[tokio::test]
    async fn what_fits_is_shown_whole() {
        let shown = captured(b"one\r\ntwo\x1b[31m\0\xff").await.show(&Redactor::detectors_only());
        assert_eq!(shown, Shown { text: "one\ntwo\u{241b}[31m\u{2400}\u{fffd}".to_owned(), bytes: 15, cut: false });
        for size in [2 * KEEP, 2 * KEEP + 1, 2 * (KEEP + OVERLAP), 2 * (KEEP + OVERLAP) + 1, 5_000_000] {
            let shown = captured(&vec![b'x'; size]).await.show(&Redactor::detectors_only());
            assert_eq!((shown.bytes, shown.cut), (size as u64, size > 2 * KEEP), "{size}");
            assert!(shown.text.len() <= 2 * KEEP + 60, "{size}");
        }
    }

    #[tokio::test]
    async fn both_ends_are_kept() {
        let mut bytes = b"first\n".to_vec();
        bytes.extend(std::iter::repeat_n(b'.', 1_000_000));
        bytes.extend(b"\nlast");
        let shown = captured(&bytes).await.show(&Redactor::detectors_only());
        assert!(shown.text.starts_with("first\n...") && shown.text.ends_with("...\nlast"));
        assert!(shown.text.contains("about 868939 bytes left out"), "{}", &shown.text[KEEP - 10..KEEP + 60]);
    }

    /// A secret is put across every border that the capture knows.
    #[tokio::test]
    async fn no_part_of_a_secret_survives_a_cut() {
        let secret = "Tr0ub4dor&3-correct-horse";
        let redactor = Redactor::new([secret]).unwrap();
        for total in [200_000, 262_144, 262_150, 900_000] {
            for border in [KEEP, KEEP + OVERLAP, total - KEEP, total - KEEP - OVERLAP] {
                for back in [0, 1, 12, 24, 25] {
                    let mut bytes = vec![b'.'; total];
                    bytes[border - back..border - back + secret.len()].copy_from_slice(secret.as_bytes());
                    let text = captured(&bytes).await.show(&redactor).text;
                    for part in 4..secret.len() {
                        assert!(
                            !text.contains(&secret[..part]) && !text.contains(&secret[secret.len() - part..]),
                            "{total} {border} {back}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_lines_begin_at_a_line() {
        assert_eq!(last("a\nbc\nde", 4), "de");
        assert_eq!(last("a\nbc\nde", 100), "a\nbc\nde");
        assert_eq!(last("\u{e9}\u{e9}\u{e9}", 3), "\u{e9}");
    }
}
