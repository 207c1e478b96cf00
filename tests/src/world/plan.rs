//! What a world looks like before it starts: a configuration with sensible defaults, and what a test changes of it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::World;
use crate::fake::{discord::FakeDiscord, slack::FakeSlack};
use crate::{Cmd, Proc, free_port, temp_dir};

/// What the source `am` shows to prove who it is.
pub(super) const SOURCE_TOKEN: &str = "test-only-source-token-0123456789abcdef";

/// Slack's id of `ann`, who has the roles `sre` and `admin`.
pub const ANN: &str = "U0ANN0001";
/// Slack's id of `ben`, who has the role `sre`.
pub const BEN: &str = "U0BEN0001";
/// Slack's id of `cleo`, who may only look.
pub const CLEO: &str = "U0CLEO001";
/// Slack's id of a guest; linked to `gus`, who has the role `sre`.
pub const GUS: &str = "U0GUEST01";
/// Slack's id of a bot; linked to `robo`, who has the role `sre`.
pub const ROBO: &str = "U0ROBOT01";
/// Slack's id of somebody of another workspace.
pub const OLAF: &str = "U0OTHER01";

/// What a world looks like.
pub struct Plan {
    /// The configuration; tests change what they like. It is written as JSON, which is YAML.
    pub config: Value,
    pub(super) allowed: Vec<String>,
    program: PathBuf,
    env: Vec<(String, String)>,
    args: Vec<String>,
    port: u16,
    service_port: u16,
    /// Servers that have ended: dropping one ends its children.
    ended: Vec<Proc>,
    dir: TempDir,
}

/// What happened outside of the server: see [`Plan::ledger`].
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The program that writes it.
    pub program: PathBuf,
    lines: PathBuf,
}

impl Ledger {
    /// Forgets its lines.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn clear(&self) -> anyhow::Result<()> {
        fs::write(&self.lines, "").context("the ledger")
    }

    /// Adds a line for something that happened without the program.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&self, line: &str) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.lines).context("the ledger")?;
        file.write_all(format!("{line}\n").as_bytes()).context("the ledger")
    }

    /// Lets those go on that were told to wait for this name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn let_go(&self, name: &str) -> anyhow::Result<()> {
        fs::write(self.lines.with_file_name(name), "").with_context(|| name.to_owned())
    }

    /// Its lines, in order.
    pub fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.lines).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Plan {
    /// One source `am` of Alertmanager, one supervised service `demo`, a runbook that restarts it after an approval, people, and no waits.
    /// `program` is the binary: `env!("CARGO_BIN_EXE_watchkeeper")`.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn new(program: impl AsRef<Path>) -> anyhow::Result<Self> {
        let dir = temp_dir("world")?;
        let (port, service_port) = (free_port(), free_port());
        let config = defaults(dir.path(), program.as_ref(), port, service_port);
        fs::create_dir(dir.path().join("config"))?;
        let program = program.as_ref().to_owned();
        let mut plan = Self { config, allowed: vec![], program, env: vec![], args: vec![], port, service_port, ended: vec![], dir };
        plan.secret("source-token", SOURCE_TOKEN)?;
        Ok(plan)
    }

    /// With a channel `ops` on this Slack.
    ///
    /// # Errors
    /// If a secret cannot be written.
    pub fn slack(mut self, slack: &FakeSlack) -> anyhow::Result<Self> {
        let token = self.secret("slack-bot-token", &slack.config().bot_token)?;
        let secret = self.secret("slack-signing-secret", &slack.config().signing_secret)?;
        let team = &slack.config().team_id;
        self.merge(json!({
            "slack": { "team_id": team, "bot_token_file": token, "signing_secret_file": secret, "api_url": slack.api_url() },
            "channels": { "ops": { "platform": "slack", "id": slack.channel("ops").id() } },
        }));
        for (name, id) in [("ann", ANN), ("ben", BEN), ("cleo", CLEO), ("gus", GUS), ("robo", ROBO)] {
            self.merge(json!({ "principals": { name: { "slack": format!("{team}/{id}") } } }));
        }
        Ok(self)
    }

    /// With a channel `ops-discord` on this Discord, which calls us or is listened to.
    ///
    /// # Errors
    /// If a secret cannot be written.
    pub fn discord(mut self, discord: &FakeDiscord, gateway: bool) -> anyhow::Result<Self> {
        let token = self.secret("discord-bot-token", &discord.config().bot_token)?;
        let guild = &discord.config().guild_id;
        self.merge(json!({
            "discord": {
                "application_id": discord.config().application_id, "public_key": discord.public_key(), "bot_token_file": token,
                "guild_id": guild, "gateway": gateway, "api_url": discord.url(),
            },
            "channels": { "ops-discord": { "platform": "discord", "id": discord.channel("ops").id() } },
        }));
        for (name, user) in ["ann", "ben", "cleo"].iter().zip(&discord.config().users) {
            self.merge(json!({ "principals": { *name: { "discord": format!("{guild}/{}", user.id) } } }));
        }
        Ok(self)
    }

    /// On this PostgreSQL database, with the keys that it then needs.
    ///
    /// # Errors
    /// If a key cannot be written.
    pub fn postgres(mut self, url: &str) -> anyhow::Result<Self> {
        self.merge(json!({ "store": { "url": url } }));
        for name in ["button", "session", "audit"] {
            let file = self.secret(&format!("{name}.key"), &format!("{name:0<64}"))?;
            self.merge(json!({ "keys": { name: [file] } }));
        }
        Ok(self)
    }

    /// Unites the configuration with `more`: maps entry by entry, `null` takes away, everything else replaces.
    pub fn merge(&mut self, more: Value) {
        unite(&mut self.config, more);
    }

    /// The same, in a chain.
    #[must_use]
    pub fn with(mut self, more: Value) -> Self {
        self.merge(more);
        self
    }

    /// An environment variable for the program.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Further arguments of `serve`.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Error lines of the log that hold this text are no failure.
    #[must_use]
    pub fn allow(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    /// Writes a secret's file for the owner only.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn secret(&mut self, name: &str, value: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::write(&path, value)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
        Ok(path)
    }

    /// Writes an executable script and returns its path; it must begin with `#!`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn script(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(path)
    }

    /// Allows a program that writes its arguments as one line of a ledger, which nobody but it writes: what really happened, and how often.
    /// A first argument `sleep` makes it sleep afterwards, for as long as the second says; `until` makes it wait for [`Ledger::let_go`] of that name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn ledger(&mut self) -> anyhow::Result<Ledger> {
        let lines = self.dir.path().join("ledger");
        // Whoever waits ends with the ledger, should nobody let it go.
        let text = format!(
            "#!/bin/sh\necho \"$*\" >> '{0}'\n[ \"$1\" != sleep ] || exec sleep \"$2\"\n[ \"$1\" != until ] || \
             while [ -e '{0}' ] && [ ! -e \"{1}/$2\" ]; do sleep 0.1; done\n",
            lines.display(),
            self.dir.path().display()
        );
        let program = self.script("to-ledger", &text)?;
        self.merge(json!({ "programs": [program] }));
        Ok(Ledger { program, lines })
    }

    /// Writes the configuration and starts the server.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn start(self) -> anyhow::Result<World> {
        self.write()?;
        World::launch(self).await
    }

    /// Writes the configuration as it stands.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.config)?;
        fs::write(self.config_dir().join("watchkeeper.yaml"), text).context("the configuration")
    }

    /// The folder for everything that belongs to this test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of the configuration.
    pub fn config_dir(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// Where the server listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where the supervised service listens.
    pub fn service(&self) -> String {
        format!("127.0.0.1:{}", self.service_port)
    }

    /// The program, with nothing said to it yet.
    pub fn command(&self) -> Cmd {
        self.env.iter().fold(Cmd::new(&self.program), |cmd, (name, value)| cmd.env(name, value))
    }

    pub(super) fn serve(&self) -> anyhow::Result<Cmd> {
        Ok(self.command().arg("serve").arg("--config").arg(self.config_dir()).args(&self.args))
    }

    pub(super) fn keep(&mut self, proc: Proc) {
        self.ended.push(proc);
    }
}

fn unite(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    unite(into.entry(key).or_insert_with(|| Value::Object(Map::new())), value);
                }
            }
        }
        (into, more) => *into = more,
    }
}

fn defaults(dir: &Path, program: &Path, port: u16, service_port: u16) -> Value {
    let service = format!("127.0.0.1:{service_port}");
    json!({
        "server": { "listen": format!("127.0.0.1:{port}") },
        "data_dir": dir.join("data"),
        "log": { "format": "json" },
        "incidents": { "resolve_after": "0s", "reopen_within": "0s", "close_after": "0s" },
        "sources": { "am": { "kind": "alertmanager", "auth": { "bearer_file": dir.join("source-token") } } },
        "egress": ["127.0.0.1:*"],
        "roles": { "sre": ["view", "acknowledge", "resolve", "note", "run", "approve"] },
        "principals": {
            "ann": { "roles": ["sre", "admin"] },
            "ben": { "roles": ["sre"] },
            "cleo": { "roles": ["viewer"] },
            "gus": { "roles": ["sre"] },
            "robo": { "roles": ["sre"], "human": false },
        },
        "targets": {
            "demo": {
                "kind": "process", "program": program, "args": ["demo-service", "--listen", &service],
                "health_url": format!("http://{service}/health"),
            },
        },
        "routes": [{
            "name": "service-down",
            "match": ["alertname=\"ServiceDown\""],
            "incident": { "group_by": ["alertname", "service"], "severity": "P1", "title": "{{ labels.service }} is down" },
            "remedy": { "runbook": "restart-service", "with": { "target": "{{ labels.service }}" }, "mode": "approve" },
        }],
        "runbooks": {
            "restart-service": {
                "about": "Restarts a service and checks that it answers.",
                "params": { "target": { "type": "target" } },
                "approval": { "roles": ["sre"], "quorum": 1, "expires": "15m" },
                "steps": [
                    { "id": "evidence", "uses": "collect.bundle", "with": { "target": "{{ params.target }}" }, "continue_on_error": true },
                    { "id": "restart", "uses": "service.restart", "with": { "target": "{{ params.target }}" }, "timeout": "30s" },
                ],
                "verify": { "uses": "http.check", "with": { "target": "{{ params.target }}" }, "within": "20s", "every": "100ms" },
            },
        },
    })
}
