//! Replicas over one PostgreSQL show each other what commands print. Who is asked for a run that prints elsewhere asks the others for it, and
//! whoever carries it out tells for a while what it shows, without secrets and at a bounded rate. A word may be lost, and nothing rests on any.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::id::RunId;
use domain::printed::{Part, Shown, Source};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};

use crate::Change;
use crate::link::Told;
use crate::screens::{All, On, Screens, Watched};

/// Where PostgreSQL carries it. Older replicas do not listen there.
pub(crate) const CHANNEL: &str = "watchkeeper_printed";
/// How long others are told after they asked.
const WATCH: Duration = Duration::from_secs(10 * 60);
/// How often is asked for the same run at most.
const ASK: Duration = Duration::from_secs(5);
/// Between two looks for more to tell.
const TICK: Duration = Duration::from_millis(500);
/// Parts of one look: with their size, 60 KiB a second from each replica.
const PARTS: usize = 10;
/// The longest part, in bytes: escaped it may be twice as long, and PostgreSQL carries less than 8000.
const PART: usize = 3_000;
/// Runs that are remembered here or there.
const RUNS: usize = 64;

/// Which runs replicas elsewhere watch.
#[derive(Debug, Default)]
pub(crate) struct Watchers(HashMap<RunId, Watcher>);

#[derive(Debug)]
struct Watcher {
    until: Instant,
    /// Who asked.
    who: HashSet<String>,
    /// How much of each stream was told.
    told: HashMap<Watched, [u64; 2]>,
}

/// Which runs somebody here watches that print elsewhere, and when was asked for them.
#[derive(Debug, Default)]
pub(crate) struct Others(HashMap<RunId, Instant>);

/// One word.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The start of who says it.
    from: String,
    run: RunId,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// Somebody watches this run here.
    Watch {},
    /// A command begins to print, or its server does again after a restart: whoever watches asks anew.
    Prints {},
    /// This is shown of it; `first` is the oldest that is there.
    Shown { index: i64, attempt: i64, first: bool, part: Part },
}

/// Asks the others for a run.
pub(crate) fn wanted(run: RunId, me: &str) -> Option<String> {
    written(me, run, What::Watch {})
}

/// Tells the others that there is something to ask for.
pub(crate) fn prints(run: RunId, me: &str) -> Option<String> {
    written(me, run, What::Prints {})
}

/// Hears a word of another replica; gives back what is to be answered.
pub(crate) fn hear(screens: &Screens, changes: &broadcast::Sender<Change>, text: &str, me: &str) -> Option<String> {
    let note = serde_json::from_str::<Note>(text).ok().filter(|note| note.from != me)?;
    match note.what {
        What::Prints {} => return screens.lock().others.watch(note.run).then(|| wanted(note.run, me)).flatten(),
        What::Watch {} => {
            screens.lock().watchers.add(note.run, note.from);
            screens.more.notify_one();
        }
        What::Shown { index, attempt, first, part } => {
            let watched = Watched { run: note.run, index, attempt };
            if screens.lock().told(watched, note.from, first, &part) {
                // Nobody listening is no failure.
                let _ = changes.send(Change::Printed(note.run));
            }
        }
    }
    None
}

/// Tells the others what they asked for, for as long as there is more.
pub(crate) async fn tell(screens: Arc<Screens>, out: mpsc::UnboundedSender<Told>, me: String) {
    loop {
        screens.more.notified().await;
        tokio::time::sleep(TICK).await;
        let parts = screens.lock().fresh(PARTS);
        if parts.len() == PARTS {
            screens.more.notify_one();
        }
        for (watched, first, part) in parts {
            let Watched { run, index, attempt } = watched;
            let told =
                written(&me, run, What::Shown { index, attempt, first, part }).is_some_and(|text| out.send(Told::Printed(text)).is_err());
            if told {
                return;
            }
        }
    }
}

fn written(me: &str, run: RunId, what: What) -> Option<String> {
    serde_json::to_string(&Note { from: me.to_owned(), run, what }).ok()
}

impl Watchers {
    /// Whether anybody elsewhere watches a run.
    pub(crate) fn watch(&self, run: RunId) -> bool {
        self.0.get(&run).is_some_and(|watcher| watcher.until > Instant::now())
    }

    fn add(&mut self, run: RunId, who: String) {
        let now = Instant::now();
        self.0.retain(|_, watcher| watcher.until > now);
        if self.0.len() >= RUNS && !self.0.contains_key(&run) {
            let first = self.0.iter().min_by_key(|(_, watcher)| watcher.until).map(|(run, _)| *run);
            first.and_then(|first| self.0.remove(&first));
        }
        let new = || Watcher { until: now, who: HashSet::new(), told: HashMap::new() };
        let watcher = self.0.entry(run).or_insert_with(new);
        watcher.until = now + WATCH;
        // Whoever is new was told nothing yet; the others pass over what they know.
        if watcher.who.insert(who) {
            watcher.told.clear();
        }
    }
}

impl Others {
    /// Notes that somebody watches a run; whether it is to be asked for.
    pub(crate) fn ask(&mut self, run: RunId) -> bool {
        let now = Instant::now();
        if self.0.get(&run).is_some_and(|asked| now.duration_since(*asked) < ASK) {
            return false;
        }
        self.0.retain(|_, asked| now.duration_since(*asked) < WATCH);
        if self.0.len() >= RUNS {
            let first = self.0.iter().min_by_key(|(_, asked)| **asked).map(|(run, _)| *run);
            first.and_then(|first| self.0.remove(&first));
        }
        self.0.insert(run, now);
        true
    }

    fn watch(&self, run: RunId) -> bool {
        self.0.get(&run).is_some_and(|asked| asked.elapsed() < WATCH)
    }
}

impl All {
    /// At most so many parts of what was printed and not told yet; with whether it is the first.
    fn fresh(&mut self, most: usize) -> Vec<(Watched, bool, Part)> {
        let mut watchers = std::mem::take(&mut self.watchers);
        let mut parts = Vec::new();
        for (watched, shown) in self.printing() {
            let Some(watcher) = watchers.0.get_mut(&watched.run).filter(|watcher| watcher.until > Instant::now()) else { continue };
            let told = watcher.told.entry(watched).or_default();
            for (source, shown) in Source::ALL.into_iter().zip(shown) {
                let told = &mut told[source as usize];
                while parts.len() < most
                    && let Some(part) = shown.part(source, *told, PART)
                {
                    let first = *told == 0;
                    *told = part.offset + part.text.len() as u64;
                    parts.push((watched, first, part));
                }
            }
        }
        self.watchers = watchers;
        parts
    }

    /// Shows what another replica told; whether somebody here watches it.
    fn told(&mut self, watched: Watched, from: String, first: bool, part: &Part) -> bool {
        if !self.others.watch(watched.run) || part.text.len() > PART {
            return false;
        }
        let knows = self.knows(watched, part.source, &from);
        // What was on its way to somebody else when we asked comes again, behind what is older.
        if !knows && !first {
            return false;
        }
        let new = || On::Told(from.clone(), [Shown::default(), Shown::default()]);
        let on = self.on(watched, new);
        match on {
            // It is heard here as well.
            On::Printed(..) => return false,
            // After a restart there it begins anew.
            On::Told(before, _) if *before != from => *on = new(),
            On::Told(..) => {}
        }
        if let On::Told(_, shown) = on {
            shown[part.source as usize].join(part);
        }
        true
    }
}
