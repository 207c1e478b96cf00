//! Our own things: configuration, keys, certificates, the programs of targets, and who notices when we fall silent.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::time::{Clock, SystemClock};
use jiff::SignedDuration;

use super::{Findings, certificate};
use crate::audit::checkpoints;
use crate::config::Config;
use crate::keys;

/// A certificate that ends sooner than this should be on its way already.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 21);

/// What is configured, and what is missing from it.
pub(super) fn configuration(config: &Config) -> Findings {
    let mut findings = Findings::of("configuration");
    let rules = &config.rules;
    findings.ok(format!(
        "{} routes, {} runbooks, {} targets, {} sources",
        rules.routes.len(),
        rules.runbooks.len(),
        rules.targets.len(),
        config.sources.len()
    ));
    if config.heartbeat.is_none() {
        findings.warn(
            "nobody outside notices when Watchkeeper falls silent",
            "let something raise the alarm when the calls stop: `heartbeat: { url: 'https://..', every: 1m }`",
        );
    }
    if !rules.sources.values().any(|source| !source.heartbeats.is_empty()) {
        findings.warn(
            "nobody notices when the sources fall silent",
            "send an alert that always fires, and name it under a source: `heartbeats: { Watchdog: 15m }`",
        );
    }
    findings
}

/// The keys that sign.
pub(super) fn keys(config: &Config) -> Findings {
    let mut findings = Findings::of("keys");
    let keys = &config.keys;
    for (name, files) in [("button", &keys.button), ("session", &keys.session), ("audit", &keys.audit), ("checkpoint", &keys.checkpoint)] {
        let own = config.data_dir.join("keys").join(name);
        if files.is_empty() && !own.exists() {
            findings.note(format!("{name}: there is none yet"), format!("the first start makes {}", own.display()));
            continue;
        }
        let files = if files.is_empty() { vec![own] } else { files.clone() };
        match keys::load(&files, &config.data_dir, name) {
            Ok(keys) => findings.ok(format!("{name}: {} of {} can be used", keys.len(), files.len())),
            Err(error) => findings.fail(format!("{name}: {error:#}"), "mend the file, or name another under `keys`"),
        }
    }
    let said = config.data_dir.join(checkpoints::FILE);
    if let Err(error) = checkpoints::read(&said) {
        findings.fail(
            format!("checkpoints: {error:#}"),
            "the server does not start with it: move the file away, and keep it for whoever verifies",
        );
    }
    if let Some(agents) = &config.agents
        && let Err(error) = crate::agent::token::Signer::read(&agents.key)
    {
        findings
            .fail(format!("orders for agents: {error:#}"), "make one with `watchkeeper agent keygen`, and name it as `agents.key_file`");
    }
    findings
}

/// What targets and actions run on this machine.
pub(super) fn targets(config: &Config) -> Findings {
    let mut findings = Findings::of("targets");
    for target in config.rules.targets.values() {
        let known = |agent: &str| config.agents.as_ref().is_some_and(|agents| agents.known.contains_key(agent));
        if let Some(agent) = target.text("agent").filter(|agent| !known(agent)) {
            findings.fail(format!("{}: there is no agent {agent}", target.name), "add it under `agents.known`, with its public key");
        }
    }
    let targets = config.rules.targets.values().filter(|target| target.text("agent").is_none());
    let mut programs: BTreeSet<PathBuf> = config.actions.programs.clone();
    for target in targets {
        match target.kind.as_str() {
            "process" => programs.extend(target.text("program").map(PathBuf::from)),
            "systemd" => drop(programs.insert(config.actions.systemctl.clone())),
            "compose" => {
                programs.insert(config.actions.docker.clone());
                if let Some(file) = target.text("file").map(Path::new).filter(|file| !file.is_file()) {
                    findings.fail(format!("{}: {} is not there", target.name, file.display()), "mend the target's `file`");
                }
            }
            _ => {}
        }
    }
    let mut good = 0;
    for program in programs {
        match std::fs::metadata(&program) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => good += 1,
            Ok(_) => findings.fail(format!("{} cannot be run", program.display()), "it is no file, or not executable: chmod +x"),
            Err(error) => findings.fail(format!("{}: {error}", program.display()), "install it, or mend the path in the configuration"),
        }
    }
    findings.ok(format!("{good} programs are there and can be run"));
    let wide: Vec<String> =
        config.actions.egress.iter().map(|exception| format!("{exception:?}")).filter(|text| text.contains("bits: 0")).collect();
    if !wide.is_empty() {
        findings
            .warn("`egress` lets requests go to every address", "name the networks that runbooks need: labels choose what is asked for");
    }
    findings
}

/// The certificates, and whether a server runs already.
pub(super) async fn server(config: &Config) -> Findings {
    let mut findings = Findings::of("server");
    let mut files: Vec<(&str, PathBuf)> = Vec::new();
    files.extend(config.server.tls.as_ref().map(|tls| ("server.tls", tls.cert_file.clone())));
    if let Some(nats) = &config.nats {
        let tls = &nats.link.tls;
        files.extend(
            [("nats.tls", tls.ca_file.clone()), ("nats.tls", tls.cert_file.clone())]
                .into_iter()
                .filter_map(|(name, file)| Some((name, file?))),
        );
    }
    for (name, file) in files {
        let advice = "renew it: the files are read again when they change";
        match certificate::expiry(&file) {
            Ok(end) if end <= SystemClock.now() => findings.fail(format!("{name}: {} ended on {end}", file.display()), advice),
            Ok(end) if end - SOON <= SystemClock.now() => findings.warn(format!("{name}: {} ends on {end}", file.display()), advice),
            Ok(end) => findings.ok(format!("{name}: {} is good until {end}", file.display())),
            Err(error) => findings.fail(format!("{name}: {error:#}"), "name a PEM file with the chain, our own certificate first"),
        }
    }
    let place = config.server.listen;
    match tokio::time::timeout(Duration::from_secs(2), tokio::net::TcpStream::connect(place)).await {
        Ok(Ok(_)) => findings.ok(format!("something answers on {place}")),
        _ => findings.note(format!("nothing listens on {place}"), "start it: watchkeeper serve"),
    }
    findings
}
