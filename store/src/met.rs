//! Which alerts and groups this process has met. About others decisions are made as if nobody had ever heard of them, and the database checks that when it stores
//! them: one trip instead of two.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::at_once::Asks;

/// So many are remembered, which takes a few MB. Whoever is forgotten costs one vain attempt.
const MOST: usize = 100_000;

/// Hashes, because to take somebody for met who is not costs one trip.
#[derive(Debug, Default)]
pub(crate) struct Met {
    hashes: Mutex<HashSet<u64>>,
    by: RandomState,
}

impl Met {
    /// Whether none of them was met before. From now on all of them were.
    pub(crate) fn are_strangers(&self, asks: &Asks) -> bool {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() > MOST {
            hashes.clear();
        }
        let before = hashes.len();
        hashes.extend(asks.alerts.iter().map(|key| self.by.hash_one(("alert", key))));
        hashes.extend(asks.groups.iter().map(|key| self.by.hash_one(("group", key))));
        hashes.len() == before + asks.alerts.len() + asks.groups.len()
    }

    /// As after a start.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
