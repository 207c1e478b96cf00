//! One spelling per value: canonical JSON, and the digests by which plans, rule sets and deliveries are recognised.

use std::fmt::{self, Write as _};
use std::hash::BuildHasher as _;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// JSON without whitespace and with the keys of every object in byte order, whatever order they arrived or are stored in.
///
/// Strings are escaped as serde_json does, numbers keep its shortest form. RFC 8785 differs in two points that do not matter for
/// digests made and checked by this program: it orders keys by UTF-16 units and writes numbers as ECMAScript.
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

/// SHA-256 of the canonical JSON of `value`.
///
/// A value that JSON cannot carry (a map with keys that are no strings) gets a digest equal to no other, its own next one included: whoever
/// compares it refuses, and the log says why.
pub fn digest(value: &impl Serialize) -> Digest {
    match serde_json::to_value(value) {
        Ok(value) => Digest::of(canonical_json(&value).as_bytes()),
        Err(error) => {
            tracing::error!(%error, "a value has no JSON form, so its digest matches nothing");
            // Keyed afresh by the operating system's randomness each time.
            let salt = std::hash::RandomState::new();
            Digest::of(format!("no digest {:x}{:x}", salt.hash_one(0), salt.hash_one(1)).as_bytes())
        }
    }
}

/// A SHA-256 digest; 64 lower-case hex digits as text and in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The key under which equal content is found again: the first 16 bytes of a SHA-256; 32 lower-case hex digits as text and in JSON.
///
/// Not for secrets or approvals: 128 bits withstand accidents and forged second copies, and keep the database's index small.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentKey(pub [u8; 16]);

/// The text is no digest of the expected length in hex.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hex digits")]
pub struct DigestError {
    expected: usize,
}

impl Digest {
    /// SHA-256 of raw bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The first 12 hex digits, for people: enough to tell plans apart, never to compare by.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl ContentKey {
    /// The key of these parts in this order. Each is preceded by its length, so `["ab","c"]` and `["a","bc"]` differ.
    pub fn of(parts: &[&[u8]]) -> ContentKey {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let full: [u8; 32] = hash.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(&full[..16]);
        ContentKey(key)
    }
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_scalar(out, &Value::String(key.clone()));
                out.push(':');
                write_value(out, &map[key]);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        scalar => write_scalar(out, scalar),
    }
}

fn write_scalar(out: &mut String, scalar: &Value) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{scalar}");
}

/// The same text, parse and serde forms for both byte arrays.
macro_rules! hex_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }

        impl FromStr for $type {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                let mut bytes = [0; size_of::<Self>()];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| DigestError { expected: 2 * size_of::<Self>() })?;
                Ok($type(bytes))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hex_text!(Digest);
hex_text!(ContentKey);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth_and_nothing_is_padded() {
        let value: Value = serde_json::from_str(r#" { "b" : [ {"z":1, "a":"\n\"x"} ], "a": {"é": null, "e": 1.50, "Z": true} } "#).unwrap();
        assert_eq!(canonical_json(&value), r#"{"a":{"Z":true,"e":1.5,"é":null},"b":[{"a":"\n\"x","z":1}]}"#);
    }

    #[test]
    fn the_digest_is_the_plain_sha256_of_the_text() {
        // `printf '{"a":1}' | sha256sum`
        let known = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862";
        let d = digest(&json!({"a": 1}));
        assert_eq!(d.to_string(), known);
        assert_eq!(d.short(), &known[..12]);
        assert_eq!(known.parse::<Digest>().unwrap(), d);
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&d).unwrap()).unwrap(), d);
    }

    #[test]
    fn insertion_order_does_not_matter() {
        let a: HashMap<_, _> = (0..50).map(|n| (format!("k{n}"), n)).collect();
        let b: BTreeMap<_, _> = (0..50).rev().map(|n| (format!("k{n}"), n)).collect();
        assert_eq!(digest(&a), digest(&b));
    }

    #[test]
    fn what_json_cannot_carry_matches_nothing() {
        let odd = BTreeMap::from([((1, 2), "a tuple is no key")]);
        assert_ne!(digest(&odd), digest(&odd));
    }

    #[test]
    fn a_wrong_text_is_refused() {
        for text in ["", "00", "zz", &"0".repeat(63), &"0".repeat(65), &"é".repeat(32)] {
            assert!(text.parse::<Digest>().is_err());
        }
        assert_eq!("00".parse::<ContentKey>().unwrap_err().to_string(), "expected 32 hex digits");
    }

    #[test]
    fn parts_do_not_run_together() {
        let key = |parts: &[&str]| ContentKey::of(&parts.iter().map(|p| p.as_bytes()).collect::<Vec<_>>());
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a", ""]), key(&["a"]));
        assert_ne!(key(&["a", "b"]), key(&["b", "a"]));
        assert_eq!(key(&["a", "b"]).to_string().parse::<ContentKey>().unwrap(), key(&["a", "b"]));
        assert_eq!(key(&[]).to_string(), "e3b0c44298fc1c149afbf4c8996fb924");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_text_means_the_same_value(value in any_json()) {
            let text = canonical_json(&value);
            let again: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&again, &value);
            prop_assert_eq!(canonical_json(&again), text);
        }

        #[test]
        fn different_values_differ(a in any_json(), b in any_json()) {
            prop_assert_eq!(a == b, digest(&a) == digest(&b));
        }
    }
}
