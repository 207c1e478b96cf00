//! What an agent keeps on its disk: every order before it begins, what was begun for it, how it ended, and the highest fence of every target. Each is
//! written, synced and renamed into place, so that a crash leaves the old or the new, and a repeated order finds its first.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use domain::order::{Order, Report};
use domain::run::{Execution, Fence};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Reports are kept for so long: a server that was away asks again.
const KEPT: Duration = Duration::from_hours(24 * 30);
const ORDER: &str = "order.json";
const INTENT: &str = "intent.json";
const REPORT: &str = "report.json";
const FENCES: &str = "fences.json";

/// The folder.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
}

/// One order as the disk has it.
pub(super) struct Entry {
    pub(super) order: Order,
    /// What was begun for it, where that outlives the agent.
    pub(super) intent: Option<Execution>,
    pub(super) report: Option<Report>,
}

impl Ledger {
    /// # Errors
    /// If the folder cannot be made.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let ledger = Self { folder: folder.to_owned() };
        ledger.tidy();
        Ok(ledger)
    }

    /// An order that was seen before.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(super) fn entry(&self, execution: &str) -> anyhow::Result<Option<Entry>> {
        let folder = self.place(execution)?;
        let Some(order) = read(&folder.join(ORDER))? else { return Ok(None) };
        Ok(Some(Entry { order, intent: read(&folder.join(INTENT))?, report: read(&folder.join(REPORT))? }))
    }

    /// What was reported of an execution. There is one without an order where the run was stopped before that came.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(super) fn report(&self, execution: &str) -> anyhow::Result<Option<Report>> {
        read(&self.place(execution)?.join(REPORT))
    }

    /// All orders.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(super) fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let mut all = Vec::new();
        for found in fs::read_dir(&self.folder)? {
            let found = found?;
            if found.file_type()?.is_dir()
                && let Some(name) = found.file_name().to_str()
                && let Some(entry) = self.entry(name)?
            {
                all.push(entry);
            }
        }
        Ok(all)
    }

    /// Keeps an order before it begins.
    ///
    /// # Errors
    /// If it cannot be kept: it must not begin.
    pub(super) fn keep_order(&self, order: &Order) -> anyhow::Result<()> {
        let folder = self.place(&order.jti)?;
        fs::create_dir_all(&folder)?;
        sync(&self.folder)?;
        write(&folder, ORDER, order)
    }

    /// Keeps an order that is refused. The report comes first, so that a crash in between does not leave an order that may begin.
    ///
    /// # Errors
    /// If it cannot be kept: it must come again.
    pub(super) fn keep_refused(&self, order: &Order, report: &Report) -> anyhow::Result<()> {
        fs::create_dir_all(self.place(&order.jti)?)?;
        self.keep_report(report)?;
        self.keep_order(order)
    }

    /// Keeps what was begun for an order.
    ///
    /// # Errors
    /// If it cannot be kept: it must not go on.
    pub(super) fn keep_intent(&self, execution: &str, intent: &Execution) -> anyhow::Result<()> {
        write(&self.place(execution)?, INTENT, intent)
    }

    /// Keeps how it ended.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub(super) fn keep_report(&self, report: &Report) -> anyhow::Result<()> {
        let folder = self.place(&report.jti)?;
        if !folder.exists() {
            fs::create_dir_all(&folder)?;
            sync(&self.folder)?;
        }
        write(&folder, REPORT, report)
    }

    /// The highest fence that was seen of a target.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(super) fn fence(&self, target: &str) -> anyhow::Result<Option<Fence>> {
        Ok(self.fences()?.remove(target))
    }

    /// Raises it.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub(super) fn raise(&self, target: &str, fence: Fence) -> anyhow::Result<()> {
        let mut fences = self.fences()?;
        fences.insert(target.to_owned(), fence);
        write(&self.folder, FENCES, &fences)
    }

    fn fences(&self) -> anyhow::Result<BTreeMap<String, Fence>> {
        Ok(read(&self.folder.join(FENCES))?.unwrap_or_default())
    }

    fn place(&self, execution: &str) -> anyhow::Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if execution.is_empty() || execution.len() > 200 || !execution.chars().all(plain) {
            bail!("this is no name of an execution");
        }
        Ok(self.folder.join(execution))
    }

    /// Removes what nobody will ask for any more.
    fn tidy(&self) {
        let old = |path: &Path| fs::metadata(path.join(REPORT)).and_then(|meta| meta.modified()).is_ok_and(is_old);
        for found in fs::read_dir(&self.folder).into_iter().flatten().flatten().filter(|found| old(&found.path())) {
            if let Err(error) = fs::remove_dir_all(found.path()) {
                tracing::warn!(%error, "an old order cannot be removed");
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the age of files on this disk, by the clock that stamped them")]
fn is_old(at: SystemTime) -> bool {
    SystemTime::now().duration_since(at).is_ok_and(|age| age > KEPT)
}

fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Option<T>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn write(folder: &Path, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let (new, file) = (folder.join(format!("{name}.new")), folder.join(name));
    let mut out = File::create(&new).with_context(|| format!("cannot write {}", new.display()))?;
    out.write_all(&serde_json::to_vec(value)?)?;
    out.sync_all()?;
    fs::rename(&new, &file)?;
    sync(folder)
}

fn sync(folder: &Path) -> anyhow::Result<()> {
    Ok(File::open(folder)?.sync_all()?)
}

/// Adds a line to a file.
///
/// # Errors
/// If it is not on the disk.
pub(super) fn append(file: &Path, row: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = File::options().create(true).append(true).open(file)?;
    writeln!(out, "{row}")?;
    Ok(out.sync_data()?)
}
