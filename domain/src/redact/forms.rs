//! The spellings under which one secret turns up in output.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Lines of a multi-line secret that are searched for alone, since logs are printed line by line. In bytes.
const MIN_LINE: usize = 12;
/// Shortest middle of an encoding that is searched for alone: shorter ones turn up by accident.
const MIN_CORE: usize = 8;

/// Adds every form of `secret`.
pub(super) fn add(secret: &str, forms: &mut Vec<Vec<u8>>) {
    spellings(secret, forms);
    if secret.contains('\n') {
        // Programs print another line end than the file has.
        spellings(&secret.replace("\r\n", "\n"), forms);
        spellings(&secret.replace("\r\n", "\n").replace('\n', "\r\n"), forms);
        for line in secret.lines().map(str::trim).filter(|line| line.len() >= MIN_LINE && !line.starts_with("-----")) {
            spellings(line, forms);
        }
    }
}

fn spellings(secret: &str, forms: &mut Vec<Vec<u8>>) {
    let bytes = secret.as_bytes();
    forms.push(bytes.to_vec());
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        forms.push(engine.encode(bytes).into_bytes());
    }
    for offset in 0..3 {
        base64_core(bytes, offset, forms);
    }
    let lower = hex::encode(bytes);
    forms.push(lower.to_ascii_uppercase().into_bytes());
    forms.push(lower.into_bytes());
    for kept in [UNRESERVED, FORM, COMPONENT] {
        for upper in [true, false] {
            forms.push(percent(bytes, kept, upper, false));
            forms.push(percent(bytes, kept, upper, true));
        }
    }
    let json = json_escaped(secret);
    forms.push(json_escaped(&json).into_bytes());
    // Go escapes these in JSON by default, PHP the slash.
    forms.push(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026").into_bytes());
    forms.push(json.replace('/', "\\/").into_bytes());
    forms.push(json.into_bytes());
}

/// The characters of a base64 text that depend on the secret alone when it stands `offset` bytes into a group of three, as `user:secret`
/// in Basic credentials does.
fn base64_core(secret: &[u8], offset: usize, forms: &mut Vec<Vec<u8>>) {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(secret);
    let (from, to) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
    if to.saturating_sub(from) >= MIN_CORE {
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            forms.push(engine.encode(&padded).as_bytes()[from..to].to_vec());
        }
    }
}

/// RFC 3986's unreserved characters; HTML forms'; JavaScript's encodeURIComponent.
const UNRESERVED: &str = "-._~";
const FORM: &str = "*-._";
const COMPONENT: &str = "-._~!'()*";

fn percent(secret: &[u8], kept: &str, upper: bool, plus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(secret.len() * 3);
    for &byte in secret {
        match byte {
            b' ' if plus => out.push(b'+'),
            _ if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) => out.push(byte),
            _ if upper => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => out.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
    }
    out
}

fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
