//! Reading the configuration again: all of it or nothing. A bad one changes nothing and shows in a metric.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use actions::Supervisor;
use arc_swap::ArcSwap;
use domain::rules::RuleSet;
use store::Store;
use tokio_util::sync::CancellationToken;
use webhook_gateway::SourceTable;

use crate::config::{Config, environment};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(3);

/// Swaps in a new configuration.
pub(crate) struct Reloader {
    path: Mutex<Option<PathBuf>>,
    rules: Arc<ArcSwap<RuleSet>>,
    sources: Arc<ArcSwap<SourceTable>>,
    store: Store,
    supervisor: Arc<Supervisor>,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Reloader {
    pub(crate) fn new(rules: Arc<ArcSwap<RuleSet>>, sources: Arc<ArcSwap<SourceTable>>, store: Store, supervisor: Arc<Supervisor>) -> Self {
        succeeded(true);
        Self { path: Mutex::default(), rules, sources, store, supervisor, turn: tokio::sync::Mutex::default() }
    }

    /// Where the configuration is.
    pub(crate) fn set_path(&self, path: PathBuf) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> Arc<RuleSet> {
        self.rules.load_full()
    }

    /// Reads the configuration again. Rules, people, channels and sources change at once; addresses, keys, stores and tokens need a restart.
    ///
    /// # Errors
    /// The findings; nothing changed.
    pub(crate) async fn reload(&self) -> Result<String, String> {
        let _turn = self.turn.lock().await;
        let result = self.try_reload().await;
        succeeded(result.is_ok());
        match &result {
            Ok(text) => tracing::info!("{text}"),
            Err(error) => tracing::error!(error, "the configuration was not loaded: what was in force stays in force"),
        }
        result
    }

    async fn try_reload(&self) -> Result<String, String> {
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let path = path.ok_or_else(|| "this server has no configuration files to read again".to_owned())?;
        let loaded = tokio::task::spawn_blocking(move || Config::load(&path, &environment));
        let config = loaded
            .await
            .map_err(|error| error.to_string())?
            .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))?;
        let digest = config.rules.digest.clone();
        if digest == self.rules.load().digest {
            // A source's secrets may lie in files of their own.
            self.sources.store(Arc::new(config.sources));
            return Ok("the configuration is unchanged; the secrets of its sources were read again".to_owned());
        }
        let before = self.rules.load().digest.clone();
        self.keep(&config, &before).await.map_err(|error| error.to_string())?;
        crate::app::start_children(&self.supervisor, &config.rules).await;
        self.sources.store(Arc::new(config.sources));
        self.rules.store(config.rules);
        Ok(format!("configuration {} is in force", digest.chars().take(12).collect::<String>()))
    }

    async fn keep(&self, config: &Config, before: &str) -> Result<(), store::Error> {
        let row = crate::audit::in_force("config.reload", self.store.clock().now(), Some(before), &config.rules.digest);
        let mut tx = self.store.begin().await?;
        tx.put_rule_set(&config.rules.digest, &config.rules.texts).await?;
        tx.audit(&row).await?;
        tx.commit().await
    }
}

/// Reloads when a file of the configuration changes, until told to stop.
pub(crate) async fn watch(reloader: Arc<Reloader>, path: PathBuf, stop: CancellationToken) {
    let mut seen = stamp(&path);
    loop {
        tokio::select! { () = tokio::time::sleep(LOOK) => {}, () = stop.cancelled() => return }
        let now = stamp(&path);
        if now != seen {
            seen = now;
            // The result is logged; the next change is the next chance.
            drop(reloader.reload().await);
        }
    }
}

/// Names, sizes and times of the files: what changes when somebody edits one.
fn stamp(path: &Path) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    let one = |path: PathBuf| std::fs::metadata(&path).ok().map(|meta| (path, meta.len(), meta.modified().ok()));
    let Ok(entries) = std::fs::read_dir(path) else { return one(path.to_owned()).into_iter().collect() };
    let mut all: Vec<_> = entries.filter_map(|entry| one(entry.ok()?.path())).collect();
    all.sort();
    all
}

fn succeeded(yes: bool) {
    metrics::gauge!("watchkeeper_config_last_reload_successful").set(if yes { 1.0 } else { 0.0 });
}
