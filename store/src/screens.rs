//! What running steps print, for people who watch: in memory, in this process, and of the newest steps only. It is no part of the journal.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::id::RunId;
use domain::printed::{Printed, Screen, Shown, Taken};
use domain::redact::Redactor;

use crate::{Change, Store};

/// Steps that are remembered at once. Each takes a few hundred KiB at most.
const MOST: usize = 64;

/// One attempt of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watched {
    /// The run.
    pub run: RunId,
    /// The step's place in the plan.
    pub index: i64,
    /// 1 for the first attempt.
    pub attempt: i64,
}

/// What can be seen of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose it is.
    pub watched: Watched,
    /// Standard output and standard error.
    pub shown: [Shown; 2],
}

/// The screens of this process.
#[derive(Debug, Default)]
pub(crate) struct Screens(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    screens: HashMap<Watched, (u64, Screen)>,
    /// Counts uses, so that the one that was not used for longest can go.
    uses: u64,
}

impl Store {
    /// Shows a piece of what an attempt prints, without the secrets that `redactor` knows, and tells who watches.
    pub fn show_printed(&self, watched: Watched, piece: &Printed, redactor: &Redactor) -> Taken {
        let mut all = self.core.screens.lock();
        all.uses += 1;
        let uses = all.uses;
        if all.screens.len() >= MOST && !all.screens.contains_key(&watched) {
            let oldest = all.screens.iter().min_by_key(|(_, (used, _))| *used).map(|(watched, _)| *watched);
            oldest.and_then(|oldest| all.screens.remove(&oldest));
        }
        let (used, screen) = all.screens.entry(watched).or_insert_with(|| (uses, Screen::new(redactor)));
        *used = uses;
        let taken = screen.push(piece, redactor);
        drop(all);
        // Nobody listening is no failure. Other replicas are not told: they could not show it.
        let _ = self.core.changes.send(Change::Printed(watched.run));
        taken
    }

    /// What can be seen of a run's attempts in this process.
    pub fn printed(&self, run: RunId) -> Vec<Seen> {
        let all = self.core.screens.lock();
        let seen = all.screens.iter().filter(|(watched, _)| watched.run == run);
        let mut seen: Vec<Seen> =
            seen.map(|(watched, (_, screen))| Seen { watched: *watched, shown: screen.shown().map(Shown::clone) }).collect();
        seen.sort_by_key(|seen| (seen.watched.index, seen.watched.attempt));
        seen
    }

    /// Forgets what an attempt printed: its result is stored.
    pub fn forget_printed(&self, watched: Watched) {
        self.core.screens.lock().screens.remove(&watched);
    }
}

impl Screens {
    fn lock(&self) -> std::sync::MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
