//! Cleans up after a test process that ends without dropping its peers: statics, Ctrl-C, an abort, `kill -9`.
//!
//! A small shell holds the other end of a pipe. When the test process is gone, for whatever reason, the pipe closes; the shell then ends
//! every session still registered and removes the one folder that holds all temporary files of the run.

use std::{
    io::{self, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

/// `$1` is the folder to remove. QUIT first: PostgreSQL then frees its shared memory and ends its backends.
const SCRIPT: &str = r#"
root=$1 pids=
while read -r verb pid; do
    rest=
    for p in $pids; do [ "$p" = "$pid" ] || rest="$rest $p"; done
    pids=$rest
    [ "$verb" = del ] || pids="$pids $pid"
done
[ -z "$pids" ] || { kill -QUIT $pids; sleep 1; }
for stat in /proc/[0-9]*/stat; do
    read -r line < "$stat" || continue
    pid=${stat#/proc/} pid=${pid%/stat}
    set -- ${line##*) } # state, parent, group, session
    case " $pids " in *" $4 "*) kill -KILL "$pid" ;; esac
done
rm -rf -- "$root"
"#;

static REAPER: Mutex<Option<Reaper>> = Mutex::new(None);

struct Reaper {
    root: PathBuf,
    pipe: ChildStdin,
}

/// A temporary folder, readable by every user (PostgreSQL and nginx leave root), removed on drop or at the latest with the process.
pub fn temp_dir(name: &str) -> anyhow::Result<TempDir> {
    with(|reaper| {
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&reaper.root)?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        Ok(dir)
    })
}

/// Registers the session that `pid` leads.
pub(crate) fn add(pid: u32) -> anyhow::Result<()> {
    with(|reaper| writeln!(reaper.pipe, "add {pid}"))
}

/// Forgets the session that `pid` led.
pub(crate) fn forget(pid: u32) -> anyhow::Result<()> {
    with(|reaper| writeln!(reaper.pipe, "del {pid}"))
}

fn with<T>(act: impl FnOnce(&mut Reaper) -> io::Result<T>) -> anyhow::Result<T> {
    let mut slot = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    let reaper = match &mut *slot {
        Some(reaper) => reaper,
        none => none.insert(start()?),
    };
    Ok(act(reaper)?)
}

#[expect(clippy::disallowed_methods, reason = "the reaper watches over Cmd's processes and cannot be one of them")]
fn start() -> anyhow::Result<Reaper> {
    let root = tempfile::Builder::new().prefix("watchkeeper-test-").tempdir()?.keep();
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o755))?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", SCRIPT, "reaper"]).arg(&root);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Its own process group: a Ctrl-C meant for the tests must not reach it.
    let mut child = shell.process_group(0).spawn()?;
    let pipe = child.stdin.take().ok_or_else(|| anyhow::anyhow!("the reaper has no stdin"))?;
    Ok(Reaper { root, pipe })
}
