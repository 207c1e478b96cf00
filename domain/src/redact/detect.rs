//! The second net: credentials that are recognised by their shape, whoever they belong to.

use std::ops::Range;
use std::sync::LazyLock;

use regex::bytes::Regex;

/// How each kind looks. All but private keys stay on one line and are recognised within [`RECOGNISED`] bytes. Where a kind has a group, only the group is blanked. Constants all: no secret ever becomes an expression.
const SHAPES: [&str; 9] = [
    // AWS access key ids, docs.aws.amazon.com "IAM identifiers".
    r"(?-u)\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b",
    // Slack bot, user, app and refresh tokens.
    r"(?-u)\bxox[abeoprs]-[0-9A-Za-z-]{8,}",
    r"(?-u)\bxapp-[0-9]-[0-9A-Za-z-]{8,}",
    // GitHub and GitLab tokens.
    r"(?-u)\bgh[pousr]_[0-9A-Za-z]{30,}",
    r"(?-u)\bgithub_pat_[0-9A-Za-z_]{22,}",
    r"(?-u)\bglpat-[0-9A-Za-z_-]{20,}",
    // RFC 6750 and RFC 7617 credentials in headers.
    r"(?i-u)\b(?:bearer|basic)[ \t]{1,16}([0-9a-z._~+/-]{8,}=*)",
    // Passwords in addresses, RFC 3986 section 3.2.1.
    r"(?-u)://[^\s/:@]{0,64}:([^\s/@]{3,256})@",
    PEM,
];

/// Bytes by which every shape is recognised, whatever follows.
pub(super) const RECOGNISED: usize = 400;
/// Bytes before a find that decide whether it is one: `Bearer` and its blanks.
pub(super) const CONTEXT: usize = 32;

/// A private key up to its end, or as far as the text goes: half a key is a secret too.
const PEM: &str =
    r"(?s-u)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z)";

static NET: LazyLock<Vec<Regex>> = LazyLock::new(|| SHAPES.iter().filter_map(|shape| Regex::new(shape).ok()).collect());
static PEM_END: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?-u)-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----").ok());

/// Every credential-shaped place, in no order.
pub(super) fn find(bytes: &[u8]) -> Vec<Range<usize>> {
    let place = |c: regex::bytes::Captures<'_>| c.get(1).or_else(|| c.get(0)).map(|m| m.range());
    NET.iter().flat_map(|shape| shape.captures_iter(bytes).filter_map(place)).collect()
}

/// Whether this place holds a private key whose end is missing. Something else found may overlap its beginning.
pub(super) fn is_open_pem(place: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ";
    place.windows(BEGIN.len()).any(|w| w == BEGIN) && pem_end(place).is_none()
}

/// The end of the line that ends a private key.
pub(super) fn pem_end(bytes: &[u8]) -> Option<usize> {
    PEM_END.as_ref()?.find(bytes).map(|m| m.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_compiles() {
        assert_eq!(NET.len(), SHAPES.len());
        assert!(PEM_END.is_some());
    }
}
