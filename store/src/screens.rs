//! What running steps print, for people who watch: in memory, in this process, and of the newest steps only. It is no part of the journal.
//! Replicas show each other what is watched there: `relay.rs`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::id::RunId;
use domain::printed::{Printed, Screen, Shown, Source, Taken};
use domain::redact::Redactor;
use tokio::sync::Notify;

use crate::relay::{Others, Watchers};
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

/// Who prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printer {
    /// A command of this host, which this process alone hears.
    Here,
    /// One of an agent, which every replica hears for itself.
    Agent,
}

/// The screens of this process.
#[derive(Debug, Default)]
pub(crate) struct Screens {
    all: Mutex<All>,
    /// There is more for other replicas.
    pub(crate) more: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct All {
    screens: HashMap<Watched, (u64, On)>,
    /// Counts uses, so that the one that was not used for longest can go.
    uses: u64,
    /// Replicas that watch what is printed here.
    pub(crate) watchers: Watchers,
    /// What is watched here and printed elsewhere.
    pub(crate) others: Others,
}

/// What is on a screen.
#[derive(Debug)]
pub(crate) enum On {
    Printed(Printer, Screen),
    /// What another replica shows, and which start of it.
    Told(String, [Shown; 2]),
}

impl On {
    fn shown(&self) -> [&Shown; 2] {
        match self {
            Self::Printed(_, screen) => screen.shown(),
            Self::Told(_, shown) => shown.each_ref(),
        }
    }
}

impl Store {
    /// Shows a piece of what an attempt prints, without the secrets that `redactor` knows, and tells who watches.
    pub fn show_printed(&self, watched: Watched, printer: Printer, piece: &Printed, redactor: &Redactor) -> Taken {
        let mut all = self.core.screens.lock();
        let begins = !matches!(all.screens.get(&watched), Some((_, On::Printed(..))));
        let on = all.on(watched, || On::Printed(printer, Screen::new(redactor)));
        // What comes from the command itself is better than what was told of it.
        if matches!(on, On::Told(..)) {
            *on = On::Printed(printer, Screen::new(redactor));
        }
        let taken = match on {
            On::Printed(_, screen) => screen.push(piece, redactor),
            On::Told(..) => Taken::Joined,
        };
        let elsewhere = printer == Printer::Here && all.watchers.watch(watched.run);
        drop(all);
        if elsewhere {
            self.core.screens.more.notify_one();
        } else if begins
            && printer == Printer::Here
            && let Some(link) = self.core.link.get()
        {
            link.prints(watched.run);
        }
        // Nobody listening is no failure.
        let _ = self.core.changes.send(Change::Printed(watched.run));
        taken
    }

    /// What can be seen of a run's attempts. What other replicas have of it is asked for, and comes a moment later.
    pub fn printed(&self, run: RunId) -> Vec<Seen> {
        let mut all = self.core.screens.lock();
        let seen = all.screens.iter().filter(|(watched, _)| watched.run == run);
        let mut seen: Vec<Seen> = seen.map(|(watched, (_, on))| Seen { watched: *watched, shown: on.shown().map(Shown::clone) }).collect();
        seen.sort_by_key(|seen| (seen.watched.index, seen.watched.attempt));
        if let Some(link) = self.core.link.get()
            && !all.prints(run)
            && all.others.ask(run)
        {
            link.ask_for(run);
        }
        seen
    }

    /// Forgets what an attempt printed: its result is stored.
    pub fn forget_printed(&self, watched: Watched) {
        self.core.screens.lock().screens.remove(&watched);
    }
}

impl Screens {
    pub(crate) fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// The screen of an attempt; the one that was not used for longest makes room for a new one.
    pub(crate) fn on(&mut self, watched: Watched, new: impl FnOnce() -> On) -> &mut On {
        self.uses += 1;
        if self.screens.len() >= MOST && !self.screens.contains_key(&watched) {
            let oldest = self.screens.iter().min_by_key(|(_, (used, _))| *used).map(|(watched, _)| *watched);
            oldest.and_then(|oldest| self.screens.remove(&oldest));
        }
        let (used, on) = self.screens.entry(watched).or_insert_with(|| (0, new()));
        *used = self.uses;
        on
    }

    /// Whether something of a stream was told by this start of another replica.
    pub(crate) fn knows(&self, watched: Watched, source: Source, from: &str) -> bool {
        let told = self.screens.get(&watched);
        matches!(told, Some((_, On::Told(before, shown))) if before == from && shown[source as usize].end > 0)
    }

    /// Whether a command of this host prints for this run.
    fn prints(&self, run: RunId) -> bool {
        self.printing().any(|(watched, _)| watched.run == run)
    }

    /// What commands of this host print.
    pub(crate) fn printing(&self) -> impl Iterator<Item = (Watched, [&Shown; 2])> {
        self.screens.iter().filter_map(|(watched, (_, on))| match on {
            On::Printed(Printer::Here, screen) => Some((*watched, screen.shown())),
            _ => None,
        })
    }
}
