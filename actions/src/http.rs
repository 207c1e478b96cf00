//! What `http.check` and `http.request` share: expected statuses, headers, excerpts of answers.

use std::collections::BTreeMap;

use domain::text::{clean_block, shorten_bytes};
use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

/// How much of a body is shown.
const EXCERPT: usize = 64 * 1024;
/// Headers that say how the request is carried; they are ours to set.
const OURS: [&str; 10] =
    ["connection", "content-length", "expect", "host", "idempotency-key", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// One status or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "it must be a status like 200 or a list of them")]
pub(crate) enum Statuses {
    One(u16),
    Several(Vec<u16>),
}

impl Statuses {
    pub(crate) fn hold(&self, status: u16) -> bool {
        match self {
            Statuses::One(one) => *one == status,
            Statuses::Several(several) => several.contains(&status),
        }
    }
}

/// The headers of a step, less those that are not its to set.
pub(crate) fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    if given.len() > 50 {
        return Err("`headers`: more than 50".to_owned());
    }
    let one = |(name, value): (&String, &String)| {
        let name: HeaderName = name.parse().map_err(|_| format!("`headers`: {name:?} is no header name"))?;
        if OURS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
            return Err(format!("`headers`: `{name}` is set by Watchkeeper"));
        }
        if value.len() > 8192 {
            return Err(format!("`headers`: `{name}` is longer than 8192 bytes"));
        }
        let value = HeaderValue::from_str(value).map_err(|_| format!("`headers`: `{name}` holds characters that no header may hold"))?;
        Ok((name, value))
    };
    given.iter().map(one).collect()
}

/// For questions to health routes.
pub(crate) fn accept_json() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"))])
}

/// The beginning of a text from outside, without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    clean_block(&shorten_bytes(text, EXCERPT), usize::MAX)
}
