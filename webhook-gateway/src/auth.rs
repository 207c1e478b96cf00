//! Who may send to a source: bearer, basic and signatures, two active secrets each. No secret is no entry.
//!
//! What is checked depends only on what the sender presents, never on whether the source exists: an unknown source is compared with
//! secrets that nobody has, so that its answer and its time are those of a wrong secret.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::signature::{Form, Key, Signed};

/// How a sender proves itself. The configuration names these.
#[derive(Clone, Debug)]
pub enum Credential {
    /// `Authorization: Bearer …`.
    Bearer(SecretString),
    /// `Authorization: Basic …`.
    Basic {
        /// The user name; no secret.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// `X-Hub-Signature-256: sha256=…` over the body, as GitHub sends it.
    HubSignature(SecretString),
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature` as <https://www.standardwebhooks.com> defines them; `whsec_…`.
    StandardWebhooks(SecretString),
    /// `X-Slack-Request-Timestamp` and `X-Slack-Signature: v0=…`, as Slack signs its requests.
    SlackSignature(SecretString),
    /// `Stripe-Signature: t=…,v1=…`, as Stripe signs its events.
    StripeSignature(SecretString),
    /// `X-Signature-Timestamp` and `X-Signature-Ed25519`, as Discord signs its requests; the public key in hex.
    Ed25519(String),
}

/// A secret that only needs to be recognised: its SHA-256.
#[derive(Clone)]
pub struct HashedSecret([u8; 32]);

/// The secrets of one source. The default has none and lets nobody in.
#[derive(Clone, Debug, Default)]
pub struct SourceAuth {
    header: Vec<HashedSecret>,
    signing: Vec<Key>,
}

/// Why secrets are refused at load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// None at all.
    #[error("no secret: add one under `auth`, a source without a secret stays closed")]
    Missing,
    /// Too easy to guess.
    #[error("a {0} secret is shorter than {MIN_SECRET} bytes: make one with `openssl rand -base64 32`")]
    Weak(&'static str),
    /// Rotation needs two, not more.
    #[error("more than two {0} secrets: remove those that no sender uses any more")]
    TooMany(&'static str),
    /// Not in the form that its standard says.
    #[error("a Standard Webhooks secret is `whsec_` and the base64 of 24 to 64 bytes")]
    NotStandard,
    /// No Ed25519 public key.
    #[error("an Ed25519 public key is 64 hexadecimal digits")]
    NotPublicKey,
}

/// 128 bits: what a guesser cannot try.
const MIN_SECRET: usize = 16;
/// Active at once, so that a secret can be changed without a gap.
pub(crate) const ACTIVE: usize = 2;

impl SourceAuth {
    /// The secrets of a source.
    ///
    /// # Errors
    /// See [`AuthError`]: what is weak or missing refuses the whole source.
    pub fn new(credentials: &[Credential]) -> Result<Self, AuthError> {
        let mut auth = Self::default();
        let (mut bearer, mut basic) = (0, 0);
        for credential in credentials {
            match credential {
                Credential::Bearer(secret) => {
                    strong("bearer", secret)?;
                    bearer += 1;
                    auth.header.push(HashedSecret::of(&[b"bearer", secret.expose_secret().as_bytes()]));
                }
                Credential::Basic { user, password } => {
                    strong("basic", password)?;
                    basic += 1;
                    let pair = format!("{user}:{}", password.expose_secret());
                    auth.header.push(HashedSecret::of(&[b"basic", pair.as_bytes()]));
                }
                Credential::HubSignature(secret) => auth.signing.push(signing_key(Form::Hub, secret)?),
                Credential::SlackSignature(secret) => auth.signing.push(signing_key(Form::Slack, secret)?),
                Credential::StripeSignature(secret) => auth.signing.push(signing_key(Form::Stripe, secret)?),
                Credential::StandardWebhooks(secret) => auth.signing.push(standard_key(secret)?),
                Credential::Ed25519(digits) => auth.signing.push(public_key(digits)?),
            }
        }
        let keys = |form| auth.signing.iter().filter(|key| key.form == form).count();
        let counts = [
            (bearer, "bearer"),
            (basic, "basic"),
            (keys(Form::Hub), "signature"),
            (keys(Form::Slack), "Slack signature"),
            (keys(Form::Stripe), "Stripe signature"),
            (keys(Form::Standard), "Standard Webhooks"),
            (keys(Form::Ed25519), "Ed25519"),
        ];
        if let Some((_, which)) = counts.into_iter().find(|(n, _)| *n > ACTIVE) {
            return Err(AuthError::TooMany(which));
        }
        if credentials.is_empty() { Err(AuthError::Missing) } else { Ok(auth) }
    }
}

/// What the headers alone prove.
pub(crate) enum Proof {
    /// Enough.
    Given,
    /// It depends on the body.
    Body(Signed),
}

/// Why a sender was refused: for the metric and the count in the audit log, never for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Refusal {
    Absent,
    Wrong,
    BadSignature,
    OldSignature,
}

impl Refusal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "no_credentials",
            Self::Wrong => "wrong_credentials",
            Self::BadSignature => "bad_signature",
            Self::OldSignature => "old_signature",
        }
    }
}

/// Checks the headers, before anything of the body is read. `auth` is `None` for an unknown source.
pub(crate) fn check_headers(auth: Option<&SourceAuth>, headers: &HeaderMap) -> Result<Proof, Refusal> {
    let secrets = auth.map_or(&[][..], |auth| &auth.header);
    let given = headers.get(header::AUTHORIZATION).and_then(|value| presented(value.as_bytes()));
    let wrong = match given {
        Some(given) if among(secrets, &given) => return Ok(Proof::Given),
        Some(_) => true,
        None => headers.contains_key(header::AUTHORIZATION),
    };
    match Signed::read(headers) {
        Some(Ok(signed)) => Ok(Proof::Body(signed)),
        Some(Err(())) => Err(Refusal::BadSignature),
        None if wrong => Err(Refusal::Wrong),
        None => Err(Refusal::Absent),
    }
}

/// Checks a signature over the bytes as received.
pub(crate) fn check_body(auth: Option<&SourceAuth>, signed: &Signed, body: &[u8], now: Timestamp) -> Result<(), Refusal> {
    let keys = auth.map_or(&[][..], |auth| &auth.signing);
    let fresh = signed.is_fresh(now);
    match signed.made_by(keys, body) {
        true if fresh => Ok(()),
        true => Err(Refusal::OldSignature),
        false => Err(Refusal::BadSignature),
    }
}

impl HashedSecret {
    /// Keeps what is needed to recognise the secret made of these parts.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// Keeps what is needed to recognise a bearer token.
    pub fn bearer(token: &SecretString) -> Self {
        Self::of(&[b"bearer", token.expose_secret().as_bytes()])
    }

    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for HashedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashedSecret")
    }
}

/// Whether an `Authorization` header carries the one bearer token.
pub(crate) fn carries(headers: &HeaderMap, secret: &HashedSecret) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| presented(value.as_bytes()));
    given.is_some_and(|given| given.is(secret))
}

/// The hash of what an `Authorization` header presents.
fn presented(value: &[u8]) -> Option<HashedSecret> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        Some(HashedSecret::of(&[b"bearer", rest.as_bytes()]))
    } else if scheme.eq_ignore_ascii_case("basic") {
        Some(HashedSecret::of(&[b"basic", &BASE64.decode(rest).ok()?]))
    } else {
        None
    }
}

/// Compares with every secret, and with nobody's in the places that are empty: the same work for every source.
fn among(secrets: &[HashedSecret], given: &HashedSecret) -> bool {
    let nobody = HashedSecret([0; 32]);
    let places = ACTIVE * 2;
    (0..places).fold(false, |found, i| secrets.get(i).unwrap_or(&nobody).is(given) | found)
}

fn strong(what: &'static str, secret: &SecretString) -> Result<(), AuthError> {
    if secret.expose_secret().len() < MIN_SECRET { Err(AuthError::Weak(what)) } else { Ok(()) }
}

fn standard_key(secret: &SecretString) -> Result<Key, AuthError> {
    let text = secret.expose_secret().strip_prefix("whsec_").ok_or(AuthError::NotStandard)?;
    let bytes = BASE64.decode(text).map_err(|_| AuthError::NotStandard)?;
    if (24..=64).contains(&bytes.len()) { Ok(Key::secret(Form::Standard, &bytes)) } else { Err(AuthError::NotStandard) }
}

fn signing_key(form: Form, secret: &SecretString) -> Result<Key, AuthError> {
    strong("signature", secret)?;
    Ok(Key::secret(form, secret.expose_secret().as_bytes()))
}

fn public_key(digits: &str) -> Result<Key, AuthError> {
    let mut key = [0; 32];
    hex::decode_to_slice(digits.trim(), &mut key).map_err(|_| AuthError::NotPublicKey)?;
    Ok(Key::public(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    fn refused(credentials: &[Credential]) -> AuthError {
        SourceAuth::new(credentials).unwrap_err()
    }

    #[test]
    fn what_is_weak_missing_or_too_many_refuses_the_source() {
        let strong = || Credential::Bearer(secret("0123456789abcdef"));
        assert!(SourceAuth::new(&[strong(), strong()]).is_ok());
        assert_eq!(refused(&[]), AuthError::Missing);
        assert_eq!(refused(&[strong(), strong(), strong()]), AuthError::TooMany("bearer"));
        for weak in ["", "0123456789abcde"] {
            assert_eq!(refused(&[strong(), Credential::Bearer(secret(weak))]), AuthError::Weak("bearer"));
            for form in [Credential::HubSignature, Credential::SlackSignature, Credential::StripeSignature] {
                assert_eq!(refused(&[form(secret(weak))]), AuthError::Weak("signature"));
            }
            assert_eq!(
                refused(&[Credential::Basic { user: "long-enough-user".to_owned(), password: secret(weak) }]),
                AuthError::Weak("basic")
            );
        }
        for bad in ["whsec_", "whsec_!", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="] {
            assert_eq!(refused(&[Credential::StandardWebhooks(secret(bad))]), AuthError::NotStandard, "{bad}");
        }
        let key = |digits: &str| Credential::Ed25519(digits.to_owned());
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(66)] {
            assert_eq!(refused(&[key(bad)]), AuthError::NotPublicKey, "{bad}");
        }
        let fine = "0".repeat(64);
        assert_eq!(refused(&[key(&fine), key(&fine), key(&fine)]), AuthError::TooMany("Ed25519"));
    }

    #[test]
    fn the_default_lets_nobody_in_whatever_is_presented() {
        let mut headers = HeaderMap::new();
        for value in ["Bearer ", "Bearer x", "Basic Og==", "Basic eDp4"] {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            for auth in [None, Some(&SourceAuth::default())] {
                assert!(matches!(check_headers(auth, &headers), Err(Refusal::Wrong)), "{value}");
            }
        }
    }

    #[test]
    fn a_bearer_secret_is_no_basic_one_and_secrets_do_not_show() {
        let auth = SourceAuth::new(&[Credential::Bearer(secret("user:0123456789abcdef"))]).unwrap();
        let mut headers = HeaderMap::new();
        let basic = format!("Basic {}", BASE64.encode("user:0123456789abcdef"));
        headers.insert(header::AUTHORIZATION, basic.parse().unwrap());
        assert!(check_headers(Some(&auth), &headers).is_err());
        headers.insert(header::AUTHORIZATION, "Bearer user:0123456789abcdef".parse().unwrap());
        assert!(matches!(check_headers(Some(&auth), &headers), Ok(Proof::Given)));
        let hub = SourceAuth::new(&[Credential::HubSignature(secret("0123456789abcdef"))]).unwrap();
        assert!(!format!("{auth:?}{hub:?}").contains("0123456789"));
    }
}
