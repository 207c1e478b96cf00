//! Signatures over the raw body: GitHub's header and Standard Webhooks, both HMAC-SHA256.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A signed request is refused when its time is further than this from ours, in either direction: seconds.
const WINDOW: i64 = 300;
/// Signatures that one Standard Webhooks header may list.
const MAX_LISTED: usize = 8;
/// Longest `webhook-id`, in bytes.
const MAX_ID: usize = 256;

/// A key, ready to sign.
#[derive(Clone)]
pub(crate) struct Key(Hmac<Sha256>);

/// What a sender's headers say about the body that follows.
pub(crate) enum Signed {
    /// `X-Hub-Signature-256`. It has no time: the content key makes a replay a repeat.
    Hub([u8; 32]),
    /// Standard Webhooks: `{id}.{timestamp}.{body}`.
    Standard { id: String, timestamp: i64, macs: Vec<[u8; 32]> },
}

impl Signed {
    /// The signature in the headers: `None` if there is none, an error if it cannot be read.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Result<Self, ()>> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        if let Some(list) = text("webhook-signature") {
            let read = || {
                let id = text("webhook-id").filter(|id| !id.is_empty() && id.len() <= MAX_ID && !id.contains('.'))?;
                let timestamp = text("webhook-timestamp")?.parse().ok()?;
                let listed = list.split(' ').filter_map(|one| one.strip_prefix("v1,"));
                let macs: Vec<[u8; 32]> = listed.take(MAX_LISTED).filter_map(|one| BASE64.decode(one).ok()?.try_into().ok()).collect();
                (!macs.is_empty()).then(|| Self::Standard { id: id.to_owned(), timestamp, macs })
            };
            return Some(read().ok_or(()));
        }
        let given = text("x-hub-signature-256")?;
        let mut mac = [0; 32];
        let read = given.strip_prefix("sha256=").and_then(|digits| hex::decode_to_slice(digits, &mut mac).ok());
        Some(read.map(|()| Self::Hub(mac)).ok_or(()))
    }

    /// The sender's own name for this delivery, the same over its retries.
    pub(crate) fn id(&self) -> Option<&str> {
        match self {
            Self::Hub(_) => None,
            Self::Standard { id, .. } => Some(id),
        }
    }

    /// Whether its time, if it has one, is near `now`.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        match self {
            Self::Hub(_) => true,
            Self::Standard { timestamp, .. } => now.as_second().abs_diff(*timestamp) <= WINDOW.unsigned_abs(),
        }
    }

    /// Whether one of the keys of its kind made it. Two keys are always tried, nobody's where there is none.
    pub(crate) fn made_by(&self, hub: &[Key], standard: &[Key], body: &[u8]) -> bool {
        let nobody = Key::new(&[0; 32]);
        let (keys, head, given) = match self {
            Self::Hub(mac) => (hub, String::new(), std::slice::from_ref(mac)),
            Self::Standard { id, timestamp, macs } => (standard, format!("{id}.{timestamp}."), &macs[..]),
        };
        (0..2).fold(false, |found, i| {
            let key = keys.get(i);
            let right = key.unwrap_or(&nobody).sign(&[head.as_bytes(), body]);
            let any = given.iter().fold(false, |any, mac| bool::from(right.ct_eq(mac)) | any);
            (any & key.is_some()) | found
        })
    }
}

impl Key {
    pub(crate) fn new(secret: &[u8]) -> Self {
        // HMAC takes keys of any length: longer than a block they are hashed first, as the standard says.
        Self(Hmac::new_from_slice(secret).unwrap_or_else(|_| Hmac::new(&Default::default())))
    }

    fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}
