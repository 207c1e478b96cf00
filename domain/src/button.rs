//! Button tokens: `kind.object.keyid.mac`. The check code tells our buttons from forged ones; it is no authority.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::card::ButtonKind;

/// Signs and checks button tokens. The first key signs; all of them check, so that old buttons work through a rotation.
#[derive(Clone, Debug)]
pub struct ButtonKeys(Vec<SecretSlice<u8>>);

/// A token that carried a right check code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressed {
    /// What the button does.
    pub kind: ButtonKind,
    /// The incident or the approval.
    pub object: Uuid,
}

/// Bytes of the check code kept in a token: 128 bits.
const MAC_BYTES: usize = 16;

impl ButtonKeys {
    /// Keys, the signing one first.
    ///
    /// # Errors
    /// If there is none, or one is shorter than 32 bytes.
    pub fn new(keys: Vec<SecretSlice<u8>>) -> Result<Self, String> {
        if keys.is_empty() {
            return Err("no button key: set `keys.button`".to_owned());
        }
        if keys.iter().any(|key| key.expose_secret().len() < 32) {
            return Err("a button key is shorter than 32 bytes".to_owned());
        }
        Ok(Self(keys))
    }

    /// The token of a button. `channel` is the platform's channel id, so that a token is worth nothing elsewhere.
    pub fn sign(&self, kind: ButtonKind, object: Uuid, platform: &str, channel: &str) -> String {
        let mac = mac(self.0[0].expose_secret(), kind, object, platform, channel);
        format!("{}.{}.{}", kind.code(), object.simple(), hex::encode(mac))
    }

    /// What a token says, if one of the keys made it for this channel.
    pub fn check(&self, token: &str, platform: &str, channel: &str) -> Option<Pressed> {
        let mut parts = token.splitn(3, '.');
        let (code, object, given) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = ButtonKind::ALL.into_iter().find(|kind| kind.code() == code)?;
        let object = Uuid::try_parse(object).ok()?;
        let given = hex::decode(given).ok()?;
        let made_by = |key: &SecretSlice<u8>| bool::from(mac(key.expose_secret(), kind, object, platform, channel).ct_eq(&given));
        self.0.iter().any(made_by).then_some(Pressed { kind, object })
    }
}

/// What a token says, unchecked: enough for an edge to know which object an act is about.
pub fn read(token: &str) -> Option<Pressed> {
    let mut parts = token.splitn(3, '.');
    let (code, object) = (parts.next()?, parts.next()?);
    let kind = ButtonKind::ALL.into_iter().find(|kind| kind.code() == code)?;
    Some(Pressed { kind, object: Uuid::try_parse(object).ok()? })
}

fn mac(key: &[u8], kind: ButtonKind, object: Uuid, platform: &str, channel: &str) -> Vec<u8> {
    // HMAC takes keys of any length, so this cannot fail; an empty code would match nothing.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    for part in [kind.code().as_bytes(), object.as_bytes(), platform.as_bytes(), channel.as_bytes()] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let mut bytes = mac.finalize().into_bytes().to_vec();
    bytes.truncate(MAC_BYTES);
    bytes
}
