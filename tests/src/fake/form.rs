//! `application/x-www-form-urlencoded` in both directions, as bytes, because signatures cover bytes.

use reqwest::Url;

/// Encodes pairs as a form body.
pub(crate) fn encode<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> String {
    let Ok(mut url) = Url::parse("http://form/") else {
        return String::new();
    };
    url.query_pairs_mut().extend_pairs(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
    url.query().unwrap_or_default().to_owned()
}

/// Decodes a form body or query string; malformed escapes stay as they are.
pub(crate) fn decode(form: &str) -> Vec<(String, String)> {
    let Ok(mut url) = Url::parse("http://form/") else {
        return Vec::new();
    };
    url.set_query(Some(form));
    url.query_pairs().into_owned().collect()
}
