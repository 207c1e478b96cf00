//! The one door to SQLite's only writer. Two lines wait at it, and ingest goes first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who waits at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The one task that stores deliveries. Because it is one, everybody else gets in between its turns.
    Ingest,
    /// Everybody else, in the order of their coming.
    Other,
}

/// Lets one in at a time.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    busy: bool,
    ingest: VecDeque<oneshot::Sender<Pass>>,
    other: VecDeque<oneshot::Sender<Pass>>,
}

/// The right to be inside; dropping it calls the next.
#[derive(Debug)]
pub(crate) struct Pass(Option<Arc<Gate>>);

impl Gate {
    /// Waits for the turn.
    pub(crate) async fn enter(self: &Arc<Self>, line: Line) -> Pass {
        loop {
            let turn = {
                let mut lines = self.lines();
                if !lines.busy {
                    lines.busy = true;
                    return Pass(Some(self.clone()));
                }
                let (call, turn) = oneshot::channel();
                match line {
                    Line::Ingest => lines.ingest.push_back(call),
                    Line::Other => lines.other.push_back(call),
                }
                turn
            };
            if let Ok(pass) = turn.await {
                return pass;
            }
        }
    }

    /// Whether somebody waits for their turn.
    pub(crate) fn is_wanted(&self) -> bool {
        let lines = self.lines();
        lines.ingest.iter().chain(&lines.other).any(|call| !call.is_closed())
    }

    /// Calls whoever is next; one who went away meanwhile is passed over.
    fn leave(self: Arc<Self>) {
        let mut gate = self;
        loop {
            let call = {
                let mut lines = gate.lines();
                let Some(call) = lines.ingest.pop_front().or_else(|| lines.other.pop_front()) else {
                    lines.busy = false;
                    return;
                };
                call
            };
            match call.send(Pass(Some(gate))) {
                Ok(()) => return,
                Err(mut pass) => match pass.0.take() {
                    Some(back) => gate = back,
                    None => return,
                },
            }
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ingest_goes_first_and_who_went_away_is_passed_over() {
        let gate = Arc::new(Gate::default());
        let inside = gate.enter(Line::Other).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, line) in [("a", Line::Other), ("gone", Line::Other), ("b", Line::Other), ("ingest", Line::Ingest)] {
            let (gate, order) = (gate.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let _pass = gate.enter(line).await;
                order.lock().unwrap().push(name);
            }));
            tokio::task::yield_now().await;
        }
        tasks.remove(1).abort();
        tokio::task::yield_now().await;
        drop(inside);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["ingest", "a", "b"]);
        drop(gate.enter(Line::Other).await);
    }
}
