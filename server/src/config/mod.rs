//! The configuration: one file or a folder of them, read completely and checked before anything is opened.
//!
//! The rules' part belongs to `domain::rules`; the server's part is here, one file per section. Both read the same tree, so that every finding
//! has its file, line and column, and all findings are told at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::action::ActionCatalogue;
use domain::rules::tree::Tree;
use domain::rules::{Problem, Report, RuleSet, compile_tree};
use secrecy::SecretString;
use webhook_gateway::SourceTable;

pub(crate) use actions::{ActionsConfig, library_for_checks};
pub(crate) use agents::AgentsConfig;
#[cfg(test)]
pub(crate) use bus::Via;
pub(crate) use bus::{Commands, Ingest, NatsConfig, Publish, Subscription};
pub(crate) use chat::{DiscordConfig, SlackConfig};
pub(crate) use fill::{Lookup, environment};
pub(crate) use link::{Kept, NatsLink, NatsTls, Proof, Told, address_problem, is_word};
pub(crate) use operations::{AuditConfig, HeartbeatConfig, LogConfig, LogFormat, TelemetryConfig};
pub(crate) use schema::json_schema;
pub(crate) use server::ServerConfig;
pub(crate) use store::{KeysConfig, StoreConfig};

mod actions;
mod agents;
mod bus;
mod chat;
mod files;
mod fill;
mod link;
mod one_or_many;
mod operations;
mod part;
mod retention;
mod schema;
mod server;
mod sources;
mod store;
#[cfg(test)]
mod tests;

/// Everything that `serve` is told.
pub(crate) struct Config {
    /// Where to listen and who may be in between.
    pub(crate) server: ServerConfig,
    /// The folder for SQLite, generated keys and supervised children.
    pub(crate) data_dir: PathBuf,
    /// Which database.
    pub(crate) store: StoreConfig,
    /// Files with keys; none are named where the server makes its own.
    pub(crate) keys: KeysConfig,
    /// The sources with their secrets, as the gateway takes them.
    pub(crate) sources: SourceTable,
    /// Slack, if it is used.
    pub(crate) slack: Option<SlackConfig>,
    /// Discord, if it is used.
    pub(crate) discord: Option<DiscordConfig>,
    /// NATS, if it is used.
    pub(crate) nats: Option<NatsConfig>,
    /// Agents on other hosts, if there are any.
    pub(crate) agents: Option<AgentsConfig>,
    /// What actions may run and reach.
    pub(crate) actions: ActionsConfig,
    /// Our own sign of life.
    pub(crate) heartbeat: Option<HeartbeatConfig>,
    /// How the audit log is kept.
    pub(crate) audit: AuditConfig,
    /// How logs look.
    pub(crate) log: LogConfig,
    /// Who may read the metrics.
    pub(crate) telemetry: TelemetryConfig,
    /// How long what is kept.
    pub(crate) retention: handlers::Retention,
    /// Every secret that was read, for the redactor.
    pub(crate) secrets: Vec<SecretString>,
    /// What decides; `texts` in it are the files.
    pub(crate) rules: Arc<RuleSet>,
}

impl Config {
    /// Reads, checks and compiles, with secrets from the files and from the environment that `env` knows.
    ///
    /// # Errors
    /// All findings.
    pub(crate) fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        Self::load_with(path, &Lookup { env, ..Lookup::real() })
    }

    /// The same, with secrets from anywhere.
    ///
    /// # Errors
    /// All findings.
    pub(crate) fn load_with(path: &Path, lookup: &Lookup<'_>) -> Result<Self, Vec<Problem>> {
        let draft = Draft::read(path, lookup);
        match library_for_checks(&draft.part.actions) {
            Ok(library) => draft.finish(&library),
            Err(error) => Err(vec![Problem::of_file(path.display().to_string(), format!("{error:#}"), None)]),
        }
    }
}

/// A configuration whose server part is read and whose rules are not compiled yet: the actions that judge them need that part.
struct Draft {
    base: PathBuf,
    texts: Vec<(String, String)>,
    tree: Tree,
    found: Vec<Problem>,
    part: part::Part,
}

impl Draft {
    /// Reads the files and the server's part. What is wrong is kept for [`Draft::finish`].
    fn read(path: &Path, lookup: &Lookup<'_>) -> Self {
        let files = files::read(path);
        let (tree, mut found) = Tree::parse(&files.texts);
        found.extend(files.problems);
        let part = if tree.complete {
            let mut report = Report::new(&tree, found);
            let part = part::Part::read(&files.base, lookup, &mut report);
            found = report.finish();
            part
        } else {
            part::Part::default()
        };
        Self { base: files.base, texts: files.texts, tree, found, part }
    }

    /// Compiles the rules.
    ///
    /// # Errors
    /// All findings, those about the server's part included, with file names that can be opened.
    fn finish(self, actions: &dyn ActionCatalogue) -> Result<Config, Vec<Problem>> {
        let Self { base, texts, tree, found, part } = self;
        let mut report = Report::new(&tree, found);
        let rules = if tree.complete { compile_tree(&texts, actions, &mut report) } else { None };
        match rules {
            Some(rules) if report.count() == 0 => Ok(Config {
                server: part.server,
                data_dir: part.data_dir,
                store: part.store,
                keys: part.keys,
                sources: part.sources,
                slack: part.slack,
                discord: part.discord,
                nats: part.nats,
                agents: part.agents,
                actions: part.actions,
                heartbeat: part.heartbeat,
                audit: part.audit,
                log: part.log,
                telemetry: part.telemetry,
                retention: part.retention,
                secrets: part.secrets,
                rules: Arc::new(rules),
            }),
            _ => Err(report.finish().into_iter().map(|problem| shown_in(&base, problem)).collect()),
        }
    }
}

/// Names are kept relative, so that the digest is the same on every machine; people want a path that they can open.
fn shown_in(base: &Path, mut problem: Problem) -> Problem {
    let path = base.join(&problem.file);
    if path.is_file() {
        problem.file = path.display().to_string();
    }
    problem
}
