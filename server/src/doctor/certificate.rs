//! Until when a certificate is good, read from its DER: the one field that is wanted, and no more of X.509 than leads there (RFC 5280, 4.1).

use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use jiff::civil::DateTime;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, the version.
const VERSION: u8 = 0xa0;

/// When the first certificate of a PEM file ends.
///
/// # Errors
/// If the file holds none.
pub(super) fn expiry(file: &Path) -> anyhow::Result<Timestamp> {
    let certificate = CertificateDer::from_pem_file(file).with_context(|| format!("{} holds no certificate", file.display()))?;
    not_after(&certificate).with_context(|| format!("the certificate in {} cannot be read", file.display()))
}

fn not_after(der: &[u8]) -> anyhow::Result<Timestamp> {
    let (_, certificate, _) = item(der, Some(SEQUENCE))?;
    let (_, mut rest, _) = item(certificate, Some(SEQUENCE))?;
    let (tag, _, after) = item(rest, None)?;
    if tag == VERSION {
        rest = after;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        (_, _, rest) = item(rest, None)?;
    }
    let (_, validity, _) = item(rest, Some(SEQUENCE))?;
    let (_, _, second) = item(validity, None)?;
    let (tag, text, _) = item(second, None)?;
    let text = std::str::from_utf8(text)?;
    let digits = text.strip_suffix('Z').context("the time is not in UTC")?;
    let whole = match tag {
        // Two digits of the year: 50 to 99 are of the last century.
        UTC_TIME => format!("{}{digits}", if digits.as_bytes().first().is_some_and(|first| *first >= b'5') { "19" } else { "20" }),
        GENERALIZED_TIME => digits.to_owned(),
        _ => bail!("no time where one should be"),
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", &whole)?;
    Ok(time.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
}

/// The first item of some DER: its tag, its content, and what follows.
fn item(der: &[u8], wanted: Option<u8>) -> anyhow::Result<(u8, &[u8], &[u8])> {
    let (&[tag, short], mut rest) = der.split_first_chunk::<2>().context("it ends too soon")?;
    if wanted.is_some_and(|wanted| wanted != tag) {
        bail!("{tag:#x} where {wanted:?} should be");
    }
    let mut length = usize::from(short);
    if short & 0x80 != 0 {
        let count = usize::from(short & 0x7f);
        if count > 4 {
            bail!("a length of {count} bytes");
        }
        let (bytes, after) = rest.split_at_checked(count).context("it ends too soon")?;
        length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length).context("it ends too soon")?;
    Ok((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A skeleton with a serial number, an algorithm, an issuer and these two times.
    fn certificate(tag: u8, until: &str) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
        let times = [wrap(UTC_TIME, b"260101000000Z"), wrap(tag, until.as_bytes())].concat();
        let fields = [wrap(VERSION, &[2, 1, 2]), wrap(2, &[1]), wrap(SEQUENCE, &[]), wrap(SEQUENCE, &[]), wrap(SEQUENCE, &times)].concat();
        wrap(SEQUENCE, &wrap(SEQUENCE, &fields))
    }

    #[test]
    fn both_forms_of_time_are_read() {
        for (tag, text, wanted) in [
            (UTC_TIME, "270301120000Z", "2027-03-01T12:00:00Z"),
            (UTC_TIME, "991231235959Z", "1999-12-31T23:59:59Z"),
            (GENERALIZED_TIME, "20510301120000Z", "2051-03-01T12:00:00Z"),
        ] {
            assert_eq!(not_after(&certificate(tag, text)).unwrap(), wanted.parse().unwrap());
        }
    }

    #[test]
    fn what_is_no_certificate_is_no_panic() {
        let whole = certificate(UTC_TIME, "270301120000Z");
        for end in 0..whole.len() {
            assert!(not_after(&whole[..end]).is_err(), "{end} bytes");
        }
        assert!(not_after(&certificate(2, "270301120000Z")).is_err());
        assert!(not_after(&certificate(UTC_TIME, "yesterday")).is_err());
        assert!(not_after(&[0x30, 0x85, 1, 1, 1, 1, 1]).is_err());
    }
}
