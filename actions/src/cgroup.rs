//! A control group for each shim and its commands, where the host allows it: what a command forks cannot leave it, and `cgroup.kill` ends all of it
//! at once, however fast it forks. Where there is none, process group and adopted orphans have to do.
//!
//! The shim stays inside with its command and leaves only to end it: every move stops all forks of the host for a moment.
//!
//! Source: <https://docs.kernel.org/admin-guide/cgroup-v2.html>.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::proc::Stat;

/// Folders of ours begin with it.
const PREFIX: &str = "watchkeeper-";

/// A control group of version 2, below the one that this process is in.
#[derive(Debug)]
pub(crate) struct Cgroup {
    home: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// Makes one; `None` where the host has no such hierarchy, or gives us no part of it.
    pub(crate) fn make(name: &str) -> Option<Cgroup> {
        let home = home()?;
        let path = home.join(format!("{PREFIX}{name}"));
        fs::create_dir(&path).ok()?;
        // Its kill is what it is for: kernels before 5.14 have none.
        let made = Cgroup { home, path };
        made.path.join("cgroup.kill").exists().then_some(made)
    }

    /// Goes into it, so that whatever this process starts begins inside. Ahead of time, because the kernel may take milliseconds to move somebody. Without
    /// the right to, as in a group that was not delegated, it stays outside.
    pub(crate) fn enter(&self) -> bool {
        move_to(&self.path).is_ok()
    }

    /// Goes back to where this process was; what it started stays, and can be ended without it.
    pub(crate) fn leave(&self) {
        if let Err(error) = move_to(&self.home) {
            tracing::debug!(%error, "the shim stays with its command");
        }
    }

    /// Its processes that are not this one.
    pub(crate) fn members(&self) -> Vec<Stat> {
        members(&self.path)
    }

    /// Ends everything in it, unless this process could not leave it.
    pub(crate) fn kill(&self) {
        if !self.is_inside() {
            // Whoever is left is signalled one by one besides.
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
        }
    }

    fn is_inside(&self) -> bool {
        let own = std::process::id().to_string();
        fs::read_to_string(self.path.join("cgroup.procs")).is_ok_and(|pids| pids.lines().any(|pid| pid == own))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Nobody can remove the group that he is in. A service that a command left behind keeps its own.
        if self.is_inside() {
            self.leave();
        }
        let _stays = fs::remove_dir(&self.path);
    }
}

/// Removes what is left of groups that nobody is in any more: of shims that were killed, and of services that have ended.
pub(crate) fn tidy() {
    let siblings = home().and_then(|home| fs::read_dir(home).ok());
    for one in siblings.into_iter().flatten().flatten().filter(|one| one.file_name().to_string_lossy().starts_with(PREFIX)) {
        // The kernel refuses where somebody is inside.
        let _in_use = fs::remove_dir(one.path());
    }
}

/// Who is left in the group that was made under this name, by somebody who is gone.
pub(crate) fn left(name: &str) -> Vec<Stat> {
    home().map(|home| members(&home.join(format!("{PREFIX}{name}")))).unwrap_or_default()
}

fn members(group: &Path) -> Vec<Stat> {
    let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = std::process::id().to_string();
    pids.lines().filter(|pid| *pid != own).filter_map(|pid| Stat::of(pid.parse().ok()?)).filter(Stat::alive).collect()
}

/// Moves this process: 0 stands for whoever writes it.
fn move_to(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// The folder of the group that this process is in.
pub(crate) fn home() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    folder(&groups, &mounts)
}

/// `man 7 cgroups`: the line of version 2 is `0::PATH`. `man 5 proc_pid_mountinfo`: fields 4 and 5 are what is mounted and where; the type follows ` - `.
fn folder(groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let below = Path::new(own).strip_prefix(root).ok()?;
        rest.starts_with("cgroup2 ").then(|| Path::new(at).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_found_in_either_layout() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n31 23 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let own = "9:cpu:/a\n0::/system.slice/watchkeeper.service\n";
        assert_eq!(folder(own, mounts), Some("/sys/fs/cgroup/unified/system.slice/watchkeeper.service".into()));
        assert_eq!(folder("0::/\n", "31 23 0:27 / /sys/fs/cgroup rw - cgroup2 none rw\n"), Some("/sys/fs/cgroup/".into()));
        assert_eq!(folder("0::/pod/x\n", "31 23 0:27 /pod /sys/fs/cgroup rw - cgroup2 none rw\n"), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(folder("0::/elsewhere\n", "31 23 0:27 /pod /sys/fs/cgroup rw - cgroup2 none rw\n"), None);
        assert_eq!(folder("9:cpu:/a\n", mounts), None);
    }
}
