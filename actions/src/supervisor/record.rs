//! The record of a running child: enough to tell it apart from every other process, past and future.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::proc::{self, Stat};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) target: String,
    pub(super) pid: i32,
    /// Ticks after boot.
    pub(super) start: u64,
    pub(super) session: i32,
    pub(super) boot: String,
}

impl Record {
    pub(super) fn of(target: &str, child: &Stat) -> io::Result<Record> {
        Ok(Record { target: target.to_owned(), pid: child.pid, start: child.start, session: child.session, boot: proc::boot_id()? })
    }

    /// What is recorded of this boot. A file that cannot be read as a record is as good as none: the mark finds the child.
    pub(super) fn read(file: &Path) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        (record.boot == proc::boot_id().ok()?).then_some(record)
    }

    /// All of it or nothing, by rename.
    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, file)
    }

    /// The recorded child itself, if it still lives.
    pub(super) fn living(&self) -> Option<Stat> {
        Stat::of(self.pid).filter(|stat| stat.is(self.pid, self.start))
    }

    /// Whether a process belongs to the recorded child's group. As long as the group has members, the kernel gives its number to nobody
    /// else; if somebody else leads it, it is another group.
    pub(super) fn has_member(&self, process: &Stat) -> bool {
        let led_by_another = || Stat::of(self.pid).is_some_and(|leader| leader.start != self.start);
        process.group == self.pid && process.session == self.session && process.start >= self.start && !led_by_another()
    }
}
