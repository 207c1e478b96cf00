//! The chain over sealed rows. Each row's hash covers the one before it; each batch of rows ends in a keyed seal; a signed checkpoint now and
//! then says where the chain stood, to somebody outside.
//!
//! The hash of a row needs no key, so that whoever trusts a checkpoint can follow the chain without any secret. What stands in the database
//! alone cannot be forged either: rows and seals carry keyed hashes, and the key is not in the database.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::NewAudit;
use crate::canonical::{Digest, canonical_json, digest};

/// What the first row follows.
pub const START: Digest = Digest([0; 32]);

/// The keys of the audit log. The first makes keyed hashes; all of them check, so that old rows stay good through a rotation.
#[derive(Clone, Debug)]
pub struct AuditKeys(Vec<SecretSlice<u8>>);

/// A row in its place in the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its number; greater than those before it in its batch.
    pub seq: i64,
    /// The batch with which it was sealed.
    pub batch: i64,
    /// Keyed hash of the row alone, in hex.
    pub mac: String,
    /// The hash of the row before; `None` where nothing readable stands.
    pub prev_hash: Option<Digest>,
    /// Its own.
    pub hash: Option<Digest>,
    /// What it says.
    #[serde(flatten)]
    pub content: Content,
}

/// What is known of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// All of it.
    Row(NewAudit),
    /// Its digest only: it was left out, and the chain can still be followed through it.
    Digest(Digest),
    /// It cannot be read any more.
    Unreadable(String),
}

/// The end of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seal {
    /// The batch, from 1 without a gap.
    pub batch: i64,
    /// When it was sealed.
    pub at: Timestamp,
    /// All rows of the chain up to here.
    pub rows: i64,
    /// The number of its last row.
    pub seq: i64,
    /// Where the batch before ended.
    pub prev_hash: Digest,
    /// Where the chain stands.
    pub hash: Digest,
    /// Keyed hash of all this, in hex.
    pub mac: String,
}

/// What is said outside of the database about where the chain stands. It is signed by whoever says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last sealed batch.
    pub batch: i64,
    /// The number of its last row.
    pub seq: i64,
    /// All rows up to there.
    pub rows: i64,
    /// Where the chain stands.
    pub hash: Digest,
    /// When this was said.
    pub at: Timestamp,
}

impl AuditKeys {
    /// Keys, the one that makes hashes first.
    ///
    /// # Errors
    /// If there is none, or one is shorter than 32 bytes.
    pub fn new(keys: Vec<SecretSlice<u8>>) -> Result<Self, String> {
        if keys.is_empty() {
            return Err("no audit key: set `keys.audit`".to_owned());
        }
        if keys.iter().any(|key| key.expose_secret().len() < 32) {
            return Err("an audit key is shorter than 32 bytes".to_owned());
        }
        Ok(Self(keys))
    }

    /// The keyed hash of a row, in hex.
    pub fn mac(&self, row: &NewAudit) -> String {
        self.keyed_hash(&[&text(row)])
    }

    /// Whether one of the keys made this keyed hash of the row.
    pub fn made(&self, row: &NewAudit, mac: &str) -> bool {
        self.fits(&[&text(row)], mac)
    }

    /// Closes a batch with its keyed hash.
    pub fn seal(&self, seal: Seal) -> Seal {
        let mac = self.keyed_hash(&[SEAL, &body(&seal)]);
        Seal { mac, ..seal }
    }

    /// Whether one of the keys sealed this batch.
    pub fn sealed(&self, seal: &Seal) -> bool {
        self.fits(&[SEAL, &body(seal)], &seal.mac)
    }

    /// By the first key, in hex.
    pub(super) fn keyed_hash(&self, parts: &[&str]) -> String {
        hex::encode(keyed(&self.0[0], parts).finalize().into_bytes())
    }

    /// Whether one of the keys made it.
    pub(super) fn fits(&self, parts: &[&str], mac: &str) -> bool {
        let Ok(mac) = hex::decode(mac) else { return false };
        self.0.iter().any(|key| keyed(key, parts).verify_slice(&mac).is_ok())
    }
}

impl Content {
    /// The digest that the chain covers; `None` if the row cannot be read.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Row(row) => Some(digest(row)),
            Self::Digest(digest) => Some(*digest),
            Self::Unreadable(_) => None,
        }
    }
}

impl Checkpoint {
    /// What is signed.
    pub fn statement(&self) -> String {
        let Self { batch, seq, rows, hash, at } = self;
        format!("watchkeeper audit checkpoint\nbatch={batch}\nseq={seq}\nrows={rows}\nhash={hash}\nat={at}\n")
    }
}

impl From<&Seal> for Checkpoint {
    fn from(seal: &Seal) -> Self {
        Self { batch: seal.batch, seq: seal.seq, rows: seal.rows, hash: seal.hash, at: seal.at }
    }
}

/// The hash of a row that follows `prev`.
pub fn chain(prev: Digest, batch: i64, seq: i64, mac: &str, row: Digest) -> Digest {
    let mut hash = place(b"watchkeeper audit row\n", prev, (batch, seq), mac);
    hash.update(row.0);
    Digest(hash.finalize().into())
}

/// The hash of a row that nobody could read when it was its turn.
///
/// What stands behind it must not wait for somebody to mend it: rows that are not sealed can be removed without a trace, so one row that is made
/// unreadable would open the whole rest of the log. Nothing is given away by going on. The hash has a beginning of its own and covers no content, so
/// neither a content that is written there later nor a digest in its place ever fits, and whoever verifies names the row for ever. Its keyed hash is
/// covered, by which the true content can still be told with the key.
pub fn chain_unreadable(prev: Digest, batch: i64, seq: i64, mac: &str) -> Digest {
    Digest(place(b"watchkeeper audit unreadable row\n", prev, (batch, seq), mac).finalize().into())
}

/// What both cover.
fn place(kind: &[u8], prev: Digest, (batch, seq): (i64, i64), mac: &str) -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(kind);
    hash.update(prev.0);
    hash.update(batch.to_be_bytes());
    hash.update(seq.to_be_bytes());
    hash.update((mac.len() as u64).to_be_bytes());
    hash.update(mac);
    hash
}

/// Tells seals from rows, whose text begins with a brace.
const SEAL: &str = "watchkeeper audit seal\n";

fn keyed(key: &SecretSlice<u8>, parts: &[&str]) -> Hmac<Sha256> {
    // HMAC takes keys of any length; `new` has seen that they are long enough.
    let mac = Hmac::new_from_slice(key.expose_secret()).unwrap_or_else(|_| Hmac::new(&Default::default()));
    parts.iter().fold(mac, |mac, part| mac.chain_update(part))
}

/// A row's one spelling. A value that JSON cannot carry does not come here: its detail is JSON already.
fn text(row: &NewAudit) -> String {
    canonical_json(&serde_json::to_value(row).unwrap_or_default())
}

fn body(seal: &Seal) -> String {
    let Seal { batch, at, rows, seq, prev_hash, hash, mac: _ } = seal;
    format!("batch={batch}\nat={at}\nrows={rows}\nseq={seq}\nprev={prev_hash}\nhash={hash}\n")
}
