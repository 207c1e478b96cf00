//! `agent.yaml`: who an agent is, whom it believes, and what it may do. Its own lists hold, whatever an order says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use actions::egress::Exception;
use anyhow::{Context, bail, ensure};
use domain::plan::Target;
use serde::Deserialize;
use serde_json::Value;

use crate::config::{Kept, NatsLink, NatsTls, Proof, Told, address_problem, is_word};

/// An agent's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) link: NatsLink,
    pub(crate) prefix: String,
    pub(crate) data_dir: PathBuf,
    /// Signs reports.
    pub(crate) key: PathBuf,
    /// Public keys of the servers that it believes.
    pub(crate) servers: Vec<PathBuf>,
    pub(crate) actions: BTreeSet<String>,
    pub(crate) programs: BTreeSet<PathBuf>,
    pub(crate) systemctl: PathBuf,
    pub(crate) docker: PathBuf,
    pub(crate) egress: Vec<Exception>,
    pub(crate) targets: BTreeMap<String, Target>,
    pub(crate) level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    nats: WrittenNats,
    #[serde(default = "prefix")]
    prefix: String,
    data_dir: PathBuf,
    key_file: PathBuf,
    servers: Vec<PathBuf>,
    actions: BTreeSet<String>,
    #[serde(default)]
    programs: BTreeSet<PathBuf>,
    #[serde(default = "systemctl")]
    systemctl: PathBuf,
    #[serde(default = "docker")]
    docker: PathBuf,
    #[serde(default)]
    egress: Vec<Exception>,
    targets: BTreeMap<String, WrittenTarget>,
    #[serde(default = "level")]
    level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNats {
    url: Urls,
    #[serde(default)]
    credentials_file: Option<PathBuf>,
    #[serde(default)]
    nkey_file: Option<PathBuf>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    token_file: Option<PathBuf>,
    #[serde(default)]
    tls: NatsTls,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Urls {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct WrittenTarget {
    kind: String,
    #[serde(flatten)]
    fields: BTreeMap<String, Value>,
}

fn prefix() -> String {
    "watchkeeper".to_owned()
}

fn systemctl() -> PathBuf {
    "/usr/bin/systemctl".into()
}

fn docker() -> PathBuf {
    "/usr/bin/docker".into()
}

fn level() -> String {
    "info".to_owned()
}

impl Settings {
    /// Reads the file; relative paths begin at its folder.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn load(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::read(&text, file.parent().unwrap_or_else(|| Path::new("."))).with_context(|| format!("{} is wrong", file.display()))
    }

    fn read(text: &str, base: &Path) -> anyhow::Result<Self> {
        let written: Written = serde_saphyr::from_str(text)?;
        ensure!(is_word(&written.name), "`name` takes letters, digits, `-` and `_`");
        let link = written.nats.link(base, format!("{}.agent.{}.inbox", written.prefix, written.name))?;
        ensure!(!written.servers.is_empty(), "`servers` is empty: name the public key of the server whose orders are obeyed");
        if let Some(program) = written.programs.iter().find(|program| !program.is_absolute()) {
            bail!("`programs`: {} is no absolute path", program.display());
        }
        let target = |(name, target): (String, WrittenTarget)| (name.clone(), Target { name, kind: target.kind, fields: target.fields });
        Ok(Self {
            name: written.name,
            link,
            prefix: written.prefix,
            data_dir: base.join(written.data_dir),
            key: base.join(written.key_file),
            servers: written.servers.iter().map(|file| base.join(file)).collect(),
            actions: written.actions,
            programs: written.programs,
            systemctl: written.systemctl,
            docker: written.docker,
            egress: written.egress,
            targets: written.targets.into_iter().map(target).collect(),
            level: written.level,
        })
    }
}

impl WrittenNats {
    /// Answers come back to `inbox`, among the agent's own subjects, so that it needs to hear no others.
    fn link(self, base: &Path, inbox: String) -> anyhow::Result<NatsLink> {
        let urls = match self.url {
            Urls::One(url) => vec![url],
            Urls::Many(urls) => urls,
        };
        ensure!(!urls.is_empty(), "`nats.url` is empty");
        if let Some((problem, help)) = urls.iter().find_map(|url| address_problem(url)) {
            bail!("`nats.url`: {problem}: {help}");
        }
        ensure!(self.tls.is_whole(), "`nats.tls`: `cert_file` and `key_file` belong together");
        let secret = |file: Option<PathBuf>| -> anyhow::Result<Option<Kept>> {
            let Some(file) = file.map(|file| base.join(file)) else { return Ok(None) };
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read the secret's file {}", file.display()))?;
            ensure!(!text.trim().is_empty(), "the secret's file {} is empty", file.display());
            Ok(Some(Kept { text: text.trim().to_owned().into(), file: Some(file) }))
        };
        let told = Told {
            credentials: self.credentials_file.map(|file| base.join(file)),
            nkey: self.nkey_file.map(|file| base.join(file)),
            user: self.user,
            password: secret(self.password_file)?,
            token: secret(self.token_file)?,
        };
        let proof = Proof::of(told).map_err(|help| anyhow::anyhow!("`nats`: {help}"))?;
        Ok(NatsLink { urls, proof, tls: self.tls.at(base), inbox: Some(inbox) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../deploy/agent.example.yaml");

    #[test]
    fn the_example_is_right() {
        let settings = Settings::read(EXAMPLE, Path::new("/etc/watchkeeper")).unwrap();
        assert_eq!(settings.name, "edge-1");
        assert_eq!(settings.key, Path::new("/etc/watchkeeper/edge-1.pem"));
        assert!(settings.targets["api"].text("unit").is_some() && settings.actions.contains("service.restart"));
    }

    #[test]
    fn what_would_be_unsafe_or_never_work_is_refused() {
        for (from, to, word) in [
            ("name: edge-1", "name: edge.1", "`name`"),
            ("nats://nats.internal:4222", "http://nats.internal", "nats.url"),
            ("nats://nats.internal:4222", "nats://ann:s3cret@nats.internal:4222", "password_file"),
            ("  url: nats://nats.internal:4222", "  url: nats://nats.internal:4222\n  user: ann", "belong together"),
            ("servers: [orders.pub]", "servers: []", "`servers` is empty"),
            ("programs: [/usr/bin/df]", "programs: [df]", "no absolute path"),
            ("actions:", "acts:", "acts"),
        ] {
            assert!(EXAMPLE.contains(from), "{from}");
            let error = Settings::read(&EXAMPLE.replace(from, to), Path::new("/")).unwrap_err();
            assert!(format!("{error:#}").contains(word), "{word}: {error:#}");
        }
    }
}
