//! `audit verify|export|public-key`: the audit log, read from a store or from a file, never changed.

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Subcommand;
use domain::audit::{AuditKeys, FaultKind, Report, Verifier};
use domain::id::StartId;
use domain::time::{Clock, SystemClock};
use jiff::Timestamp;
use secrecy::SecretSlice;
use store::{Options, Store};

use super::{Format, out, tell};
use crate::audit::checkpoints::{self, SignedCheckpoint, Signer, Trusted};
use crate::audit::lines::{self, Extent, Only, Writer};
use crate::config::Config;
use crate::keys;

/// The log does not hold: as for a failure.
const UNSOUND: u8 = 1;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Follow the chain and say what is wrong with it, where. Exits with 1 if anything is.
    Verify(Verify),
    /// Write the log as lines of JSON that `audit verify --file` can follow without the database.
    Export(Export),
    /// Print the public key with which checkpoints and evidence are signed. Keep it where this server cannot change it.
    PublicKey(Place),
}

#[derive(clap::Args)]
struct Verify {
    #[command(flatten)]
    place: Place,
    /// An exported log instead of a store; `-` is the standard input.
    #[arg(long, conflicts_with_all = ["config", "data"])]
    file: Option<PathBuf>,
    /// A key of the audit log besides the configured ones, such as one before the last rotation; with --file the only ones.
    #[arg(long)]
    key_file: Vec<PathBuf>,
    /// A public key whose checkpoints are believed, in hex, or a file with such keys; for a store, besides its own.
    #[arg(long)]
    public_key: Vec<String>,
    /// Further checkpoints, such as those that a log sink kept: a file with one a line, or lines of the server's log.
    #[arg(long)]
    checkpoints: Vec<PathBuf>,
    /// How the outcome is shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(clap::Args)]
struct Export {
    #[command(flatten)]
    place: Place,
    /// Rows from this time on, as 2026-03-01T12:00:00Z. Of all other rows the digests are written, so that the chain can be followed.
    #[arg(long)]
    since: Option<Timestamp>,
    /// Rows before this time.
    #[arg(long)]
    until: Option<Timestamp>,
    /// Rows of this person (`ann`) or actor (`system`).
    #[arg(long)]
    actor: Option<String>,
    /// Rows of this action.
    #[arg(long)]
    action: Option<String>,
    /// Where to; the standard output if nothing is said.
    #[arg(long)]
    to: Option<PathBuf>,
}

/// Which store.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// Configuration: a file or a folder.
    #[arg(long, short, env = "WATCHKEEPER_CONFIG", default_value_os_t = crate::default_config())]
    config: PathBuf,
    /// A data folder or a copy of one, with SQLite and keys in it: no configuration is read then.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// An opened place.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) keys: Vec<SecretSlice<u8>>,
    pub(crate) signer: Signer,
    pub(crate) said: Vec<SignedCheckpoint>,
}

/// Runs the verb.
///
/// # Errors
/// If the log cannot be read, or the outcome cannot be written.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Verify(args) => verify(&args),
        Verb::Export(args) => super::block_on(export(&args)),
        Verb::PublicKey(place) => {
            out(&place.signer()?.public_key());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn verify(args: &Verify) -> anyhow::Result<ExitCode> {
    let more = args.key_file.iter().map(|file| keys::read(file)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut progress = Progress::default();
    let report = match &args.file {
        Some(file) => {
            let mut trusted = Trusted::default();
            trusted.add(&args.public_key)?;
            let keys = if more.is_empty() { None } else { Some(AuditKeys::new(more).map_err(anyhow::Error::msg)?) };
            lines::verify(input(file)?, Extent::Whole, keys, &trusted, |_, report| progress.show(report))?
        }
        None => super::block_on(verify_store(args, more, &mut progress))?,
    };
    progress.end();
    let by_key = args.file.is_none() || !args.public_key.is_empty();
    match args.output {
        Format::Json => out(&serde_json::to_string_pretty(&report)?),
        Format::Table => out(&told(&report, by_key)),
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(UNSOUND) })
}

async fn verify_store(args: &Verify, more: Vec<SecretSlice<u8>>, progress: &mut Progress) -> anyhow::Result<Report> {
    let Opened { store, keys, signer, mut said } = args.place.open().await?;
    for file in &args.checkpoints {
        said.extend(checkpoints::read_log(file)?);
    }
    let mut trusted = signer.trusted();
    trusted.add(&args.public_key)?;
    let mut wrong = Vec::new();
    let mut believed = Vec::new();
    for signed in &said {
        match trusted.check_checkpoint(signed) {
            Ok(checkpoint) => believed.push(checkpoint),
            Err(why) => wrong.push(format!("the checkpoint of {}: {why}", signed.checkpoint.at)),
        }
    }
    let keys = AuditKeys::new(keys.into_iter().chain(more).collect()).map_err(anyhow::Error::msg)?;
    let mut verifier = Verifier::new(Some(keys), believed);
    wrong.into_iter().for_each(|text| verifier.malformed(FaultKind::Checkpoint, None, text));
    let report = store.verify_audit(verifier, |report| progress.show(report)).await;
    store.close().await;
    Ok(report?)
}

async fn export(args: &Export) -> anyhow::Result<ExitCode> {
    let Opened { store, said, .. } = args.place.open().await?;
    let only = Only { since: args.since, until: args.until, actor: args.actor.clone(), action: args.action.clone(), objects: Vec::new() };
    let to: Box<dyn Write> = match &args.to {
        Some(path) => Box::new(super::private_file(path)?),
        None => Box::new(std::io::stdout().lock()),
    };
    let writer = Writer::new(BufWriter::new(to), SystemClock.now(), false, only, &said)?;
    let rows = lines::export(&store, writer).await?;
    store.close().await;
    tell(&format!("{rows} rows were exported."));
    Ok(ExitCode::SUCCESS)
}

impl Place {
    /// Opens the store to look at it, with the keys that are there. Nothing is made that is missing.
    ///
    /// # Errors
    /// Says what is missing or cannot be read.
    pub(crate) async fn open(&self) -> anyhow::Result<Opened> {
        let config = self.config()?;
        let (url, data_dir) = match (&self.data, &config) {
            (None, Some(config)) => (config.store.url.clone(), config.data_dir.clone()),
            (data, _) => {
                let data = data.clone().unwrap_or_default();
                (format!("sqlite:{}", data.join("watchkeeper.db").display()).into(), data)
            }
        };
        let named = config.as_ref().map(|config| config.keys.audit.clone()).unwrap_or_default();
        let keys = keys::present(&named, &data_dir, "audit")?;
        // Read before the chain: what is said later is not missed in it.
        let said = checkpoints::read(&data_dir.join(checkpoints::FILE))?;
        let options = Options {
            url: secrecy::ExposeSecret::expose_secret(&url).to_owned(),
            clock: Arc::new(SystemClock),
            instance: "looking".to_owned(),
            start: StartId::new(SystemClock.now()),
            audit_keys: keys.clone(),
            max_waiting: 1,
        };
        let store = Store::look(options).await.context("cannot open the store")?;
        Ok(Opened { store, keys, signer: self.signer()?, said })
    }

    fn signer(&self) -> anyhow::Result<Signer> {
        let config = self.config()?;
        let named = config.as_ref().map(|config| config.keys.checkpoint.clone()).unwrap_or_default();
        let data_dir = self.data.clone().or(config.map(|config| config.data_dir)).unwrap_or_default();
        Signer::new(&keys::present(&named, &data_dir, "checkpoint")?)
    }

    fn config(&self) -> anyhow::Result<Option<Config>> {
        if self.data.is_some() { Ok(None) } else { super::load(&self.config).map(Some) }
    }
}

fn input(file: &Path) -> anyhow::Result<BufReader<Box<dyn Read>>> {
    let read: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    Ok(BufReader::new(read))
}

/// The outcome for people.
fn told(report: &Report, by_key: bool) -> String {
    let mut text = String::new();
    for fault in &report.faults {
        text.push_str(&format!("WRONG  {}\n", domain::text::clean_line(&fault.text, 400)));
    }
    let untold = report.faulty.saturating_sub(report.faults.len() as u64);
    if untold > 0 {
        text.push_str(&format!("WRONG  and {untold} more\n"));
    }
    let state = if report.is_sound() { "sound" } else { "NOT sound" };
    text.push_str(&format!("The audit log is {state}: {} sealed rows in {} batches", report.rows, report.batches));
    text.push_str(&format!(", {} covered by {} checkpoints, {} not sealed yet.", report.covered, report.checkpoints, report.unsealed));
    if let Some(cut) = &report.pruned {
        let (rows, until, at) = (cut.rows, cut.until, cut.at);
        text.push_str(&format!("\n{rows} rows before it, sealed until {until}, were let go of for their age, the last of them at {at}."));
    }
    if report.left_out > 0 {
        text.push_str(&format!("\n{} rows were left out of the export; their digests are in the chain.", report.left_out));
    }
    if !report.keyed {
        text.push_str("\nWithout --key-file the keyed hashes were not checked.");
    }
    if !by_key {
        text.push_str("\nWithout --public-key no checkpoint was believed: whoever wrote this file could have written another.");
    }
    text
}

/// A line on a terminal that says how far it is.
#[derive(Default)]
struct Progress {
    rows: u64,
}

impl Progress {
    fn show(&mut self, report: &Report) {
        if report.rows < self.rows + 10_000 || !std::io::stderr().is_terminal() {
            return;
        }
        self.rows = report.rows;
        drop(write!(std::io::stderr().lock(), "\r{} rows ..", report.rows));
    }

    fn end(&self) {
        if self.rows > 0 {
            drop(write!(std::io::stderr().lock(), "\r{:30}\r", ""));
        }
    }
}
