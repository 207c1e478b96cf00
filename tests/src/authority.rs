//! A certificate authority of our own, made by openssl: for servers that speak TLS and ask their clients for certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Cmd;

const SOON: Duration = Duration::from_secs(20);

/// Signs certificates. Its own is `NAME-ca.pem`.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    name: String,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// PEM.
    pub file: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new one whose files are in `dir`.
    pub async fn new(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let authority = Self { dir: dir.to_owned(), name: format!("{name}-ca") };
        authority.make(&authority.name, "basicConstraints=critical,CA:TRUE", None).await?;
        Ok(authority)
    }

    /// Its certificate.
    pub fn file(&self) -> PathBuf {
        self.at(&self.name, "pem")
    }

    /// Signs a certificate for `names`, for example `IP:127.0.0.1`.
    pub async fn issue(&self, name: &str, names: &str) -> anyhow::Result<Certificate> {
        self.make(name, "basicConstraints=critical,CA:FALSE", Some(names)).await?;
        Ok(Certificate { file: self.at(name, "pem"), key: self.at(name, "key") })
    }

    async fn make(&self, name: &str, constraints: &str, names: Option<&str>) -> anyhow::Result<()> {
        let mut openssl = Cmd::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}"), "-addext", constraints, "-keyout"])
            .arg(self.at(name, "key"))
            .arg("-out")
            .arg(self.at(name, "pem"));
        if let Some(names) = names {
            openssl = openssl.args(["-addext", &format!("subjectAltName={names}"), "-CA"]).arg(self.file());
            openssl = openssl.arg("-CAkey").arg(self.at(&self.name, "key"));
        }
        openssl.run(SOON).await?.ok()?;
        Ok(())
    }

    fn at(&self, name: &str, kind: &str) -> PathBuf {
        self.dir.join(format!("{name}.{kind}"))
    }
}
