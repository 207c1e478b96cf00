//! The cut: where the audit log begins once its oldest rows were let go of. It says with the chain's own key what stood before it, so that the rest
//! can be followed, and nobody without the key can make the log shorter.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AuditKeys, Seal};
use crate::canonical::Digest;

/// The end of what is not there any more. The chain goes on with the batch behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The last batch that went.
    pub batch: i64,
    /// The number of its last row.
    pub seq: i64,
    /// All rows that ever went.
    pub rows: i64,
    /// Where the chain stood.
    pub hash: Digest,
    /// When that batch was sealed: no row that went is younger.
    pub until: Timestamp,
    /// When they went.
    pub at: Timestamp,
    /// Keyed hash of all this, in hex.
    pub mac: String,
    /// Who signed it, in hex, for those who verify without the key.
    pub public_key: String,
    /// Their signature over [`Cut::statement`], in hex.
    pub signature: String,
}

impl Cut {
    /// What is to be sealed and signed when everything up to the end of a batch goes.
    pub fn behind(seal: &Seal, at: Timestamp) -> Self {
        let Seal { batch, seq, rows, hash, at: until, .. } = *seal;
        Self { batch, seq, rows, hash, until, at, mac: String::new(), public_key: String::new(), signature: String::new() }
    }

    /// What the keyed hash and the signature cover. Its first line tells it from rows, seals and checkpoints.
    pub fn statement(&self) -> String {
        let Self { batch, seq, rows, hash, until, at, .. } = self;
        format!("watchkeeper audit cut\nbatch={batch}\nseq={seq}\nrows={rows}\nhash={hash}\nuntil={until}\nat={at}\n")
    }
}

impl AuditKeys {
    /// Closes a cut with its keyed hash.
    pub fn cut(&self, cut: Cut) -> Cut {
        let mac = self.keyed_hash(&[&cut.statement()]);
        Cut { mac, ..cut }
    }

    /// Whether one of the keys made this cut.
    pub fn made_cut(&self, cut: &Cut) -> bool {
        self.fits(&[&cut.statement()], &cut.mac)
    }
}
