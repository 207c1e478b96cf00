//! Signing and checking orders and reports: EdDSA JSON web tokens with Ed25519 keys (RFC 8037) in PEM files, as `openssl genpkey` makes them.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Longest token that is looked at, in bytes: as large as NATS takes by default.
const MAX_TOKEN: usize = 1024 * 1024;

/// A private key.
pub(crate) struct Signer(EncodingKey);

impl Signer {
    /// Reads a PEM file that only its owner may read.
    ///
    /// # Errors
    /// Says what to do.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let meta =
            fs::metadata(file).with_context(|| format!("cannot read {}: make it with `watchkeeper agent keygen`", file.display()))?;
        if meta.permissions().mode() & 0o077 != 0 {
            bail!("key file {} can be read by others: run `chmod 600` on it", file.display());
        }
        let key = PrivatePkcs8KeyDer::from_pem_file(file).with_context(|| format!("{} holds no private key", file.display()))?;
        Ed25519KeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| anyhow::anyhow!("{} is no Ed25519 key", file.display()))?;
        Ok(Self(EncodingKey::from_ed_der(key.secret_pkcs8_der())))
    }

    /// Signs claims.
    ///
    /// # Errors
    /// If they cannot be written as JSON.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> anyhow::Result<String> {
        Ok(encode(&Header::new(Algorithm::EdDSA), claims, &self.0)?)
    }
}

/// A public key.
#[derive(Clone)]
pub(crate) struct Checker(DecodingKey);

impl Checker {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// If it holds no Ed25519 key.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let key = SubjectPublicKeyInfoDer::from_pem_file(file).with_context(|| format!("{} holds no public key", file.display()))?;
        let raw = key.strip_prefix(&SPKI).filter(|raw| raw.len() == 32);
        Ok(Self(DecodingKey::from_ed_der(raw.with_context(|| format!("{} is no Ed25519 key", file.display()))?)))
    }

    /// The claims of a token whose signature is good. Who it is for and whether it is in time is for the caller to judge.
    pub(crate) fn check<T: DeserializeOwned>(&self, token: &[u8]) -> Option<T> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.required_spec_claims = HashSet::new();
        validation.validate_exp = false;
        validation.validate_aud = false;
        decode::<T>(token, &self.0, &validation).ok().map(|token| token.claims)
    }
}

/// Makes a key pair: `NAME.pem` for its owner alone, `NAME.pub` for everybody else. Existing files stay as they are.
///
/// # Errors
/// If a file is there already or cannot be written.
pub(crate) fn generate(folder: &Path, name: &str) -> anyhow::Result<()> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
        .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| anyhow::anyhow!("the new key cannot be read"))?;
    let public = [SPKI.as_slice(), pair.public_key().as_ref()].concat();
    write(&folder.join(format!("{name}.pem")), "PRIVATE KEY", pkcs8.as_ref(), 0o600)?;
    write(&folder.join(format!("{name}.pub")), "PUBLIC KEY", &public, 0o644)
}

fn write(file: &Path, label: &str, der: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .with_context(|| format!("cannot make {}", file.display()))?;
    let lines: Vec<String> = STANDARD.encode(der).as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    writeln!(out, "-----BEGIN {label}-----\n{}\n-----END {label}-----", lines.join("\n"))?;
    Ok(out.sync_all()?)
}

#[cfg(test)]
mod tests {
    use domain::order::Cancel;

    use super::*;

    fn cancel() -> Cancel {
        Cancel { iss: "watchkeeper".to_owned(), aud: "edge".to_owned(), jti: "cancel/x".to_owned(), iat: 7 }
    }

    #[test]
    fn what_one_key_signed_no_other_makes_good() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ours", "theirs"] {
            generate(dir.path(), name).unwrap();
        }
        let read = |name: &str| {
            (
                Signer::read(&dir.path().join(format!("{name}.pem"))).unwrap(),
                Checker::read(&dir.path().join(format!("{name}.pub"))).unwrap(),
            )
        };
        let ((signer, checker), (_, stranger)) = (read("ours"), read("theirs"));
        let token = signer.sign(&cancel()).unwrap();
        assert_eq!(checker.check::<Cancel>(token.as_bytes()), Some(cancel()));
        assert_eq!(stranger.check::<Cancel>(token.as_bytes()), None);
        let (head, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let other = signer.sign(&Cancel { jti: "cancel/y".to_owned(), ..cancel() }).unwrap();
        let body = other.split('.').nth(1).unwrap();
        assert_eq!(checker.check::<Cancel>(format!("{head}.{body}.{signature}").as_bytes()), None, "another content");
        let none = "eyJhbGciOiJub25lIn0";
        assert_eq!(checker.check::<Cancel>(format!("{none}.{body}.").as_bytes()), None, "no algorithm is none");
        let secret = EncodingKey::from_secret(&fs::read(dir.path().join("ours.pub")).unwrap());
        let forged = encode(&Header::new(Algorithm::HS256), &cancel(), &secret).unwrap();
        assert_eq!(checker.check::<Cancel>(forged.as_bytes()), None, "a public key is no shared secret");
        assert!(generate(dir.path(), "ours").is_err(), "nothing is written over");
        fs::set_permissions(dir.path().join("ours.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Signer::read(&dir.path().join("ours.pem")).is_err_and(|error| error.to_string().contains("chmod 600")));
    }
}
