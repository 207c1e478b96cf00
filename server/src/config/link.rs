//! How to reach a NATS server: addresses and what proves who we are. The server's `nats` and an agent's configuration share it.

use std::path::{Path, PathBuf};

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

/// Where the bus is, and how we prove who we are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NatsLink {
    /// `nats://host:4222`, one or more of a cluster.
    pub(crate) urls: Vec<String>,
    /// A credentials file of NATS.
    pub(crate) credentials: Option<PathBuf>,
    /// Certificates, absolute.
    pub(crate) tls: NatsTls,
}

/// Certificates for NATS.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NatsTls {
    /// The authority that signed the server's certificate, if it is not a public one.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Our own certificate, where the server asks for one; with `key_file`.
    #[serde(default)]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub(crate) key_file: Option<PathBuf>,
}

impl NatsTls {
    /// With absolute paths: relative ones begin at `base`.
    pub(crate) fn at(self, base: &Path) -> Self {
        let at = |path: Option<PathBuf>| path.map(|path| base.join(path));
        Self { ca_file: at(self.ca_file), cert_file: at(self.cert_file), key_file: at(self.key_file) }
    }

    /// Whether a certificate and its key are given together.
    pub(crate) fn is_whole(&self) -> bool {
        self.cert_file.is_some() == self.key_file.is_some()
    }
}

/// Whether this is an address of a NATS server.
pub(crate) fn is_address(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "nats" | "tls" | "ws" | "wss") && url.has_host())
}

/// Whether this may be the name of a stream, a consumer or an agent: one word of a subject.
pub(crate) fn is_word(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !name.is_empty() && name.len() <= 100 && name.chars().all(good)
}
