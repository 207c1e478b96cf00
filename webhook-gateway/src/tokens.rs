//! API tokens: `wk_<id>_<secret>`. The id is public, the secret is kept as its SHA-256. A token never allows more than its principal may.

use std::collections::BTreeSet;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use domain::id::TokenId;
use domain::permission::Right;
use jiff::Timestamp;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Bytes of a token's secret: 256 bits.
const SECRET_BYTES: usize = 32;
/// What begins every token, so that scanners find leaked ones.
const PREFIX: &str = "wk";

/// A token as its owner holds it.
pub struct Token {
    /// Its public name.
    pub id: TokenId,
    secret: [u8; SECRET_BYTES],
}

impl Token {
    /// A fresh token.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn mint(now: Timestamp) -> Result<Self, String> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| "the system gives no randomness".to_owned())?;
        Ok(Self { id: TokenId::new(now), secret })
    }

    /// The token in a text, if it has the form of one.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '_');
        let (prefix, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let id = Uuid::try_parse(id).ok().filter(|_| prefix == PREFIX && id.len() == 32)?;
        let secret = BASE64URL.decode(secret).ok()?.try_into().ok()?;
        Some(Self { id: TokenId(id), secret })
    }

    /// The whole token. Shown once, to its owner.
    pub fn reveal(&self) -> SecretString {
        format!("{PREFIX}_{}_{}", self.id.0.simple(), BASE64URL.encode(self.secret)).into()
    }

    /// What is stored.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// Whether it is the one that was stored. Constant time.
    pub fn is(&self, stored: &[u8]) -> bool {
        self.hash().ct_eq(stored).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

/// What a token may do: its own rights, and of those only what its principal may today.
pub fn effective(token: &BTreeSet<Right>, principal: &BTreeSet<Right>) -> BTreeSet<Right> {
    token.intersection(principal).copied().collect()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_token_is_read_back_and_only_the_same_secret_fits() {
        let token = Token::mint(Timestamp::UNIX_EPOCH).unwrap();
        let text = token.reveal().expose_secret().to_owned();
        let read = Token::read(&text).unwrap();
        assert_eq!(read.id, token.id);
        assert!(read.is(&token.hash()));
        assert!(!Token::mint(Timestamp::UNIX_EPOCH).unwrap().is(&token.hash()));
        assert!(!read.is(&[]) && !format!("{token:?}").contains(&text[36..]));
    }

    #[test]
    fn what_only_looks_like_a_token_is_none() {
        let text = Token::mint(Timestamp::UNIX_EPOCH).unwrap().reveal().expose_secret().to_owned();
        let dashed = text.replacen(&text[3..35], &TokenId::new(Timestamp::UNIX_EPOCH).to_string(), 1);
        for wrong in ["", "wk", "wk__", "wk_x_y", &text[1..], &text[..text.len() - 1], &format!("{text}A"), &dashed] {
            assert!(Token::read(wrong).is_none(), "{wrong}");
        }
    }
}
