//! Faults that a test plants in a fake: the next calls of an operation fail in a chosen way.

use std::time::Duration;

use serde_json::Value;

use super::wire::{Answer, Conn};

/// One way in which a call can go wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status and a body that is not JSON; nothing is done.
    Status(u16),
    /// Answers with this status and JSON body; nothing is done.
    Answer(u16, Value),
    /// Answers 429 in the platform's own form, asking to wait this long; nothing is done.
    RateLimited(Duration),
    /// Closes the connection without an answer; nothing is done.
    Drop,
    /// Does what was asked, then closes the connection: the caller cannot know that it was done.
    Ambiguous,
    /// Keeps silent for this long, then closes the connection; nothing is done.
    Hang(Duration),
    /// Does what was asked and answers this much later.
    Slow(Duration),
}

impl Fault {
    /// Runs the call under the fault. `limited` makes the platform's 429.
    pub(crate) async fn apply(
        fault: Option<Self>,
        conn: &Conn,
        limited: impl FnOnce(Duration) -> Answer,
        run: impl FnOnce() -> Answer,
    ) -> Answer {
        match fault {
            None => run(),
            Some(Self::Status(status)) => Answer::text(status, "<html><body>upstream error</body></html>"),
            Some(Self::Answer(status, body)) => Answer::json(status, body),
            Some(Self::RateLimited(wait)) => limited(wait),
            Some(Self::Drop) => conn.cut(),
            Some(Self::Ambiguous) => {
                let _done = run();
                conn.cut()
            }
            Some(Self::Hang(silence)) => {
                tokio::time::sleep(silence).await;
                conn.cut()
            }
            Some(Self::Slow(delay)) => {
                let answer = run();
                tokio::time::sleep(delay).await;
                answer
            }
        }
    }
}

/// The planted faults, first planted first used.
#[derive(Default)]
pub(crate) struct Faults(Vec<(String, Fault, usize)>);

impl Faults {
    pub(crate) fn plant(&mut self, operation: &str, fault: Fault, times: usize) {
        self.0.push((operation.to_owned(), fault, times));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault due for this call of `operation`, used up once; `*` stands for every operation.
    pub(crate) fn take(&mut self, operation: &str) -> Option<Fault> {
        let due = self.0.iter_mut().find(|(name, _, left)| *left > 0 && (name == "*" || name == operation))?;
        due.2 -= 1;
        Some(due.1.clone())
    }
}
