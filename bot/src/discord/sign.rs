//! Discord's Ed25519 signatures over what it sends (its documentation, "Setting Up an Endpoint").

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use jiff::Timestamp;

/// A request older or newer than this is a replay or comes from a wrong clock.
const WINDOW_SECONDS: u64 = 300;

/// The application's public key.
pub(super) struct Key(UnparsedPublicKey<[u8; 32]>);

impl Key {
    /// Reads 64 hex digits.
    pub(super) fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits.trim(), &mut bytes).ok()?;
        Some(Self(UnparsedPublicKey::new(&ED25519, bytes)))
    }

    /// Whether this is the key, in hex.
    pub(super) fn is(&self, digits: &str) -> bool {
        hex::decode(digits).is_ok_and(|bytes| bytes == self.0.as_ref())
    }

    /// Whether Discord signed this raw body, lately. Discord sends wrong signatures on purpose, to see them refused.
    pub(super) fn signed(&self, timestamp: Option<&str>, signature: Option<&str>, body: &[u8], now: Timestamp) -> bool {
        let Some((timestamp, signature)) = timestamp.zip(signature) else { return false };
        let Ok(signature) = hex::decode(signature) else { return false };
        let Ok(sent) = timestamp.parse::<i64>() else { return false };
        let message = [timestamp.as_bytes(), body].concat();
        self.0.verify(&message, &signature).is_ok() && now.as_second().abs_diff(sent) <= WINDOW_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    const AT: i64 = 1_800_000_000;

    #[test]
    fn only_what_discord_signed_lately_passes() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = Key::from_hex(&hex::encode(pair.public_key().as_ref())).unwrap();
        let body = br#"{"type":1}"#;
        let sign = |timestamp: &str, body: &[u8]| hex::encode(pair.sign(&[timestamp.as_bytes(), body].concat()).as_ref());
        let at = AT.to_string();
        let check = |timestamp: &str, signature: &str, body: &[u8], now: i64| {
            key.signed(Some(timestamp), Some(signature), body, Timestamp::from_second(now).unwrap())
        };
        let signature = sign(&at, body);
        assert!(check(&at, &signature, body, AT));
        assert!(check(&at, &signature, body, AT + 300));
        assert!(!check(&at, &signature, body, AT + 301), "replayed");
        assert!(!check(&at, &signature, body, AT - 301), "from the future");
        assert!(!check(&at, &signature, br#"{"type":2}"#, AT), "changed");
        assert!(!check(&(AT + 1).to_string(), &signature, body, AT), "the timestamp is signed too");
        assert!(!check(&at, &"00".repeat(64), body, AT));
        assert!(!check(&at, "zz", body, AT));
        assert!(!check("soon", &sign("soon", body), body, AT));
        assert!(!key.signed(None, Some(&signature), body, Timestamp::UNIX_EPOCH));
        let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        let forged = hex::encode(other.sign(&[at.as_bytes(), body].concat()).as_ref());
        assert!(!check(&at, &forged, body, AT), "somebody else's key");
    }

    #[test]
    fn keys_are_64_hex_digits() {
        assert!(Key::from_hex("").is_none());
        assert!(Key::from_hex(&"a".repeat(63)).is_none());
        assert!(Key::from_hex(&"g".repeat(64)).is_none());
    }
}
