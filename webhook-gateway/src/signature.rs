//! Signatures over the raw body, in the forms that senders use: HMAC-SHA256 as GitHub, Standard Webhooks, Slack and Stripe write it, and
//! Ed25519 as Discord does. Each form has headers of its own; where a form has a time, it is signed and may not be far from ours.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::auth::ACTIVE;

/// A signed request is refused when its time is further than this from ours, in either direction: seconds.
const WINDOW: i64 = 300;
/// Signatures that one header may list.
const MAX_LISTED: usize = 8;
/// Longest `webhook-id`, in bytes.
const MAX_ID: usize = 256;
/// A valid public key whose secret does not matter: what it says never counts.
const NOBODY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6,
    0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

/// How a signature is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `X-Hub-Signature-256: sha256=HEX` over the body. It has no time: the content key makes a replay a repeat.
    Hub,
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,BASE64 ..` over `{id}.{time}.{body}`: <https://www.standardwebhooks.com>.
    Standard,
    /// `X-Slack-Request-Timestamp`, `X-Slack-Signature: v0=HEX` over `v0:{time}:{body}`: Slack's "Verifying requests".
    Slack,
    /// `Stripe-Signature: t={time},v1=HEX,..` over `{time}.{body}`: Stripe's "Verify webhook signatures manually".
    Stripe,
    /// `X-Signature-Timestamp`, `X-Signature-Ed25519: HEX` over `{time}{body}`: Discord's "Setting Up an Endpoint".
    Ed25519,
}

/// What makes, or recognises, signatures of one form.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) form: Form,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Secret(Hmac<Sha256>),
    Public(UnparsedPublicKey<[u8; 32]>),
}

/// What a sender's headers say about the body that follows.
pub(crate) struct Signed {
    form: Form,
    /// The sender's own name for the delivery.
    id: Option<String>,
    /// Seconds since 1970.
    at: Option<i64>,
    /// What is signed before the body.
    head: String,
    given: Given,
}

enum Given {
    Macs(Vec<[u8; 32]>),
    Signature([u8; 64]),
}

impl Signed {
    /// The signature in the headers: `None` if there is none, an error if it cannot be read.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Result<Self, ()>> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let read = if let Some(list) = text("webhook-signature") {
            standard(list, text("webhook-id"), text("webhook-timestamp"))
        } else if let Some(given) = text("x-slack-signature") {
            slack(given, text("x-slack-request-timestamp"))
        } else if let Some(given) = text("stripe-signature") {
            stripe(given)
        } else if let Some(given) = text("x-signature-ed25519") {
            ed25519(given, text("x-signature-timestamp"))
        } else {
            hub(text("x-hub-signature-256")?)
        };
        Some(read.ok_or(()))
    }

    /// What names this delivery, the same over its retries: the sender's own name, or what its time and body make. GitHub's form has neither.
    pub(crate) fn id(&self, body: &[u8]) -> Option<String> {
        self.at?;
        Some(self.id.clone().unwrap_or_else(|| {
            let hash = Sha256::new().chain_update(&self.head).chain_update(body).finalize();
            format!("{:?}:{}", self.form, hex::encode(hash))
        }))
    }

    /// Whether its time, if it has one, is near `now`.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| now.as_second().abs_diff(at) <= WINDOW.unsigned_abs())
    }

    /// Whether one of the keys of its form made it. Two keys are always tried, nobody's where there is none.
    pub(crate) fn made_by(&self, keys: &[Key], body: &[u8]) -> bool {
        let nobody = Key::nobody(self.form);
        let mut known = keys.iter().filter(|key| key.form == self.form);
        (0..ACTIVE).fold(false, |found, _| {
            let key = known.next();
            (key.unwrap_or(&nobody).made(self, body) & key.is_some()) | found
        })
    }
}

fn hub(given: &str) -> Option<Signed> {
    let macs = vec![mac(given.strip_prefix("sha256=")?)?];
    Some(Signed { form: Form::Hub, id: None, at: None, head: String::new(), given: Given::Macs(macs) })
}

fn standard(list: &str, id: Option<&str>, time: Option<&str>) -> Option<Signed> {
    let id = id.filter(|id| !id.is_empty() && id.len() <= MAX_ID && !id.contains('.'))?;
    let at = seconds(time?)?;
    let listed = list.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    let macs: Vec<[u8; 32]> = listed.take(MAX_LISTED).filter_map(|one| BASE64.decode(one).ok()?.try_into().ok()).collect();
    let head = format!("{id}.{at}.");
    (!macs.is_empty()).then(|| Signed { form: Form::Standard, id: Some(id.to_owned()), at: Some(at), head, given: Given::Macs(macs) })
}

fn slack(given: &str, time: Option<&str>) -> Option<Signed> {
    let at = seconds(time?)?;
    let macs = vec![mac(given.strip_prefix("v0=")?)?];
    Some(Signed { form: Form::Slack, id: None, at: Some(at), head: format!("v0:{at}:"), given: Given::Macs(macs) })
}

fn stripe(given: &str) -> Option<Signed> {
    let parts = || given.split(',').filter_map(|part| part.trim().split_once('='));
    let at = seconds(parts().find(|(name, _)| *name == "t")?.1)?;
    let macs: Vec<[u8; 32]> = parts().filter(|(name, _)| *name == "v1").take(MAX_LISTED).filter_map(|(_, digits)| mac(digits)).collect();
    (!macs.is_empty()).then(|| Signed { form: Form::Stripe, id: None, at: Some(at), head: format!("{at}."), given: Given::Macs(macs) })
}

fn ed25519(given: &str, time: Option<&str>) -> Option<Signed> {
    let at = seconds(time?)?;
    let mut signature = [0; 64];
    hex::decode_to_slice(given, &mut signature).ok()?;
    Some(Signed { form: Form::Ed25519, id: None, at: Some(at), head: at.to_string(), given: Given::Signature(signature) })
}

/// Seconds since 1970 in their one plain form: what is signed is the text.
fn seconds(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|at| at.to_string() == text)
}

fn mac(digits: &str) -> Option<[u8; 32]> {
    let mut mac = [0; 32];
    hex::decode_to_slice(digits, &mut mac).ok()?;
    Some(mac)
}

impl Key {
    /// A shared secret.
    pub(crate) fn secret(form: Form, secret: &[u8]) -> Self {
        // HMAC takes keys of any length: longer than a block they are hashed first, as the standard says.
        let mac = Hmac::new_from_slice(secret).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self { form, kind: Kind::Secret(mac) }
    }

    /// An Ed25519 public key.
    pub(crate) fn public(key: [u8; 32]) -> Self {
        Self { form: Form::Ed25519, kind: Kind::Public(UnparsedPublicKey::new(&ED25519, key)) }
    }

    fn nobody(form: Form) -> Self {
        if form == Form::Ed25519 { Self::public(NOBODY) } else { Self::secret(form, &[0; 32]) }
    }

    /// Whether it made what is given over this body.
    fn made(&self, signed: &Signed, body: &[u8]) -> bool {
        match (&self.kind, &signed.given) {
            (Kind::Secret(mac), Given::Macs(given)) => {
                let right: [u8; 32] = mac.clone().chain_update(&signed.head).chain_update(body).finalize().into_bytes().into();
                given.iter().fold(false, |any, mac| bool::from(right.ct_eq(mac)) | any)
            }
            (Kind::Public(key), Given::Signature(given)) => key.verify(&[signed.head.as_bytes(), body].concat(), given).is_ok(),
            _ => false,
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.form)
    }
}
