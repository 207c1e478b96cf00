//! The data folder: is there room, is it a disk that keeps what it is given, and how long does that take.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, statfs, statvfs};

use super::Findings;
use crate::config::Config;

/// Room below which it is time to do something, in bytes.
const LOW: u64 = 1024 * 1024 * 1024;
/// Room below which deliveries will soon be refused, in bytes.
const VERY_LOW: u64 = 100 * 1024 * 1024;
/// A disk that takes longer to keep a page makes every delivery wait for it.
const SLOW: Duration = Duration::from_millis(20);
/// Pages written to find out.
const TRIES: usize = 20;
/// File systems by the number that `statfs` gives (linux/magic.h), and what is wrong with each as a place for SQLite.
const UNFIT: [(i64, &str, &str); 6] = [
    (0x6969, "NFS", "SQLite's locks and its shared memory do not work over a network"),
    (0xff53_4d42, "CIFS", "SQLite's locks and its shared memory do not work over a network"),
    (0xfe53_4d42, "SMB", "SQLite's locks and its shared memory do not work over a network"),
    (0x6573_5546, "FUSE", "it may not keep what it says it keeps"),
    (0x0102_1994, "tmpfs", "it is memory: everything in it is gone after a restart of the machine"),
    (0x8584_58f6, "ramfs", "it is memory: everything in it is gone after a restart of the machine"),
];

pub(super) fn look(config: &Config) -> Findings {
    let mut findings = Findings::of("disk");
    let wanted = &config.data_dir;
    let Some(folder) = wanted.ancestors().find(|folder| folder.exists()) else {
        findings.fail(format!("{} is nowhere", wanted.display()), "name an existing folder as `data_dir`");
        return findings;
    };
    if access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        findings.fail(
            format!("{} cannot be written by this user", folder.display()),
            format!("run doctor as the server's user, or `chown` it: install -d -m 700 -o watchkeeper {}", wanted.display()),
        );
        return findings;
    }
    if folder == wanted {
        findings.ok(format!("{} is there and can be written", wanted.display()));
    } else {
        findings.note(format!("{} is not there yet", wanted.display()), "the first start makes it");
    }
    room(&mut findings, folder);
    kind(&mut findings, folder, config.store.postgres);
    latency(&mut findings, folder);
    findings
}

fn room(findings: &mut Findings, folder: &Path) {
    let Ok(stat) = statvfs(folder) else { return };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let text = format!("{} MiB are free", free / 1024 / 1024);
    let advice = "make room: when the disk is full, deliveries are answered with 503 until there is some again";
    match free {
        free if free < VERY_LOW => findings.fail(text, advice),
        free if free < LOW => findings.warn(text, advice),
        _ => findings.ok(text),
    }
    if stat.f_files > 0 && stat.f_favail < 1000 {
        findings.fail(format!("{} inodes are free", stat.f_favail), "remove small files: no new one can be made");
    }
}

fn kind(findings: &mut Findings, folder: &Path, postgres: bool) {
    let Ok(stat) = statfs(folder) else { return };
    #[expect(clippy::useless_conversion, reason = "its type differs between machines")]
    let found = i64::from(stat.f_type) & 0xffff_ffff;
    if let Some((_, name, why)) = UNFIT.iter().find(|(kind, _, _)| *kind == found) {
        let advice = "put `data_dir` on a local disk, or use PostgreSQL";
        if postgres { findings.note(format!("it is on {name}"), *why) } else { findings.warn(format!("it is on {name}: {why}"), advice) }
    }
}

fn latency(findings: &mut Findings, folder: &Path) {
    match measure(folder) {
        Ok((median, worst)) => {
            let text = format!("keeping a page takes {:.2} ms, at worst {:.2} ms", median.as_secs_f64() * 1e3, worst.as_secs_f64() * 1e3);
            if median > SLOW {
                findings.warn(text, "a delivery is answered after its commit, so it waits for this: use a disk that answers faster");
            } else {
                findings.ok(text);
            }
        }
        Err(error) => findings.fail(format!("no file could be written: {error}"), "look at the disk and at who may write there"),
    }
}

/// Writes pages and waits for each to be on the disk: the middle time and the longest.
fn measure(folder: &Path) -> std::io::Result<(Duration, Duration)> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let mut file = File::options().write(true).create_new(true).open(&path)?;
    let mut times = Vec::with_capacity(TRIES);
    let mut tried = Ok(());
    for _ in 0..TRIES {
        let began = Instant::now();
        tried = file.write_all(&[0_u8; 4096]).and_then(|()| file.sync_data());
        times.push(began.elapsed());
        if tried.is_err() {
            break;
        }
    }
    fs::remove_file(&path)?;
    tried?;
    times.sort_unstable();
    Ok((times[times.len() / 2], times[times.len() - 1]))
}
