//! Keeping the audit log: rows are sealed into their chain within a second, now and then a signed checkpoint says outside of the database
//! where the chain stands, and what is older than the configuration keeps goes.

pub(crate) mod checkpoints;
pub(crate) mod evidence;
pub(crate) mod lines;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::audit::{AuditDecision, Checkpoint, NewAudit, Unreadable};
use domain::canonical::Digest;
use domain::duration::Dur;
use domain::inbox::Inbox;
use domain::time::Clock;
use jiff::Timestamp;
use serde_json::json;
use store::{AuditPruned, Error, Store};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::bus::about_ourselves;
use crate::config::Config;
use crate::keys;
use checkpoints::Signer;

/// How often it is looked for rows that wait.
const LOOK: Duration = Duration::from_millis(400);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(3);
/// Rows of one batch: a few milliseconds of the writer's time, which accepting goes before.
const MOST: i64 = 500;
/// How often it is looked for what is old: each going is a row itself, and need not be many.
const PRUNE: Duration = Duration::from_hours(6);
/// How long the last sealing of a stopping server may take.
const LAST: Duration = Duration::from_secs(5);

/// Seals, says checkpoints, and lets go of what is old.
pub(crate) struct Sealer {
    store: Store,
    signer: Signer,
    file: PathBuf,
    every: Duration,
    keep: Dur,
    clock: Arc<dyn Clock>,
    said: Mutex<Said>,
}

/// The last checkpoint of this server.
struct Said {
    /// Where the chain stood then. Not the number of its batch: after a restore numbers are given again.
    hash: Option<Digest>,
    /// What old rows may go in front of.
    checkpoint: Option<Checkpoint>,
    at: Option<Instant>,
}

/// A row about the rules that are in force from now on.
pub(crate) fn in_force(action: &str, at: Timestamp, before: Option<&str>, rules: &str) -> NewAudit {
    NewAudit {
        at,
        actor: "system".to_owned(),
        action: action.to_owned(),
        object: "config".to_owned(),
        decision: AuditDecision::Allowed,
        reason: "in_force".to_owned(),
        detail: json!({ "rules": rules, "before": before, "version": env!("CARGO_PKG_VERSION") }),
    }
}

impl Sealer {
    /// Checkpoints go to a file in the data folder, every so often while there is something new.
    ///
    /// # Errors
    /// If the file or the key cannot be read.
    pub(crate) fn open(config: &Config, store: &Store, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let signer = Signer::new(&keys::load(&config.keys.checkpoint, &config.data_dir, "checkpoint")?)?;
        let file = config.data_dir.join(checkpoints::FILE);
        checkpoints::mend(&file)?;
        // What somebody else wrote there covers nothing.
        let checkpoint = checkpoints::read(&file)?.last().and_then(|signed| signer.trusted().check_checkpoint(signed).ok());
        let hash = checkpoint.map(|checkpoint| checkpoint.hash);
        tracing::info!(public_key = signer.public_key(), "the audit log's checkpoints are signed with this key");
        let said = Mutex::new(Said { hash, checkpoint, at: None });
        let every = config.audit.checkpoint_every.as_std();
        let keep = config.retention.audit;
        Ok(Self { store: store.clone(), signer, file, every, keep, clock: Arc::clone(clock), said })
    }

    /// Works until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut failing = false;
        let mut prune_at = Instant::now();
        loop {
            let pause = match self.seal().await {
                Ok(()) => {
                    failing = false;
                    LOOK
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(error = %format!("{error:#}"), "the audit log cannot be sealed now; its rows wait");
                    }
                    failing = true;
                    PAUSE
                }
            };
            if !failing && prune_at <= Instant::now() {
                prune_at = Instant::now() + self.prune().await;
            }
            tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return }
        }
    }

    /// Lets go of one step's worth of what is old; when to look again.
    async fn prune(&self) -> Duration {
        let Some(seen) = self.said.lock().await.checkpoint else { return Duration::ZERO };
        let now = match self.old_by().await {
            Ok(Some(now)) => now,
            // Nobody has looked at the clock yet.
            Ok(None) | Err(Error::Retry) => return PAUSE,
            Err(error) => {
                tracing::warn!(%error, "the old rows of the audit log stay for now");
                return PAUSE;
            }
        };
        let before = self.keep.before(now);
        let sign = |cut: &domain::audit::Cut| (self.signer.public_key(), self.signer.sign_bytes(cut.statement().as_bytes()));
        match self.store.prune_audit(before, &seen, sign).await {
            Ok(AuditPruned::Nothing) => {
                self.thin(now).await;
                PRUNE
            }
            Ok(AuditPruned::Gone(rows)) => {
                metrics::counter!("watchkeeper_pruned_rows_total", "kind" => "audit").increment(rows);
                Duration::ZERO
            }
            Ok(AuditPruned::Unsound(report)) => {
                let first = report.faults.first().map_or("", |fault| fault.text.as_str());
                tracing::error!(
                    faults = report.faulty,
                    first,
                    "old rows of the audit log are not what was written, so they stay, and all checkpoints: run `watchkeeper audit verify`"
                );
                PRUNE
            }
            Err(Error::Retry) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(%error, "the old rows of the audit log stay for now");
                PAUSE
            }
        }
    }

    /// Lets go of old checkpoints that later ones make needless.
    async fn thin(&self, now: Timestamp) {
        // Nothing is appended meanwhile.
        let _said = self.said.lock().await;
        let file = self.file.clone();
        match tokio::task::spawn_blocking(move || checkpoints::thin(&file, now)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(gone)) => tracing::info!(gone, "of old checkpoints one a day stays"),
            Ok(Err(error)) => tracing::warn!(error = %format!("{error:#}"), "the file of checkpoints stays as long as it is"),
            Err(error) => tracing::warn!(%error, "the file of checkpoints stays as long as it is"),
        }
    }

    /// Seals what is left and says a last checkpoint, when nothing is written any more.
    pub(crate) async fn finish(&self) {
        let last = async {
            self.seal().await?;
            self.say().await
        };
        match tokio::time::timeout(LAST, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %format!("{error:#}"), "the end of the audit log is sealed at the next start"),
            Err(_) => tracing::warn!("the end of the audit log is sealed at the next start: the store does not answer"),
        }
    }

    async fn seal(&self) -> anyhow::Result<()> {
        loop {
            let sealed = self.store.seal_audit(MOST).await?;
            metrics::counter!("watchkeeper_audit_rows_sealed_total").increment(sealed.rows as u64);
            if !sealed.unreadable.is_empty() {
                self.raise(&sealed.unreadable).await;
            }
            if sealed.rows < MOST as usize {
                break;
            }
        }
        let due = self.said.lock().await.at.is_none_or(|at| at.elapsed() >= self.every);
        if due { self.say().await } else { Ok(()) }
    }

    /// Rows that nobody can read are damage, or somebody's work: an incident about ourselves.
    async fn raise(&self, rows: &[Unreadable]) {
        metrics::counter!("watchkeeper_audit_rows_unreadable_total").increment(rows.len() as u64);
        for row in rows {
            let Unreadable { seq, why, .. } = row;
            tracing::error!(seq, why, "a row of the audit log cannot be read, and was sealed as such: run `watchkeeper audit verify`");
            let summary = format!(
                "Row {seq} of the audit log cannot be read ({why}): the database was changed or is damaged. The log goes on behind it, and \
                 `watchkeeper audit verify` names the row."
            );
            // One alert for all of them: its own incident has an audit row, too.
            let told = about_ourselves("AuditRowUnreadable", "audit-row".to_owned(), "audit", summary, self.clock.now());
            if let Err(error) = self.store.accept(told).await {
                tracing::error!(%error, "the incident about a row of the audit log could not be stored");
            }
        }
    }

    /// Says where the chain stands, if it stands elsewhere than when it was said last.
    async fn say(&self) -> anyhow::Result<()> {
        let mut said = self.said.lock().await;
        let Some(seal) = self.last_seal().await?.filter(|seal| Some(seal.hash) != said.hash) else { return Ok(()) };
        let checkpoint = Checkpoint { at: self.clock.now(), ..Checkpoint::from(&seal) };
        let signed = self.signer.sign(checkpoint);
        let file = self.file.clone();
        let line = signed.clone();
        tokio::task::spawn_blocking(move || checkpoints::append(&file, &line)).await??;
        tracing::info!(checkpoint = %serde_json::to_string(&signed)?, "{}", checkpoints::SAID);
        metrics::gauge!("watchkeeper_audit_checkpoint_timestamp_seconds").set(checkpoint.at.as_second() as f64);
        *said = Said { hash: Some(seal.hash), checkpoint: Some(checkpoint), at: Some(Instant::now()) };
        Ok(())
    }

    /// The time by which things are old: not the wall clock's.
    async fn old_by(&self) -> Result<Option<Timestamp>, Error> {
        self.store.read().await?.old_by().await
    }

    async fn last_seal(&self) -> Result<Option<domain::audit::Seal>, Error> {
        self.store.read().await?.last_seal().await
    }
}
