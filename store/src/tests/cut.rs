//! The audit log's oldest rows go as far as a checkpoint covers them, what is left verifies, and a cut that somebody touched is found.

use domain::audit::{AuditKeys, Checkpoint, Cut, FaultKind, Report, Verifier};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::chain::write;
use super::{World, on_both};
use crate::{Aging, AuditPruned, Backend, Store};

const DAY: SignedDuration = SignedDuration::from_hours(24);

on_both! {
    async fn old_batches_go_and_the_rest_verifies(world) {
        let store = world.open("a").await;
        let days = days(&store, world, 6, 3).await;
        let seen = seen(&store).await;
        assert_eq!(prune(&store, days[3], &seen).await, 9, "three days");
        let report = verify(&store, &[seen]).await;
        assert!(report.is_sound(), "{report:#?}");
        let cut = report.pruned.unwrap();
        assert_eq!((cut.batch, cut.rows, cut.until, report.rows, report.covered, report.unsealed), (3, 9, days[2], 9, 9, 1));
        assert_eq!((cut.public_key.as_str(), cut.signature.as_str()), ("key", "signature of 9"));
        let told = store.read().await.unwrap().audit_waiting(0, 10).await.unwrap().remove(0).unwrap();
        assert_eq!((told.row.action.as_str(), &told.row.detail["rows"]), ("audit.prune", &json!(9)));

        // The chain goes on, and so does the going.
        assert_eq!(prune(&store, days[3], &seen).await, 0, "a second round finds nothing");
        assert_eq!(store.seal_audit(10).await.unwrap().rows, 1);
        assert_eq!(prune(&store, days[4], &seen).await, 3);
        let report = verify(&store, &[seen]).await;
        assert!(report.is_sound() && report.pruned.as_ref().is_some_and(|cut| cut.rows == 12), "{report:#?}");
        let mut tx = store.read().await.unwrap();
        assert_eq!((tx.audit_seals(0, 10).await.unwrap()[0].batch, tx.audit_rows(0, 100).await.unwrap().len()), (5, 8));
    }

    async fn what_no_checkpoint_covers_stays(world) {
        let store = world.open("a").await;
        let days = days(&store, world, 4, 2).await;
        let mut early = store.read().await.unwrap().audit_seals(0, 10).await.unwrap().iter().map(Checkpoint::from).collect::<Vec<_>>();
        assert_eq!(prune(&store, world.now() + DAY, &early[0]).await, 0, "the checkpoint's own batch stays, so that it can be met");
        let other = Checkpoint { rows: 3, ..early[2] };
        assert_eq!(prune(&store, world.now() + DAY, &other).await, 0, "a checkpoint of another chain covers nothing");
        assert_eq!(prune(&store, world.now() + DAY, &early[2]).await, 4);
        let report = verify(&store, &early.split_off(2)).await;
        assert!(report.is_sound() && (report.checkpoints, report.rows) == (2, 4), "{report:#?}");
        let last = seen(&store).await;
        assert_eq!(prune(&store, world.now() + DAY, &last).await, 2, "the last batch stays: the chain goes on behind it");
        assert_eq!(days.len(), 4);
    }

    async fn large_and_small_batches_go_in_steps_that_are_not_too_large(world) {
        let store = world.open("a").await;
        for n in [1500, 700, 700, 1, 1] {
            write(&store, world, n).await;
            assert_eq!(store.seal_audit(2000).await.unwrap().rows as i64, n);
        }
        let seen = seen(&store).await;
        world.clock.advance(DAY);
        let mut steps = vec![];
        while let AuditPruned::Gone(rows) = store.prune_audit(world.now(), &seen, sign).await.unwrap() {
            steps.push(rows);
        }
        assert_eq!(steps, [1500, 700, 701]);
        assert!(verify(&store, &[seen]).await.is_sound());
    }

    async fn what_was_changed_does_not_go(world) {
        let store = world.open("a").await;
        let days = days(&store, world, 4, 3).await;
        let seen = seen(&store).await;
        let stays = async |why: &str| {
            let pruned = store.prune_audit(days[2], &seen, sign).await.unwrap();
            assert!(matches!(&pruned, AuditPruned::Unsound(report) if !report.is_sound()), "{why}: {pruned:?}");
        };
        for (change, back) in [
            ("update audit set actor = 'principal:mallory' where seq = 2", "update audit set actor = 'principal:ann' where seq = 2"),
            ("update audit set batch = 3 where seq = 2", "update audit set batch = 1 where seq = 2"),
            ("update audit_seals set rows_until = 9999 where batch = 1", "update audit_seals set rows_until = 3 where batch = 1"),
            ("update audit_seals set at = at - 1 where batch = 2", "update audit_seals set at = at + 1 where batch = 2"),
        ] {
            run(&store, change).await;
            stays(change).await;
            run(&store, back).await;
        }
        assert_eq!(prune(&store, days[1], &seen).await, 3);
        run(&store, "update audit_cut set rows_gone = 2").await;
        stays("a cut that was changed").await;
        assert_eq!(store.read().await.unwrap().audit_seals(0, 10).await.unwrap().len(), 3);
    }

    async fn a_seal_that_claims_to_be_older_does_not_make_rows_go(world) {
        let store = world.open("a").await;
        let days = days(&store, world, 3, 3).await;
        let seen = seen(&store).await;
        run(&store, "update audit_seals set at = 0").await;
        assert!(matches!(store.prune_audit(days[0], &seen, sign).await.unwrap(), AuditPruned::Unsound(_)));
    }

    async fn a_cut_that_somebody_touched_is_found(world) {
        let store = world.open("a").await;
        let days = days(&store, world, 6, 3).await;
        let seen = seen(&store).await;
        prune(&store, days[1], &seen).await;
        run(&store, "create table earlier as select * from audit_cut").await;
        prune(&store, days[3], &seen).await;
        for table in ["audit", "audit_seals", "audit_cut"] {
            run(&store, &format!("create table kept_{table} as select * from {table}")).await;
        }
        let shorter = "delete from audit where batch = 4; delete from audit_seals where batch = 4";
        let after_batch_4 = "update audit_cut set batch = 4, seq = 12, rows_gone = 12, hash = (select hash from kept_audit_seals where batch = 4)";
        for (what, sql) in [
            ("missing", "delete from audit_cut".to_owned()),
            ("another batch", "update audit_cut set batch = batch + 1".to_owned()),
            ("an earlier batch", "update audit_cut set batch = batch - 1".to_owned()),
            ("another row", "update audit_cut set seq = seq + 1".to_owned()),
            ("another number of rows", "update audit_cut set rows_gone = rows_gone - 1".to_owned()),
            ("another hash", "update audit_cut set hash = (select hash from audit_seals where batch = 5)".to_owned()),
            ("a hash that is none", "update audit_cut set hash = (select hash from audit_seals where batch = 99)".to_owned()),
            ("another time", "update audit_cut set sealed_at = sealed_at + 1".to_owned()),
            ("when it was made", "update audit_cut set at = at + 1".to_owned()),
            ("the keyed hash", "update audit_cut set mac = '00'".to_owned()),
            ("an earlier one, genuine", "delete from audit_cut; insert into audit_cut select * from earlier".to_owned()),
            ("made shorter", shorter.to_owned()),
            ("made shorter, and the cut fitted to it", format!("{shorter}; {after_batch_4}")),
            ("everything went", "delete from audit; delete from audit_seals".to_owned()),
        ] {
            // A column that may not be empty refuses what is none.
            let mut tx = store.begin().await.unwrap();
            let mut touched = Ok(1);
            for statement in sql.split("; ") {
                touched = tx.sql(statement).await;
                if touched.is_err() {
                    break;
                }
            }
            match touched {
                Ok(rows) => {
                    assert!(rows > 0, "{what}: nothing was touched");
                    tx.commit().await.unwrap();
                    let report = verify(&store, &[seen]).await;
                    assert!(!report.is_sound(), "{what}: {report:#?}");
                }
                Err(_) => tx.rollback().await.unwrap(),
            }
            for table in ["audit", "audit_seals", "audit_cut"] {
                run(&store, &format!("delete from {table}")).await;
                run(&store, &format!("insert into {table} select * from kept_{table}")).await;
            }
            assert!(verify(&store, &[seen]).await.is_sound(), "{what} was undone");
        }
        let other = AuditKeys::new(vec![vec![8; 32].into()]).unwrap();
        let report = store.verify_audit(Verifier::new(Some(other), []), |_| ()).await.unwrap();
        assert_eq!(report.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [FaultKind::WrongKey]);
    }

    async fn counted_refusals_go_too(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        tx.count_refusal("unknown", "source", world.now(), 5).await.unwrap();
        tx.commit().await.unwrap();
        let gone = async |before: Timestamp| store.prune(Aging::Refusals, before, 0, 10).await.unwrap().rows;
        assert_eq!((gone(world.now() - DAY).await, gone(world.now() + DAY).await), (0, 1));
    }
}

/// Rows go while others verify and seal, and while another replica lets go as well: nobody sees a log that is not sound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_sound_while_its_beginning_goes() {
    let world = World::new(Backend::Postgres).await;
    let [a, b] = [world.open("a").await, world.open("b").await];
    for _ in 0..60 {
        write(&a, &world, 20).await;
        a.seal_audit(20).await.unwrap();
    }
    let seals = a.read().await.unwrap().audit_seals(0, 100).await.unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let let_go = async |store: &Store| {
        let mut gone = 0;
        for seal in &seals[1..] {
            gone += prune(store, world.now() + DAY, &Checkpoint::from(seal)).await;
        }
        gone
    };
    let pruning = async {
        let gone = tokio::join!(let_go(&a), let_go(&b));
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        gone.0 + gone.1
    };
    let looking = async {
        let mut looked = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            match b.verify_audit(Verifier::new(Some(keys()), []), |_| ()).await {
                Ok(report) => assert!(report.is_sound(), "{report:#?}"),
                Err(error) => assert!(matches!(error, crate::Error::Conflict), "{error}"),
            }
            looked += 1;
        }
        looked
    };
    let (gone, looked) = tokio::join!(pruning, looking);
    assert_eq!(gone, 59 * 20, "each row once");
    assert!(looked > 0);
    while a.seal_audit(100).await.unwrap().rows > 0 {}
    assert!(verify(&b, &[]).await.is_sound());
}

/// One batch a day; when each was sealed.
async fn days(store: &Store, world: &World, days: usize, rows: i64) -> Vec<Timestamp> {
    let mut sealed = vec![];
    for _ in 0..days {
        write(store, world, rows).await;
        assert_eq!(store.seal_audit(100).await.unwrap().rows as i64, rows);
        sealed.push(world.now());
        world.clock.advance(DAY);
    }
    sealed
}

/// What was said outside of where the chain stands.
async fn seen(store: &Store) -> Checkpoint {
    Checkpoint::from(&store.read().await.unwrap().last_seal().await.unwrap().unwrap())
}

fn sign(cut: &Cut) -> (String, String) {
    ("key".to_owned(), format!("signature of {}", cut.rows))
}

/// Lets everything go that may; how many rows.
async fn prune(store: &Store, before: Timestamp, seen: &Checkpoint) -> u64 {
    let mut gone = 0;
    loop {
        match store.prune_audit(before, seen, sign).await {
            Ok(AuditPruned::Gone(rows)) => gone += rows,
            Ok(AuditPruned::Nothing) => return gone,
            Err(crate::Error::Retry) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn run(store: &Store, sql: &str) {
    let mut tx = store.begin().await.unwrap();
    tx.sql(sql).await.unwrap();
    tx.commit().await.unwrap();
}

fn keys() -> AuditKeys {
    AuditKeys::new(vec![vec![7; 32].into()]).unwrap()
}

async fn verify(store: &Store, seen: &[Checkpoint]) -> Report {
    store.verify_audit(Verifier::new(Some(keys()), seen.iter().copied()), |_| ()).await.unwrap()
}
