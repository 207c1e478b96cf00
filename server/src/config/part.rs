//! The server's part of the tree, section by section.

use std::path::{Path, PathBuf};

use domain::rules::Report;
use domain::rules::decode::decode;
use domain::rules::tree::{Data, Node};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use webhook_gateway::SourceTable;

use super::actions::ActionsConfig;
use super::agents::AgentsConfig;
use super::bus::NatsConfig;
use super::chat::{DiscordConfig, SlackConfig};
use super::fill::{Filler, Lookup};
use super::operations::{AuditConfig, HeartbeatConfig, LogConfig, TelemetryConfig};
use super::server::ServerConfig;
use super::store::{KeysConfig, StoreConfig};

/// Where things are kept if nothing else is said.
const DATA_DIR: &str = "/var/lib/watchkeeper";

/// All sections that belong to the server.
#[derive(Default)]
pub(super) struct Part {
    pub(super) server: ServerConfig,
    pub(super) data_dir: PathBuf,
    pub(super) store: StoreConfig,
    pub(super) keys: KeysConfig,
    pub(super) sources: SourceTable,
    pub(super) slack: Option<SlackConfig>,
    pub(super) discord: Option<DiscordConfig>,
    pub(super) nats: Option<NatsConfig>,
    pub(super) agents: Option<AgentsConfig>,
    pub(super) actions: ActionsConfig,
    pub(super) heartbeat: Option<HeartbeatConfig>,
    pub(super) audit: AuditConfig,
    pub(super) log: LogConfig,
    pub(super) telemetry: TelemetryConfig,
    pub(super) retention: handlers::Retention,
    pub(super) secrets: Vec<SecretString>,
}

impl Part {
    /// Reads every section; relative paths begin at `base`. Sections with mistakes are told and keep their defaults.
    pub(super) fn read(base: &Path, lookup: &Lookup<'_>, report: &mut Report<'_>) -> Self {
        let filler = Filler { lookup, base, report, secrets: Vec::new(), files: Vec::new() };
        let mut cx = Sections { base, filler };
        let data_dir = cx.value("data_dir").map_or_else(|| PathBuf::from(DATA_DIR), |(_, dir): (_, PathBuf)| base.join(dir));
        let server = ServerConfig::read(&mut cx);
        let store = StoreConfig::read(&mut cx, &data_dir);
        let keys = KeysConfig::read(&mut cx, &store);
        let nats = NatsConfig::read(&mut cx);
        let (sources, nats) = super::sources::read(&mut cx, nats);
        Self {
            server,
            data_dir,
            store,
            keys,
            sources,
            slack: SlackConfig::read(&mut cx),
            discord: DiscordConfig::read(&mut cx),
            nats,
            agents: AgentsConfig::read(&mut cx),
            actions: ActionsConfig::read(&mut cx),
            heartbeat: HeartbeatConfig::read(&mut cx),
            audit: AuditConfig::read(&mut cx),
            log: LogConfig::read(&mut cx),
            telemetry: TelemetryConfig::read(&mut cx),
            retention: super::retention::read(&mut cx),
            secrets: cx.filler.secrets,
        }
    }
}

/// What reading a section needs.
pub(super) struct Sections<'f, 'r, 't> {
    /// Where relative paths begin.
    pub(super) base: &'f Path,
    filler: Filler<'f, 'r, 't>,
}

impl<'t> Sections<'_, '_, 't> {
    pub(super) fn report(&mut self) -> &mut Report<'t> {
        self.filler.report
    }

    /// The node of a section as written.
    pub(super) fn written(&self, name: &str) -> Option<&'t Node> {
        let tree: &'t domain::rules::tree::Tree = self.filler.report.tree;
        tree.root.get(name)
    }

    /// The file of a secret in a section that was filled in.
    pub(super) fn secret_file(&self, section: &str, key: &str) -> Option<PathBuf> {
        let at = self.written(section)?.get(key)?.at;
        self.filler.files.iter().find(|(place, _)| *place == at).map(|(_, file)| file.clone())
    }

    /// A section, filled in and decoded, and its node for findings.
    pub(super) fn value<T: DeserializeOwned>(&mut self, name: &str) -> Option<(Node, T)> {
        let node = self.filler.section(name, self.written(name)?);
        let value = decode(&node, self.filler.report)?;
        Some((node, value))
    }

    /// The entries of a section that is a map of names, filled in and decoded one by one.
    pub(super) fn entries<T: DeserializeOwned>(&mut self, name: &str) -> Vec<(String, Node, T)> {
        let Some(node) = self.written(name) else { return Vec::new() };
        // The rules' part says so if it is no map.
        if !matches!(node.data, Data::Map(_)) {
            return Vec::new();
        }
        let mut all = Vec::new();
        for (entry, node) in node.entries() {
            let node = self.filler.section(name, node);
            if let Some(value) = decode(&node, self.filler.report) {
                all.push((entry.clone(), node, value));
            }
        }
        all
    }
}
