//! Subjects with wildcards, as the filters of consumers are: which cover which.

use async_nats::jetstream::consumer;
use serde::{Deserialize, Serialize};

/// Subjects in no order that matters; `*` and `>` as in NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subjects(Vec<String>);

impl Subjects {
    pub(super) fn of(subjects: &[String]) -> Self {
        let mut all = subjects.to_vec();
        all.sort();
        all.dedup();
        Self(all)
    }

    /// What a consumer hands out.
    pub(super) fn of_consumer(config: &consumer::Config) -> Self {
        let one = (!config.filter_subject.is_empty()).then_some(&config.filter_subject);
        let all: Vec<String> = one.into_iter().chain(&config.filter_subjects).cloned().collect();
        if all.is_empty() { Self(vec![">".to_owned()]) } else { Self::of(&all) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn to_vec(&self) -> Vec<String> {
        self.0.clone()
    }

    /// Whether a subject is among them, or all that one with wildcards stands for.
    pub(super) fn cover(&self, subject: &str) -> bool {
        self.0.iter().any(|pattern| covers(pattern, subject))
    }

    /// Whether all of the others are among them.
    pub(super) fn cover_all(&self, others: &Self) -> bool {
        others.0.iter().all(|subject| self.cover(subject))
    }
}

fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(word)) if word != ">" => {}
            (Some(wanted), Some(word)) if wanted == word => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_subject_covers() {
        for (pattern, subject) in
            [("a.b", "a.b"), ("a.*", "a.b"), ("a.*", "a.*"), ("a.>", "a.b.c"), ("a.>", "a.*.c"), (">", "a"), (">", ">")]
        {
            assert!(covers(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in [("a.b", "a"), ("a", "a.b"), ("a.b", "a.*"), ("a.*", "a.>"), ("a.>", "a"), ("*", "a.b"), ("a.*.c", "a.>")]
        {
            assert!(!covers(pattern, subject), "{pattern} {subject}");
        }
    }
}
