//! How to reach a NATS server: addresses and what proves who we are. The server's `nats` and an agent's configuration share it.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use reqwest::Url;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

/// Where the bus is, and how we prove who we are.
#[derive(Clone, Debug, Default)]
pub(crate) struct NatsLink {
    /// `nats://host:4222`, one or more of a cluster.
    pub(crate) urls: Vec<String>,
    /// Who we are there.
    pub(crate) proof: Proof,
    /// Certificates, absolute.
    pub(crate) tls: NatsTls,
    /// Where answers come back to, if not below `_INBOX`.
    pub(crate) inbox: Option<String>,
}

/// How we prove who we are to NATS. Files are read at every new connection, so that they can be changed.
#[derive(Clone, Debug, Default)]
pub(crate) enum Proof {
    /// Not at all, or by a client certificate alone.
    #[default]
    None,
    /// A credentials file of `nsc` or `nats`: a user's JWT and seed.
    Credentials(PathBuf),
    /// A file with the seed of an nkey.
    Nkey(PathBuf),
    /// A user and a password.
    User(String, Kept),
    /// A token.
    Token(Kept),
}

/// A secret, and where to read it again.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// As it was at the start.
    pub(crate) text: SecretString,
    /// The file that it was read from; `None` where it came from the environment.
    pub(crate) file: Option<PathBuf>,
}

impl Kept {
    /// What it is now.
    ///
    /// # Errors
    /// If its file cannot be read or is empty.
    pub(crate) async fn now(&self) -> anyhow::Result<SecretString> {
        let Some(file) = &self.file else { return Ok(self.text.clone()) };
        let text = tokio::fs::read_to_string(file).await;
        let text = text.with_context(|| format!("cannot read the secret's file {}", file.display()))?;
        ensure!(!text.trim().is_empty(), "the secret's file {} is empty", file.display());
        Ok(text.trim().to_owned().into())
    }
}

/// The keys of the configuration that say who we are.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) nkey: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Kept>,
    pub(crate) token: Option<Kept>,
}

impl Proof {
    /// The one that was told.
    ///
    /// # Errors
    /// Says what to do if it is none or more than one.
    pub(crate) fn of(told: Told) -> Result<Self, &'static str> {
        match told {
            Told { credentials: None, nkey: None, user: None, password: None, token: None } => Ok(Self::None),
            Told { credentials: Some(file), nkey: None, user: None, password: None, token: None } => Ok(Self::Credentials(file)),
            Told { credentials: None, nkey: Some(file), user: None, password: None, token: None } => Ok(Self::Nkey(file)),
            Told { credentials: None, nkey: None, user: Some(user), password: Some(password), token: None } => {
                Ok(Self::User(user, password))
            }
            Told { credentials: None, nkey: None, user: None, password: None, token: Some(token) } => Ok(Self::Token(token)),
            Told { credentials: None, nkey: None, token: None, .. } => Err("`user` and `password_file` belong together"),
            _ => Err("keep one of `credentials_file`, `nkey_file`, `token_file`, and `user` with `password_file`"),
        }
    }

    /// The keys that an error message names.
    pub(crate) fn keys(&self) -> &'static str {
        match self {
            Self::None => "`nats.credentials_file`, `nats.nkey_file`, `nats.token_file`, or `nats.user` with `nats.password_file`",
            Self::Credentials(_) => "`nats.credentials_file`",
            Self::Nkey(_) => "`nats.nkey_file`",
            Self::User(..) => "`nats.user` and `nats.password_file`",
            Self::Token(_) => "`nats.token_file`",
        }
    }
}

/// Certificates for NATS. With any of them, TLS is demanded.
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

    /// Whether anything is given.
    pub(crate) fn is_wanted(&self) -> bool {
        *self != Self::default()
    }
}

/// What is wrong with an address of a NATS server, and what to write instead. Secrets do not belong into it: addresses are shown in errors.
pub(crate) fn address_problem(url: &str) -> Option<(&'static str, &'static str)> {
    match Url::parse(url) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some(("an address of NATS takes no user and no secret", "write `user` and `password_file`, or `token_file`, beside `url`"))
        }
        Ok(url) if matches!(url.scheme(), "nats" | "tls") && url.has_host() => None,
        _ => Some(("this is no address of a NATS server", "write nats://HOST:4222, or tls://HOST:4222")),
    }
}

/// Whether this may be the name of a stream, a consumer or an agent: one word of a subject.
pub(crate) fn is_word(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !name.is_empty() && name.len() <= 100 && name.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_proof_or_none() {
        let file = || Some(PathBuf::from("f"));
        let secret = || Some(Kept { text: "s3cret".into(), file: None });
        let user = || Some("u".to_owned());
        assert!(matches!(Proof::of(Told::default()), Ok(Proof::None)));
        assert!(matches!(Proof::of(Told { nkey: file(), ..Told::default() }), Ok(Proof::Nkey(_))));
        assert!(matches!(Proof::of(Told { user: user(), password: secret(), ..Told::default() }), Ok(Proof::User(..))));
        for half in [Told { user: user(), ..Told::default() }, Told { password: secret(), ..Told::default() }] {
            assert!(Proof::of(half).is_err_and(|why| why.contains("belong together")));
        }
        for two in [
            Told { nkey: file(), credentials: file(), ..Told::default() },
            Told { token: secret(), user: user(), password: secret(), ..Told::default() },
            Told { token: secret(), password: secret(), ..Told::default() },
        ] {
            assert!(Proof::of(two).is_err_and(|why| why.contains("keep one")));
        }
    }

    #[test]
    fn addresses() {
        for url in ["nats://nats.internal:4222", "tls://10.0.0.1"] {
            assert_eq!(address_problem(url), None, "{url}");
        }
        for url in ["nats://ann:s3cret@nats.internal", "tls://t0ken@nats.internal"] {
            assert!(address_problem(url).is_some_and(|(_, help)| help.contains("password_file")), "{url}");
        }
        for url in ["http://x", "nats://", "nats.internal:4222", "ws://x:80"] {
            assert!(address_problem(url).is_some_and(|(_, help)| help.contains("tls://HOST")), "{url}");
        }
    }
}
