//! The database: is it there, is it ours, does a commit survive a power loss, and does its clock agree with ours.

use domain::time::{Clock, SystemClock};
use jiff::SignedDuration;
use secrecy::ExposeSecret;
use store::{Backend, Inspection, inspect};

use super::Findings;
use crate::config::Config;

/// Below this SQLite can corrupt its log when it is reset: sqlite.org/wal.html#walresetbug.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);
/// The oldest PostgreSQL that its makers still mend, as of 2026.
const OLDEST_POSTGRES: u32 = 14;
/// Clocks that differ by more than this make times on cards wrong.
const SKEW: SignedDuration = SignedDuration::from_secs(1);
/// And by more than this, expiries.
const BAD_SKEW: SignedDuration = SignedDuration::from_secs(30);

pub(super) async fn look(config: &Config) -> Findings {
    let mut findings = Findings::of("store");
    match inspect(config.store.url.expose_secret()).await {
        Ok(found) => {
            version(&mut findings, &found);
            durability(&mut findings, &found);
            schema(&mut findings, &found);
            clock(&mut findings, &found);
        }
        Err(error) => findings.fail(
            format!("the database does not answer: {error}"),
            "look at `store.url`, at the network, and at the database's own log; the server answers 503 until it is there",
        ),
    }
    findings
}

fn version(findings: &mut Findings, found: &Inspection) {
    let mut numbers = found.version.split(['.', ' ']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match found.backend {
        Backend::Sqlite if (next(), next(), next()) < OLDEST_SQLITE => findings.fail(
            format!("SQLite {} can corrupt its log", found.version),
            "build with SQLite 3.51.3 or later (https://www.sqlite.org/wal.html#walresetbug)",
        ),
        Backend::Sqlite => findings.ok(format!("SQLite {}", found.version)),
        Backend::Postgres if next() < OLDEST_POSTGRES => findings
            .warn(format!("PostgreSQL {} is no longer mended by its makers", found.version), format!("go to {OLDEST_POSTGRES} or later")),
        Backend::Postgres => findings.ok(format!("PostgreSQL {}", found.version)),
    }
}

fn durability(findings: &mut Findings, found: &Inspection) {
    if found.backend == Backend::Sqlite {
        match found.setting("journal_mode") {
            "wal" => findings.ok("a commit is on disk before it is answered (WAL, synchronous=FULL)"),
            "" => findings.ok("there is no database yet: the first start makes one (WAL, synchronous=FULL)"),
            other => findings.note(format!("the file's journal mode is {other}"), "the next start turns it to WAL"),
        }
        return;
    }
    for (name, wanted, advice) in [
        ("fsync", "on", "set fsync = on in postgresql.conf: without it a power loss can destroy the whole cluster"),
        ("full_page_writes", "on", "set full_page_writes = on, unless the file system writes pages whole"),
    ] {
        match found.setting(name) {
            value if value == wanted => findings.ok(format!("{name} = {value}")),
            value => findings.fail(format!("{name} = {value}: what was answered with 2xx can be lost"), advice),
        }
    }
    match found.setting("synchronous_commit") {
        "off" => findings.note("synchronous_commit = off", "every connection of ours turns it on for itself"),
        value => findings.ok(format!("synchronous_commit = {value}")),
    }
    if found.setting("standby") == "true" || found.setting("default_transaction_read_only") == "on" {
        findings.fail(
            "it takes no writes: it is a standby, or read only",
            "name the primary in `store.url`, e.g. with target_session_attrs=read-write",
        );
    }
}

fn schema(findings: &mut Findings, found: &Inspection) {
    match found.schema {
        Some(schema) if schema > found.newest => findings.fail(
            format!("its tables are of a newer version (migration {schema}; this program knows {})", found.newest),
            "start that version, or restore a backup made before it",
        ),
        Some(schema) if schema < found.newest => {
            findings.note(format!("its tables are of migration {schema}"), format!("the next start brings them to {}", found.newest));
        }
        Some(schema) => findings.ok(format!("its tables are up to date (migration {schema})")),
        None => {}
    }
}

fn clock(findings: &mut Findings, found: &Inspection) {
    let Some((theirs, at)) = found.clock else { return };
    let ours = SystemClock.now() - SignedDuration::try_from(at.elapsed()).unwrap_or_default();
    let skew = ours.duration_since(theirs);
    let text = format!(
        "this machine's clock is {} ms {} the database's",
        skew.abs().as_millis(),
        if skew.is_negative() { "behind" } else { "ahead of" }
    );
    let advice = "let both follow the same time servers (chrony, systemd-timesyncd)";
    if skew.abs() > BAD_SKEW {
        findings.fail(text, advice);
    } else if skew.abs() > SKEW {
        findings.warn(text, advice);
    } else {
        findings.ok(text);
    }
}
