//! `evidence export|verify`: one incident as a file that proves itself.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use domain::text::clean_line;
use domain::time::{Clock, SystemClock};
use jiff::Timestamp;

use super::audit::{Opened, Place};
use super::{Format, out};
use crate::audit::checkpoints::Trusted;
use crate::audit::evidence::{self, Verdict};

/// It does not hold: as for a failure.
const UNSOUND: u8 = 1;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write everything about an incident into a tar: timeline, alerts, runs, approvals, rules, audit rows with their chain; signed.
    Export {
        #[command(flatten)]
        place: Place,
        /// The incident's number.
        #[arg(long)]
        incident: i64,
        /// Where to.
        #[arg(long)]
        to: PathBuf,
    },
    /// Check such a tar, with nothing but the public key. Exits with 1 if anything is wrong.
    Verify {
        /// The tar.
        file: PathBuf,
        /// Who must have signed it: the key in hex, or a file with such keys. `watchkeeper audit public-key` prints it.
        #[arg(long, required = true)]
        public_key: Vec<String>,
        /// How the outcome is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Runs the verb.
///
/// # Errors
/// If there is no such incident, or something cannot be read or written.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Export { place, incident, to } => super::block_on(async {
            let Opened { store, signer, said, .. } = place.open().await?;
            let mut file = BufWriter::new(super::private_file(&to)?);
            let manifest = evidence::export(&store, incident, &signer, &said, SystemClock.now(), &mut file).await?;
            file.into_inner()?.sync_all()?;
            store.close().await;
            out(&format!("{}: incident {incident} in {} files, signed by {}", to.display(), manifest.files.len(), manifest.public_key));
            manifest.audit_pruned_until.into_iter().for_each(|until| out(&pruned(until)));
            Ok(ExitCode::SUCCESS)
        }),
        Verb::Verify { file, public_key, output } => {
            let mut trusted = Trusted::default();
            trusted.add(&public_key)?;
            let tar = File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let verdict = evidence::verify(BufReader::new(tar), &trusted)?;
            match output {
                Format::Json => out(&serde_json::to_string_pretty(&verdict)?),
                Format::Table => out(&told(&verdict)),
            }
            Ok(if verdict.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(UNSOUND) })
        }
    }
}

fn told(verdict: &Verdict) -> String {
    let mut lines: Vec<String> = verdict.faults.iter().map(|fault| format!("WRONG  {}", clean_line(fault, 400))).collect();
    let rows = verdict.audit.as_ref().map_or(0, |report| report.rows - report.left_out + report.unsealed);
    let state = if verdict.faults.is_empty() { "sound" } else { "NOT sound" };
    let (incident, at) = verdict.manifest.as_ref().map_or((0, String::new()), |manifest| (manifest.incident, manifest.at.to_string()));
    lines.push(format!("The evidence about incident {incident}, taken at {at}, is {state}; {rows} audit rows are about it."));
    lines.extend(verdict.manifest.as_ref().and_then(|manifest| manifest.audit_pruned_until).map(pruned));
    lines.join("\n")
}

fn pruned(until: Timestamp) -> String {
    format!("The audit log of before {until} was let go of for its age: rows about this incident from before then are not in the evidence.")
}
