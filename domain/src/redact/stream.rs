//! Redaction of output that comes in pieces: a secret cut in two by a chunk border is found all the same.

use super::{MARK, Redactor, detect};

/// A line longer than this is let go in parts, so that endless lines need no endless memory. In bytes.
const MAX_LINE: usize = 16 * 1024;
/// What stays of such a line: more than any detector needs to recognise its kind. In bytes.
const KEEP: usize = 512;
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
        let line = self.held.iter().rposition(|b| matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
        let too_long = self.held.len() - line > MAX_LINE;
        let mut cut = if too_long { self.held.len() - KEEP } else { line };
        if let Some(pending) = self.redactor.pending_from(&self.held) {
            cut = cut.min(pending);
        }
        let found = self.redactor.find(&self.held);
        if let Some(open) = found.last().filter(|r| r.end == self.held.len() && detect::is_open_pem(&self.held[r.start..])) {
            if self.held.len() - open.start > MAX_PEM {
                return self.release(out, open.start, Some((self.held.len() - KEEP, Swallow::Pem)));
            }
            cut = cut.min(open.start);
        }
        match found.iter().find(|r| r.start < cut && cut < r.end) {
            None => self.release(out, cut, None),
            // A find that goes on to the end of an endless line: mark it and drop what follows.
            Some(r) if too_long && r.end == self.held.len() => self.release(out, r.start, Some((r.end, Swallow::Token))),
            Some(r) if too_long => self.release(out, r.end, None),
            Some(r) => self.release(out, r.start, None),
        }
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
