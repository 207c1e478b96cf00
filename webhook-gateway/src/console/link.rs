//! One-time sign-in links: a short-lived signed token (JWT, HS256) that names a principal. It is spent when the form behind it is sent.

use std::collections::HashSet;

use domain::id::uuid_at;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};

/// Who may read such a token: nobody else's token signs in here.
const AUDIENCE: &str = "watchkeeper-console-login";
/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 2048;

/// Makes and reads sign-in links.
#[derive(Clone)]
pub struct LoginLinks(Vec<SecretSlice<u8>>);

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    sub: String,
    jti: String,
    iat: i64,
    exp: i64,
}

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) principal: String,
    pub(super) id: String,
    pub(super) expires_at: Timestamp,
}

/// Why there is no link, or why one is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLink {
    /// No key is configured.
    #[error("no key signs sign-in links: set `keys.session`")]
    NoKey,
    /// It is not one of ours, or it is over.
    #[error("this sign-in link is not valid any more: make a new one with `watchkeeper login-link`")]
    Invalid,
}

impl LoginLinks {
    /// Links under these keys: the first signs, all of them check.
    pub fn new(keys: Vec<SecretSlice<u8>>) -> Self {
        Self(keys)
    }

    /// A token that signs `principal` in once, within `life`.
    ///
    /// # Errors
    /// [`NoLink::NoKey`].
    pub fn mint(&self, principal: &str, now: Timestamp, life: SignedDuration) -> Result<SecretString, NoLink> {
        let key = self.0.first().ok_or(NoLink::NoKey)?;
        let claims = Claims {
            aud: AUDIENCE.to_owned(),
            sub: principal.to_owned(),
            jti: uuid_at(now).simple().to_string(),
            iat: now.as_second(),
            exp: (now + life).as_second(),
        };
        let key = EncodingKey::from_secret(key.expose_secret());
        encode(&Header::new(Algorithm::HS256), &claims, &key).map(SecretString::from).map_err(|_| NoLink::NoKey)
    }

    /// What a token says, if it is ours and not over. Whether it was spent is for the store to say.
    pub(super) fn read(&self, token: &str, now: Timestamp) -> Result<Link, NoLink> {
        if token.len() > MAX_TOKEN {
            return Err(NoLink::Invalid);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.required_spec_claims = HashSet::from(["aud", "sub", "exp"].map(str::to_owned));
        // Time is judged below, by the clock that is passed in.
        validation.validate_exp = false;
        let claims = self
            .0
            .iter()
            .find_map(|key| decode::<Claims>(token, &DecodingKey::from_secret(key.expose_secret()), &validation).ok())
            .ok_or(NoLink::Invalid)?
            .claims;
        if claims.exp <= now.as_second() || claims.iat > now.as_second() + 60 || claims.exp - claims.iat > 24 * 3600 {
            return Err(NoLink::Invalid);
        }
        let expires_at = Timestamp::from_second(claims.exp).map_err(|_| NoLink::Invalid)?;
        Ok(Link { principal: claims.sub, id: claims.jti, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn links(seed: u8) -> LoginLinks {
        LoginLinks::new(vec![SecretSlice::from(vec![seed; 32])])
    }

    #[test]
    fn a_link_names_its_principal_until_it_is_over() {
        let token = links(1).mint("ann", at(0), SignedDuration::from_mins(10)).unwrap();
        assert_eq!(links(1).read(token.expose_secret(), at(599)).unwrap().principal, "ann");
        assert_eq!(links(1).read(token.expose_secret(), at(600)), Err(NoLink::Invalid));
    }

    #[test]
    fn foreign_and_broken_tokens_are_worth_nothing() {
        let token = links(1).mint("ann", at(0), SignedDuration::from_mins(10)).unwrap();
        assert_eq!(links(2).read(token.expose_secret(), at(1)), Err(NoLink::Invalid));
        let none = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ3YXRjaGtlZXBlci1jb25zb2xlLWxvZ2luIiwic3ViIjoiYW5uIn0.";
        for text in ["", "x", none, &"a".repeat(5000)] {
            assert_eq!(links(1).read(text, at(1)), Err(NoLink::Invalid), "{text:.20}");
        }
    }

    #[test]
    fn claims_of_the_wrong_type_are_refused() {
        let key = EncodingKey::from_secret(&[1; 32]);
        for exp in [serde_json::json!("9999999999"), serde_json::json!(1e300), serde_json::json!(-1), serde_json::json!(null)] {
            let claims = serde_json::json!({"aud": AUDIENCE, "sub": "ann", "jti": "j", "iat": at(0).as_second(), "exp": exp});
            let token = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
            assert_eq!(links(1).read(&token, at(1)), Err(NoLink::Invalid), "{exp}");
        }
    }
}
