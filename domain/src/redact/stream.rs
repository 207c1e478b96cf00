//! Redaction of output that comes in pieces: a secret cut in two by a chunk border is found all the same.

use super::{MARK, Redactor, detect};

/// A line longer than this is let go in parts, so that endless lines need no endless memory. In bytes.
const MAX_LINE: usize = 16 * 1024;
/// What stays of such a line, in bytes.
const KEEP: usize = detect::RECOGNISED + detect::CONTEXT;
/// A private key longer than this is blanked without waiting for its end. In bytes.
const MAX_PEM: usize = 64 * 1024;

/// Holds back only what may still become a secret: an unfinished line for the detectors (they never cross one, except private keys), and
/// the beginning of any configured secret. Call [`finish`](RedactStream::finish) at the end, or the rest is lost.
#[derive(Debug)]
pub struct RedactStream {
    redactor: Redactor,
    held: Vec<u8>,
    swallow: Option<Swallow>,
}

/// What goes on after a piece that was too long to wait for its end: already marked, so it is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Swallow {
    /// To the next white space.
    Token,
    /// To the end of the private key.
    Pem,
}

impl RedactStream {
    pub(super) fn new(redactor: Redactor) -> Self {
        RedactStream { redactor, held: Vec::new(), swallow: None }
    }

    /// Takes the next piece and returns what can be shown by now.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(chunk);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// The rest, once nothing more comes.
    pub fn finish(mut self) -> Vec<u8> {
        self.drop_swallowed();
        if self.swallow.is_some() {
            return Vec::new();
        }
        self.redactor.redact_bytes(&self.held).into_owned()
    }

    /// Bytes held back now.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Lets go of what is safe; true when it should be called again.
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        self.drop_swallowed();
        if self.swallow.is_some() {
            return false;
        }
        let line = line_start(&self.held, self.held.len());
        let too_long = self.held.len() - line > MAX_LINE;
        // Never cut between a find and what makes it one: at the start of a line, or at least well before.
        let before = |held: &[u8], at: usize| if too_long { at.saturating_sub(detect::CONTEXT) } else { line_start(held, at) };
        let mut cut = if too_long { self.held.len() - KEEP } else { line };
        if let Some(pending) = self.redactor.pending_from(&self.held).filter(|at| *at < cut) {
            cut = before(&self.held, pending);
        }
        let found = self.redactor.find(&self.held);
        if let Some(open) = found.last().filter(|r| r.end == self.held.len() && detect::is_open_pem(&self.held[r.start..])) {
            if self.held.len() - open.start > MAX_PEM {
                return self.release(out, open.start, Some((self.held.len() - KEEP, Swallow::Pem)));
            }
            cut = cut.min(before(&self.held, open.start));
        }
        // From behind, since moving the cut back can bring it into an earlier find.
        for r in found.iter().rev().filter(|r| !r.is_empty()) {
            if r.start < cut && cut < r.end {
                match too_long {
                    // A find that goes on to the end of an endless line: mark it and drop what follows.
                    true if r.end == self.held.len() => return self.release(out, r.start, Some((r.end, Swallow::Token))),
                    true => return self.release(out, r.end, None),
                    false => cut = before(&self.held, r.start),
                }
            }
        }
        self.release(out, cut, None)
    }

    /// Shows the first `cut` bytes; what lies between them and the end of a find that is cut short becomes one mark.
    fn release(&mut self, out: &mut Vec<u8>, cut: usize, marked: Option<(usize, Swallow)>) -> bool {
        out.extend_from_slice(&self.redactor.redact_bytes(&self.held[..cut]));
        self.held.drain(..marked.map_or(cut, |(end, _)| end));
        if let Some((_, kind)) = marked {
            out.extend_from_slice(MARK.as_bytes());
            self.swallow = Some(kind);
        }
        marked.is_some()
    }

    fn drop_swallowed(&mut self) {
        let end = match self.swallow {
            None => return,
            Some(Swallow::Token) => self.held.iter().position(u8::is_ascii_whitespace),
            Some(Swallow::Pem) => detect::pem_end(&self.held),
        };
        match end {
            Some(end) => {
                self.held.drain(..end);
                self.swallow = None;
            }
            None => {
                // The line that ends a key may itself be cut by a chunk border.
                let keep = if self.swallow == Some(Swallow::Pem) { KEEP.min(self.held.len()) } else { 0 };
                self.held.drain(..self.held.len() - keep);
            }
        }
    }
}

fn line_start(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().rposition(|b| matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1)
}
