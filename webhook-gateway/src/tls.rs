//! The certificate and its key, read again when the files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where certificate chain and private key lie, both PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// How often the files are looked at.
    pub every: Duration,
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// Says which file is wrong, and how.
    pub async fn load(&self) -> anyhow::Result<RustlsConfig> {
        Ok(RustlsConfig::from_config(self.read().await?))
    }

    /// Looks at the files until it is dropped, and puts a changed pair in force. A bad pair changes nothing.
    pub(crate) async fn follow(self, config: RustlsConfig) {
        let mut known = self.stamp().await;
        loop {
            tokio::time::sleep(self.every).await;
            let stamp = self.stamp().await;
            if stamp == known {
                continue;
            }
            let outcome = match self.read().await {
                Ok(fresh) => {
                    config.reload_from_config(fresh);
                    known = stamp;
                    tracing::info!(file = %self.certificate.display(), "the certificate was read again");
                    "ok"
                }
                Err(error) => {
                    // Not remembered as known: the pair may be half written, and is looked at again.
                    tracing::error!(error = format!("{error:#}"), "the changed certificate cannot be used: the old one stays in force");
                    "failed"
                }
            };
            metrics::counter!("watchkeeper_tls_reloads_total", "outcome" => outcome).increment(1);
        }
    }

    async fn read(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let name = |path: &PathBuf| format!("cannot read {}", path.display());
        let chain = tokio::fs::read(&self.certificate).await.with_context(|| name(&self.certificate))?;
        let key = tokio::fs::read(&self.key).await.with_context(|| name(&self.key))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().with_context(|| name(&self.certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&key).with_context(|| name(&self.key))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("certificate and key do not go together")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// When the files last changed, as the filesystem says.
    async fn stamp(&self) -> [Option<SystemTime>; 2] {
        let modified = async |path: &PathBuf| tokio::fs::metadata(path).await.ok()?.modified().ok();
        [modified(&self.certificate).await, modified(&self.key).await]
    }
}
