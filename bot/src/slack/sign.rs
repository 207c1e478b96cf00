//! Slack's signatures over what it sends (docs.slack.dev, "Verifying requests from Slack").

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// A request older or newer than this is a replay or comes from a wrong clock.
const WINDOW_SECONDS: u64 = 300;

/// Why a request is not Slack's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forged {
    /// No usable timestamp or signature.
    Unsigned,
    /// Signed too long ago, or in the future.
    Stale,
    /// Signed by somebody else, or changed since.
    Wrong,
}

impl Forged {
    /// A word for the metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Stale => "stale",
            Self::Wrong => "bad_signature",
        }
    }
}

/// Checks a signature over the raw body with each of the secrets, in constant time.
///
/// # Errors
/// [`Forged`].
pub(super) fn check(secrets: &[SecretString], timestamp: Option<&str>, signature: Option<&str>, body: &[u8], now: Timestamp) -> Result<(), Forged> {
    let (timestamp, signature) = timestamp.zip(signature).ok_or(Forged::Unsigned)?;
    let given = signature.strip_prefix("v0=").and_then(|digits| hex::decode(digits).ok()).ok_or(Forged::Unsigned)?;
    let sent: i64 = timestamp.parse().map_err(|_| Forged::Unsigned)?;
    let made_by = |secret: &SecretString| mac(secret, timestamp, body).is_some_and(|mac| mac.verify_slice(&given).is_ok());
    // Every secret is tried, so that the time taken does not tell which one it was.
    let known = secrets.iter().filter(|secret| made_by(secret)).count();
    if known == 0 {
        return Err(Forged::Wrong);
    }
    if now.as_second().abs_diff(sent) > WINDOW_SECONDS {
        return Err(Forged::Stale);
    }
    Ok(())
}

fn mac(secret: &SecretString, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(b"v0:");
    mac.update(timestamp.as_bytes());
    mac.update(b":");
    mac.update(body);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of Slack's documentation.
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar\
        &user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands\
        %2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNED: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    const AT: i64 = 1_531_420_618;

    fn checked(secrets: &[&str], timestamp: &str, signature: &str, body: &str, now: i64) -> Result<(), Forged> {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        check(&secrets, Some(timestamp), Some(signature), body.as_bytes(), Timestamp::from_second(now).unwrap())
    }

    #[test]
    fn agrees_with_slacks_documentation() {
        let secret = "8f742231b10e8888abcd99yyyzzz85a5";
        let at = AT.to_string();
        assert_eq!(checked(&[secret], &at, SIGNED, BODY, AT), Ok(()));
        assert_eq!(checked(&["other", secret], &at, SIGNED, BODY, AT), Ok(()), "the second secret counts too");
        assert_eq!(checked(&[secret], &at, SIGNED, BODY, AT + 300), Ok(()));
        assert_eq!(checked(&[secret], &at, SIGNED, BODY, AT + 301), Err(Forged::Stale));
        assert_eq!(checked(&[secret], &at, SIGNED, BODY, AT - 301), Err(Forged::Stale));
        assert_eq!(checked(&["other"], &at, SIGNED, BODY, AT), Err(Forged::Wrong));
        assert_eq!(checked(&[secret], &at, SIGNED, &BODY.replace("text=", "text=x"), AT), Err(Forged::Wrong));
        assert_eq!(checked(&[secret], &(AT + 1).to_string(), SIGNED, BODY, AT), Err(Forged::Wrong), "the timestamp is signed too");
        assert_eq!(checked(&[], &at, SIGNED, BODY, AT), Err(Forged::Wrong), "without a secret nothing passes");
    }

    #[test]
    fn what_is_malformed_is_unsigned() {
        for (timestamp, signature) in [("x", SIGNED), ("1531420618", "v1=00"), ("1531420618", "v0=zz"), ("", ""), ("99999999999999999999", SIGNED)] {
            assert_eq!(checked(&["s"], timestamp, signature, BODY, AT), Err(Forged::Unsigned), "{timestamp} {signature}");
        }
        assert_eq!(checked(&["s"], "1531420618", "v0=", BODY, AT), Err(Forged::Wrong));
        assert_eq!(check(&[SecretString::from("s")], None, Some(SIGNED), b"", Timestamp::UNIX_EPOCH), Err(Forged::Unsigned));
    }
}
