//! What happened in one incident as a file that proves itself: a tar with everything that is known, the audit rows in their chain, a signed
//! checkpoint that covers them, and a signed list of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Write};

use anyhow::{Context, bail, ensure};
use domain::audit::{Checkpoint, Report};
use domain::canonical::Digest;
use domain::run::Run;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Step, Store, Tx};

use super::checkpoints::{SignedCheckpoint, Signer, Trusted};
use super::lines::{self, Extent, Only, Writer};

/// The list and its signature; the signature is over the list's bytes.
const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.sig";
const AUDIT: &str = "audit.jsonl";
/// What the list begins with, so that its signature is good for nothing else.
const KIND: &str = "watchkeeper evidence";
/// Most alerts and entries that are taken: incidents are smaller, and a limit must be.
const MOST: i64 = 100_000;
/// The most that is read back, in bytes.
const LARGEST: u64 = 1024 * 1024 * 1024;

/// The list of what is in the tar.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    kind: String,
    /// Of this format: 1.
    version: u32,
    /// The incident's number.
    pub(crate) incident: i64,
    /// When it was taken.
    pub(crate) at: Timestamp,
    /// By which version of the program.
    program: String,
    /// Who signed it, in hex.
    pub(crate) public_key: String,
    /// The audit log of before this time was let go of for its age, and rows about the incident may have been among it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audit_pruned_until: Option<Timestamp>,
    /// What the audit rows are about.
    objects: Vec<String>,
    /// Every other file.
    pub(crate) files: Vec<Entry>,
}

/// A file of the list.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    path: String,
    bytes: u64,
    sha256: Digest,
}

/// What a verification found.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// What is wrong; nothing is wrong if it is empty.
    pub(crate) faults: Vec<String>,
    /// The list, if it could be read.
    pub(crate) manifest: Option<Manifest>,
    /// What came of the chain.
    pub(crate) audit: Option<Report>,
}

/// Gathers everything about an incident and writes the tar.
///
/// # Errors
/// If there is no such incident, or something cannot be read or written.
pub(crate) async fn export(
    store: &Store,
    number: i64,
    signer: &Signer,
    said: &[SignedCheckpoint],
    now: Timestamp,
    out: impl Write,
) -> anyhow::Result<Manifest> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut tx = store.read().await?;
    let incident = tx.incident_by_number(number).await?.with_context(|| format!("there is no incident {number}"))?;
    let id = incident.id;
    let mut objects = vec![format!("incident:{id}")];
    files.push(json("incident.json", &incident)?);
    files.push(json("alerts.json", &tx.incident_alerts(id, MOST).await?)?);
    let timeline: Vec<_> = tx.timeline(id, MOST).await?.into_iter().map(|(_, entry)| entry).collect();
    files.push(json("timeline.json", &timeline)?);
    let runs = tx.runs_of(id).await?;
    for run in &runs {
        run_files(&mut tx, run, &mut files, &mut objects).await?;
    }
    let digests: BTreeSet<&str> = runs.iter().map(|run| run.rule_set.as_str()).collect();
    for digest in digests {
        for (name, text) in tx.rule_set(digest).await?.unwrap_or_default() {
            files.push((format!("rules/{digest}/{}", plain(&name)), text.into_bytes()));
        }
    }
    let batches = tx.audit_batches_of(&objects).await?;
    // What the incident's first rows say was written when it opened.
    let audit_pruned_until = tx.audit_cut().await?.map(|cut| cut.until).filter(|until| incident.opened_at <= *until);
    drop(tx);
    files.push((AUDIT.to_owned(), audit(store, &objects, &batches, signer, said, now).await?));

    let entry = |(path, bytes): &(String, Vec<u8>)| Entry { path: path.clone(), bytes: bytes.len() as u64, sha256: Digest::of(bytes) };
    let manifest = Manifest {
        kind: KIND.to_owned(),
        version: 1,
        incident: number,
        at: now,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        public_key: signer.public_key(),
        audit_pruned_until,
        objects,
        files: files.iter().map(entry).collect(),
    };
    let list = serde_json::to_vec_pretty(&manifest)?;
    let signature = signer.sign_bytes(&signed_bytes(&list)).into_bytes();
    let first = [(MANIFEST.to_owned(), list), (SIGNATURE.to_owned(), signature)];
    let mut tar = tar::Builder::new(out);
    for (path, bytes) in first.iter().chain(&files) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
        tar.append_data(&mut header, path, bytes.as_slice()).with_context(|| format!("cannot write {path}"))?;
    }
    tar.into_inner()?.flush()?;
    Ok(manifest)
}

async fn run_files(tx: &mut Tx, run: &Run, files: &mut Vec<(String, Vec<u8>)>, objects: &mut Vec<String>) -> anyhow::Result<()> {
    objects.push(format!("run:{}", run.id));
    let approvals = tx.approvals_of(run.id).await?;
    objects.extend(approvals.iter().map(|approval| format!("approval:{}", approval.id)));
    let attempts = tx.attempts(run.id).await?;
    let folder = format!("runs/{}", run.id);
    files.push(json(&format!("{folder}/run.json"), run)?);
    files.push(json(&format!("{folder}/attempts.json"), &attempts)?);
    files.push(json(&format!("{folder}/approvals.json"), &approvals)?);
    Ok(())
}

/// The part of the chain from the first batch that is about the incident to a checkpoint behind the last.
async fn audit(
    store: &Store,
    objects: &[String],
    batches: &BTreeSet<i64>,
    signer: &Signer,
    said: &[SignedCheckpoint],
    now: Timestamp,
) -> anyhow::Result<Vec<u8>> {
    let only = Only { objects: objects.to_vec(), ..Only::default() };
    let (first, last) = (batches.first().copied().unwrap_or(1), batches.last().copied().unwrap_or_default());
    let trusted = signer.trusted();
    let covering = said.iter().filter(|signed| signed.checkpoint.batch >= last && trusted.check_checkpoint(signed).is_ok());
    let covering = match covering.min_by_key(|signed| signed.checkpoint.batch) {
        _ if batches.is_empty() => None,
        Some(signed) => Some(signed.clone()),
        None => {
            let seal = store.read().await?.last_seal().await?;
            seal.map(|seal| signer.sign(Checkpoint { at: now, ..Checkpoint::from(&seal) }))
        }
    };
    let end = covering.as_ref().map_or(0, |signed| signed.checkpoint.batch);
    let mut bytes = Vec::new();
    let checkpoints: Vec<SignedCheckpoint> = covering.into_iter().collect();
    let mut writer = Writer::new(&mut bytes, now, true, only, &checkpoints)?;
    let among = |batch: i64| (first..=end).contains(&batch);
    // A part of the chain needs no cut: it says of itself that it is one. Of what waits and cannot be read nobody knows what it is about.
    let visit = |step: Step<'_>| match step {
        Step::Cut(_) | Step::Unreadable(_) => Ok(()),
        Step::Link(link) if !among(link.batch) => Ok(()),
        Step::Seal(seal) if !among(seal.batch) => Ok(()),
        step => writer.step(step),
    };
    lines::walk(store, visit).await?;
    writer.end()?;
    Ok(bytes)
}

/// Whether the tar is as it was signed, and its audit rows stand in the chain that its checkpoint saw.
///
/// # Errors
/// If it cannot be read at all.
pub(crate) fn verify(tar: impl Read, trusted: &Trusted) -> anyhow::Result<Verdict> {
    let mut faults = Vec::new();
    let files = unpack(tar)?;
    let (Some(list), Some(signature)) = (files.get(MANIFEST), files.get(SIGNATURE)) else {
        bail!("this is no evidence of Watchkeeper: it has no {MANIFEST} with a {SIGNATURE}");
    };
    let manifest: Manifest = serde_json::from_slice(list).with_context(|| format!("{MANIFEST} cannot be read"))?;
    ensure!(manifest.kind == KIND && manifest.version == 1, "{MANIFEST} is not of a kind that this version knows");
    let signature = String::from_utf8_lossy(signature);
    if let Err(why) = trusted.check(&manifest.public_key, &signed_bytes(list), signature.trim()) {
        faults.push(format!("{MANIFEST}: {why}"));
    }
    let mut listed: BTreeSet<&str> = BTreeSet::from([MANIFEST, SIGNATURE]);
    for entry in &manifest.files {
        listed.insert(&entry.path);
        match files.get(&entry.path) {
            None => faults.push(format!("{} is missing", entry.path)),
            Some(bytes) if bytes.len() as u64 != entry.bytes || Digest::of(bytes) != entry.sha256 => {
                faults.push(format!("{} was changed", entry.path));
            }
            Some(_) => {}
        }
    }
    faults.extend(files.keys().filter(|path| !listed.contains(path.as_str())).map(|path| format!("{path} was added")));
    let mut strange = 0;
    let audit = match files.get(AUDIT) {
        Some(bytes) => {
            let seen = |row: &domain::audit::NewAudit, _: &Report| strange += u64::from(!manifest.objects.contains(&row.object));
            Some(lines::verify(Cursor::new(bytes), Extent::Part, None, trusted, seen)?)
        }
        None => None,
    };
    if strange > 0 {
        faults.push(format!("{AUDIT}: {strange} rows are about something else"));
    }
    if let Some(report) = &audit {
        faults.extend(report.faults.iter().map(|fault| format!("{AUDIT}: {}", fault.text)));
        if report.covered < report.rows {
            faults.push(format!("{AUDIT}: {} of {} rows are covered by no trusted checkpoint", report.rows - report.covered, report.rows));
        }
    }
    Ok(Verdict { faults, manifest: Some(manifest), audit })
}

fn unpack(tar: impl Read) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut room = LARGEST;
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry.context("this is no tar")?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        ensure!(entry.header().entry_type().is_file(), "{path:?} is no plain file: this is no evidence of Watchkeeper");
        let mut bytes = Vec::new();
        let read = entry.by_ref().take(room + 1).read_to_end(&mut bytes)? as u64;
        room = room.checked_sub(read).with_context(|| format!("it is larger than {LARGEST} bytes"))?;
        ensure!(files.insert(path.clone(), bytes).is_none(), "{path:?} is there twice");
    }
    Ok(files)
}

fn json(path: &str, value: &impl Serialize) -> anyhow::Result<(String, Vec<u8>)> {
    Ok((path.to_owned(), serde_json::to_vec_pretty(value)?))
}

/// What is signed: a line that says what it is, then the list.
fn signed_bytes(list: &[u8]) -> Vec<u8> {
    [KIND.as_bytes(), b"\n", list].concat()
}

/// A configuration file's name as the name of a file in the tar.
fn plain(name: &str) -> String {
    let parts = name.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..");
    parts.collect::<Vec<_>>().join("/")
}
