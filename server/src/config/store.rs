//! `store` and `keys`: which database, and the keys that sign.

use std::path::{Path, PathBuf};

use domain::rules::problem::suggest;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::one_or_many::OneOrMany;
use super::part::Sections;

/// Which database.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreConfig {
    /// `sqlite:PATH` or `postgres://..`. A secret: there may be a password in it.
    pub(crate) url: SecretString,
    /// Whether it is PostgreSQL, which several servers may share.
    pub(crate) postgres: bool,
}

/// Files with keys, the one in use first and the one before it second. Empty: the server makes its own in the data folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeysConfig {
    /// For the buttons on cards.
    pub(crate) button: Vec<PathBuf>,
    /// For the console's sessions.
    pub(crate) session: Vec<PathBuf>,
    /// For the audit log.
    pub(crate) audit: Vec<PathBuf>,
    /// For the audit log's checkpoints and for evidence, which are signed.
    pub(crate) checkpoint: Vec<PathBuf>,
}

/// Which database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenStore {
    /// `sqlite:PATH`, or `postgres://USER:${PASSWORD}@HOST/DATABASE`, where several hosts may stand, with commas between them: the one that takes
    /// writes is found. Default: SQLite in the data folder.
    url: String,
}

/// Files with keys: 32 bytes or more as text or hex, readable by the server's user only. One each, or two while a key is being changed: the
/// first signs, both are believed. Without them the server makes its own in the data folder; on PostgreSQL the first three are needed, the same
/// on every server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenKeys {
    /// For the buttons on cards.
    #[serde(default)]
    button: OneOrMany<PathBuf>,
    /// For the console's sessions.
    #[serde(default)]
    session: OneOrMany<PathBuf>,
    /// For the audit log.
    #[serde(default)]
    audit: OneOrMany<PathBuf>,
    /// For the audit log's signed checkpoints and for evidence. Servers on one PostgreSQL may each make their own.
    #[serde(default)]
    checkpoint: OneOrMany<PathBuf>,
}

impl StoreConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>, data_dir: &Path) -> Self {
        let own = || format!("sqlite:{}", data_dir.join("watchkeeper.db").display());
        let Some((node, written)) = cx.value::<WrittenStore>("store") else {
            return Self { url: own().into(), postgres: false };
        };
        let at = node.find(&["url"]).at;
        let scheme = written.url.split(':').next().unwrap_or_default();
        if !["sqlite", "postgres", "postgresql"].contains(&scheme) {
            let help = suggest(scheme, ["sqlite", "postgres"], "");
            cx.report().add(at, "the address of the store begins neither with sqlite: nor with postgres://", help);
        }
        let postgres = scheme.starts_with("postgres");
        let masked = node.find(&["url"]).masked;
        if postgres && !masked && has_password(&written.url) {
            let help = "write ${NAME} in the place of the password and set that environment variable".to_owned();
            cx.report().add_unseen(at, "a password may not stand in this file", help);
        }
        Self { url: written.url.into(), postgres }
    }
}

impl KeysConfig {
    pub(super) fn read(cx: &mut Sections<'_, '_, '_>, store: &StoreConfig) -> Self {
        let node = cx.written("keys").or(cx.written("store"));
        let base = cx.base;
        let join = |paths: OneOrMany<PathBuf>| paths.0.into_iter().map(|path| base.join(path)).collect::<Vec<_>>();
        let keys = match cx.value::<WrittenKeys>("keys") {
            Some((_, written)) => Self {
                button: join(written.button),
                session: join(written.session),
                audit: join(written.audit),
                checkpoint: join(written.checkpoint),
            },
            None => Self::default(),
        };
        let Some(node) = node else { return keys };
        let all = [("button", &keys.button), ("session", &keys.session), ("audit", &keys.audit), ("checkpoint", &keys.checkpoint)];
        for (name, files) in all {
            if files.len() > 2 {
                let help = "keep the one in use and the one before it".to_owned();
                cx.report().add(node.find(&[name]).name_at(), format!("more than two keys for `{name}`"), help);
            }
            if files.is_empty() && store.postgres && name != "checkpoint" {
                let help = format!("make one with `openssl rand -hex 32`, put it on every server, and write `keys: {{ {name}: [FILE] }}`");
                let message = format!("on PostgreSQL the `{name}` key must be named: every server needs the same one");
                cx.report().add(node.name_at(), message, help);
            }
        }
        keys
    }
}

/// Whether there is a password in an address, which may name several hosts.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let in_user = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    in_user || url.split(['?', '&']).skip(1).any(|pair| pair.starts_with("password="))
}
