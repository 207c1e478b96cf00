//! What can be seen of a process and of this host without asking anybody, as text for people.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use crate::proc::{self, Stat};

/// How many of its children and fellows are listed.
const MAX_FELLOWS: usize = 20;

/// A process: its command, state, memory, threads and files, and the others of its group.
pub(crate) fn process(pid: i32) -> Result<String, String> {
    let stat = Stat::of(pid).ok_or_else(|| format!("process {pid} is gone"))?;
    let mut text = line(&stat);
    let fellows = proc::all().into_iter().filter(|one| one.pid != pid && (one.parent == pid || one.group == pid));
    for fellow in fellows.take(MAX_FELLOWS) {
        text.push_str(&line(&fellow));
    }
    Ok(text)
}

/// Load, memory and disks of this host; of the disks those that hold `/` and these files.
pub(crate) fn host(files: &[PathBuf]) -> Result<String, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let load = read("/proc/loadavg")?;
    let memory = read("/proc/meminfo")?;
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = format!("load {} on {processors} processors\n", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
    let wanted = ["MemTotal", "MemAvailable", "SwapTotal", "SwapFree"];
    for line in memory.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))) {
        text.push_str(line);
        text.push('\n');
    }
    let folders = files.iter().filter_map(|file| file.parent());
    let mut seen = vec![];
    for folder in [Path::new("/")].into_iter().chain(folders) {
        let Ok(disk) = statvfs(folder) else { continue };
        if !seen.contains(&disk.f_fsid) {
            seen.push(disk.f_fsid);
            let gib = |blocks: u64| blocks as f64 * disk.f_frsize as f64 / f64::from(1 << 30);
            let used = 100.0 * (1.0 - disk.f_bavail as f64 / (disk.f_blocks.max(1)) as f64);
            text.push_str(&format!(
                "disk of {}: {used:.0} % used, {:.1} of {:.1} GiB free, {} of {} files free\n",
                folder.display(),
                gib(disk.f_bavail),
                gib(disk.f_blocks),
                disk.f_favail,
                disk.f_files
            ));
        }
    }
    Ok(text)
}

fn line(stat: &Stat) -> String {
    let pid = stat.pid;
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map_or("?", str::trim);
    let files = fs::read_dir(format!("/proc/{pid}/fd")).map_or_else(|_| "?".to_owned(), |entries| entries.count().to_string());
    let age = stat.age().map_or_else(|| "?".to_owned(), |age| age.as_secs().to_string());
    format!(
        "{pid} (parent {}): state {}, resident {}, {} threads, {files} open files, {age} s old: {}\n",
        stat.parent,
        stat.state,
        field("VmRSS:"),
        stat.threads,
        domain::text::clean_line(&command, 300)
    )
}
