//! Every way to tamper with a log is found, whether one has the key or only a checkpoint.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::audit::{AuditDecision, NewAudit};

#[derive(Clone)]
struct Log {
    cut: Option<Cut>,
    links: Vec<Link>,
    seals: Vec<Seal>,
    checkpoints: Vec<Checkpoint>,
}

fn keys(byte: u8) -> AuditKeys {
    AuditKeys::new(vec![vec![byte; 32].into()]).unwrap()
}

fn row(n: i64) -> NewAudit {
    NewAudit {
        at: jiff::Timestamp::from_second(1_772_366_400 + n).unwrap(),
        actor: "principal:ann".to_owned(),
        action: "approve".to_owned(),
        object: format!("run:{n}"),
        decision: AuditDecision::Allowed,
        reason: "quorum".to_owned(),
        detail: json!({ "n": n }),
    }
}

/// Batches of these sizes, with a checkpoint at the end.
fn log(sizes: &[usize]) -> Log {
    let (keys, mut head, mut seq) = (keys(7), START, 0);
    let mut log = Log { cut: None, links: vec![], seals: vec![], checkpoints: vec![] };
    for (batch, size) in (1..).zip(sizes) {
        let prev_hash = head;
        for _ in 0..*size {
            seq += 2;
            let content = Content::Row(row(seq));
            let mac = keys.mac(&row(seq));
            let hash = chain(head, batch, seq, &mac, content.digest().unwrap());
            log.links.push(Link { seq, batch, mac, prev_hash: Some(head), hash: Some(hash), content });
            head = hash;
        }
        let (at, rows) = (row(seq).at, log.links.len() as i64);
        log.seals.push(keys.seal(Seal { batch, at, rows, seq, prev_hash, hash: head, mac: String::new() }));
    }
    log.checkpoints.push(Checkpoint::from(log.seals.last().unwrap()));
    log
}

fn verify(log: &Log, keys: Option<AuditKeys>, checkpoints: &[Checkpoint]) -> Report {
    let mut verifier = Verifier::new(keys, checkpoints.iter().copied());
    if let Some(cut) = &log.cut {
        verifier.cut(cut);
    }
    let mut batches: Vec<i64> = log.links.iter().map(|link| link.batch).chain(log.seals.iter().map(|seal| seal.batch)).collect();
    batches.sort_unstable();
    batches.dedup();
    for batch in batches {
        let mut links: Vec<&Link> = log.links.iter().filter(|link| link.batch == batch).collect();
        links.sort_by_key(|link| link.seq);
        links.into_iter().for_each(|link| verifier.link(link));
        log.seals.iter().filter(|seal| seal.batch == batch).for_each(|seal| verifier.seal(seal));
    }
    verifier.end()
}

/// Lets go of the first batches, as the server does.
fn cut(log: &mut Log, batches: usize) {
    let seal = log.seals[batches - 1].clone();
    log.cut = Some(keys(7).cut(Cut::behind(&seal, seal.at)));
    log.links.retain(|link| link.batch > seal.batch);
    log.seals.retain(|other| other.batch > seal.batch);
}

/// Verifies with the key alone, with the checkpoint alone, and with both.
fn all_ways(log: &Log) -> [Report; 3] {
    [verify(log, Some(keys(7)), &[]), verify(log, None, &log.checkpoints), verify(log, Some(keys(7)), &log.checkpoints)]
}

/// Makes the public hashes fit again, as somebody without the key can.
fn rehash(log: &mut Log) {
    let mut head = START;
    for seal in &mut log.seals {
        seal.prev_hash = head;
        let mut rows = 0;
        for link in log.links.iter_mut().filter(|link| link.batch <= seal.batch) {
            rows += 1;
            if link.batch == seal.batch {
                let digest = link.content.digest().unwrap();
                link.prev_hash = Some(head);
                head = chain(head, link.batch, link.seq, &link.mac, digest);
                link.hash = Some(head);
                seal.seq = link.seq;
            }
        }
        (seal.hash, seal.rows) = (head, rows);
    }
}

#[test]
fn a_sound_log_is_sound_and_its_coverage_is_told() {
    let log = log(&[3, 1, 4]);
    for report in all_ways(&log) {
        assert!(report.is_sound(), "{report:#?}");
        assert_eq!((report.rows, report.batches), (8, 3));
    }
    assert_eq!(all_ways(&log)[1].covered, 8);
    assert_eq!(verify(&log, None, &[]).covered, 0, "nothing is covered without a checkpoint");
    assert!(verify(&Log { cut: None, links: vec![], seals: vec![], checkpoints: vec![] }, Some(keys(7)), &[]).is_sound());
}

#[test]
fn rows_that_were_left_out_do_not_break_the_chain() {
    let mut log = log(&[3, 3]);
    for link in log.links.iter_mut().filter(|link| link.seq != 6) {
        link.content = Content::Digest(link.content.digest().unwrap());
    }
    for report in all_ways(&log) {
        assert!(report.is_sound() && report.left_out == 5, "{report:#?}");
    }
    log.links[0].content = Content::Digest(Digest([1; 32]));
    assert!(all_ways(&log).iter().all(|report| !report.is_sound()));
}

#[test]
fn a_part_of_a_chain_is_held_by_its_checkpoint() {
    let log = log(&[2, 3, 2]);
    let part = |change: fn(&mut Link)| {
        let mut verifier = Verifier::of_part(None, log.checkpoints.iter().copied());
        for batch in [2, 3] {
            for link in log.links.iter().filter(|link| link.batch == batch) {
                let mut link = link.clone();
                change(&mut link);
                verifier.link(&link);
            }
            verifier.seal(&log.seals[batch as usize - 1]);
        }
        verifier.end()
    };
    let sound = part(|_| ());
    assert!(sound.is_sound() && sound.covered == 5, "{sound:#?}");
    assert!(!part(|link| link.mac = link.mac.replace('a', "b")).is_sound());
}

#[test]
fn what_was_let_go_of_is_not_missed_and_the_rest_verifies() {
    let whole = log(&[3, 2, 1, 4]);
    for batches in 1..=4 {
        let mut log = whole.clone();
        log.checkpoints.insert(0, Checkpoint::from(&whole.seals[0]));
        cut(&mut log, batches);
        for report in all_ways(&log) {
            assert!(report.is_sound(), "{batches}: {report:#?}");
            let pruned = report.pruned.unwrap();
            assert_eq!((pruned.rows as u64 + report.rows, pruned.batch as usize), (10, batches));
        }
    }
}

#[test]
fn a_cut_that_was_tampered_with_is_found_with_the_key() {
    type Change = fn(&mut Cut);
    let changes: [(&str, Change); 8] = [
        ("batch", |cut| cut.batch += 1),
        ("an earlier batch", |cut| cut.batch -= 1),
        ("row", |cut| cut.seq += 1),
        ("rows", |cut| cut.rows += 1),
        ("hash", |cut| cut.hash = Digest([7; 32])),
        ("until", |cut| cut.until += jiff::SignedDuration::from_secs(1)),
        ("at", |cut| cut.at += jiff::SignedDuration::from_secs(1)),
        ("keyed hash", |cut| cut.mac = keys(8).cut(cut.clone()).mac),
    ];
    for (what, change) in changes {
        let mut log = log(&[3, 2, 1, 4]);
        cut(&mut log, 2);
        change(log.cut.as_mut().unwrap());
        let [key, _, both] = all_ways(&log);
        for report in [key, both] {
            assert!(report.faults.iter().any(|fault| fault.kind == FaultKind::Forged), "{what}: {report:#?}");
        }
    }
}

#[test]
fn a_log_without_its_cut_or_with_another_one_is_not_sound() {
    let whole = log(&[3, 2, 1, 4]);
    let mut pruned = whole.clone();
    cut(&mut pruned, 2);
    let fails = |what: &str, log: &Log| {
        for report in all_ways(log) {
            assert!(!report.is_sound(), "{what}: {report:#?}");
        }
    };
    fails("none", &Log { cut: None, ..pruned.clone() });
    let mut earlier = whole.clone();
    cut(&mut earlier, 1);
    fails("an earlier one, genuine, over a log that was made shorter", &Log { cut: earlier.cut, ..pruned.clone() });
    fails("rows before it", &Log { cut: pruned.cut.clone(), ..whole.clone() });
    let mut shorter = pruned.clone();
    shorter.links.retain(|link| link.batch > 3);
    shorter.seals.retain(|seal| seal.batch > 3);
    fails("made shorter behind it", &shorter);
    let forged = Cut { mac: pruned.cut.unwrap().mac, ..Cut::behind(&whole.seals[2], whole.seals[2].at) };
    let report = verify(&Log { cut: Some(forged), ..shorter }, Some(keys(7)), &[]);
    assert!(report.faults.iter().all(|fault| fault.kind == FaultKind::Forged) && report.faulty == 1, "{report:#?}");
}

#[test]
fn a_checkpoint_of_another_chain_at_the_cut_is_found() {
    let mut one = log(&[3, 2, 1]);
    let mut seen = Checkpoint::from(&one.seals[1]);
    cut(&mut one, 2);
    assert_eq!(verify(&one, None, &[seen]).checkpoints, 1);
    seen.hash = START;
    assert_eq!(verify(&one, None, &[seen]).faults[0].kind, FaultKind::Replaced);
    let mut all = log(&[3, 2]);
    let seen = all.checkpoints.clone();
    cut(&mut all, 1);
    (all.links, all.seals) = (vec![], vec![]);
    assert_eq!(verify(&all, Some(keys(7)), &seen).faults[0].kind, FaultKind::Truncated, "everything behind the cut is gone");
}

#[test]
fn the_key_of_another_log_is_called_so() {
    let report = verify(&log(&[3, 2]), Some(keys(8)), &[]);
    assert_eq!(report.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [FaultKind::WrongKey]);
    let rotated = AuditKeys::new(vec![vec![8; 32].into(), vec![7; 32].into()]).unwrap();
    assert!(verify(&log(&[3, 2]), Some(rotated), &[]).is_sound(), "a second active key");
}

/// The second row could not be read when it was sealed.
fn log_with_an_unreadable_row() -> Log {
    let mut log = log(&[3, 2]);
    log.links[1].content = Content::Unreadable("no".to_owned());
    let (keys, mut head) = (keys(7), START);
    for link in &mut log.links {
        let place = (link.batch, link.seq, link.mac.as_str());
        link.prev_hash = Some(head);
        head = match link.content.digest() {
            Some(digest) => chain(head, place.0, place.1, place.2, digest),
            None => chain_unreadable(head, place.0, place.1, place.2),
        };
        link.hash = Some(head);
    }
    let ends = [log.links[2].hash.unwrap(), head];
    let mut prev_hash = START;
    for (seal, hash) in log.seals.iter_mut().zip(ends) {
        *seal = keys.seal(Seal { prev_hash, hash, ..seal.clone() });
        prev_hash = hash;
    }
    log.checkpoints = vec![Checkpoint::from(&log.seals[1])];
    log
}

#[test]
fn a_row_that_was_sealed_unread_is_named_and_never_sound_whatever_stands_there_later() {
    let told = |log: &Log| {
        let told = |report: Report| report.faults.into_iter().map(|fault| (fault.kind, fault.seq)).collect::<Vec<_>>();
        all_ways(log).map(told)
    };
    let log = log_with_an_unreadable_row();
    assert_eq!(told(&log), [(); 3].map(|()| vec![(FaultKind::Unreadable, Some(4))]), "all others are sound");
    let true_row = row(4);
    let hash = log.links[1].hash.unwrap();
    for content in [
        Content::Row(true_row.clone()),
        Content::Digest(crate::canonical::digest(&true_row)),
        Content::Digest(hash),
        Content::Digest(START),
    ] {
        let mut mended = log.clone();
        mended.links[1].content = content;
        assert_eq!(told(&mended), [(); 3].map(|()| vec![(FaultKind::Changed, Some(4))]));
    }
    // What was before it and is not there any more is missed all the same.
    let mut shorter = log.clone();
    shorter.links.remove(0);
    assert!(told(&shorter).iter().all(|faults| faults.contains(&(FaultKind::Broken, Some(4)))));
}

#[test]
fn the_end_is_missed_where_a_checkpoint_saw_it() {
    let whole = log(&[3, 2, 2]);
    let mut cut = whole.clone();
    cut.links.truncate(5);
    cut.seals.truncate(2);
    let [key, seen, both] = all_ways(&cut);
    assert!(key.is_sound(), "the key alone cannot know");
    for report in [seen, both] {
        assert_eq!(report.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [FaultKind::Truncated]);
    }
    let mut other = log(&[3, 2, 1, 1]);
    other.checkpoints = whole.checkpoints;
    assert!(verify(&other, None, &other.checkpoints).faults.iter().any(|fault| fault.kind == FaultKind::Replaced));
}

/// A way to tamper, on row `n`, by somebody who can write the database and has no key.
#[derive(Clone, Copy, Debug)]
enum Tamper {
    Text,
    Remove,
    Insert,
    Swap,
    Number,
    Unseal,
    Batch,
}

fn tamper(log: &mut Log, how: Tamper, n: usize, cover: bool) {
    let n = n % log.links.len();
    match how {
        Tamper::Text => {
            let Content::Row(row) = &mut log.links[n].content else { return };
            row.actor = "principal:mallory".to_owned();
        }
        Tamper::Remove | Tamper::Unseal => drop(log.links.remove(n)),
        Tamper::Insert => {
            let mut forged = log.links[n].clone();
            forged.seq -= 1;
            log.links.insert(n, forged);
        }
        Tamper::Swap => {
            let other = (n + 1) % log.links.len();
            let (one, two) = (log.links[n].clone(), log.links[other].clone());
            (log.links[n].content, log.links[n].mac) = (two.content, two.mac);
            (log.links[other].content, log.links[other].mac) = (one.content, one.mac);
        }
        Tamper::Number => log.links[n].seq += 1,
        Tamper::Batch => {
            let batch = log.links[n].batch;
            log.links.retain(|link| link.batch != batch);
            log.seals.retain(|seal| seal.batch != batch);
        }
    }
    if cover {
        rehash(log);
    }
}

proptest! {
    #[test]
    fn whatever_is_done_without_the_key_is_found(
        sizes in prop::collection::vec(1_usize..4, 2..5),
        n in 0_usize..20,
        cover in any::<bool>(),
        how in prop::sample::select(vec![
            Tamper::Text, Tamper::Remove, Tamper::Insert, Tamper::Swap, Tamper::Number, Tamper::Unseal, Tamper::Batch,
        ]),
    ) {
        let mut log = log(&sizes);
        let last = log.seals.len() as i64;
        tamper(&mut log, how, n, cover);
        let [key, seen, both] = all_ways(&log);
        // Only the end can be cut off unseen, and only from one who has no checkpoint.
        let cut = matches!(how, Tamper::Batch) && log.seals.iter().all(|seal| seal.batch < last);
        prop_assert!(cut || !key.is_sound(), "{how:?} with the key");
        prop_assert!(!seen.is_sound(), "{how:?} with a checkpoint");
        prop_assert!(!both.is_sound());
    }
}
