//! The audit log's chain: sealed by one of many, followed beside them, and every change that somebody makes in the database found.

use std::time::Instant;

use domain::audit::{AuditDecision, AuditKeys, Checkpoint, FaultKind, NewAudit, Report, Verifier};
use jiff::SignedDuration;
use serde_json::json;

use super::{World, on_both};
use crate::{AuditFilter, Backend, Error, Store};

on_both! {
    async fn what_waits_is_sealed_once_and_in_order(world) {
        let store = world.open("a").await;
        assert_eq!(seal(&store, 100).await, 0);
        write(&store, world, 5).await;
        assert_eq!(verify(&store, &[]).await.unsealed, 5, "and sound");
        assert_eq!((seal(&store, 3).await, seal(&store, 3).await, seal(&store, 3).await), (3, 2, 0));
        write(&store, world, 1).await;
        let report = verify(&store, &[]).await;
        assert!(report.is_sound(), "{report:#?}");
        assert_eq!((report.rows, report.batches, report.unsealed), (5, 2, 1));
        store.seal_audit(3).await.unwrap();
        let seal = store.read().await.unwrap().last_seal().await.unwrap().unwrap();
        assert_eq!((seal.batch, seal.rows), (3, 6));
        let report = verify(&store, &[Checkpoint::from(&seal)]).await;
        assert!(report.is_sound() && (report.checkpoints, report.covered) == (1, 6), "{report:#?}");
    }

    async fn how_long_a_row_has_waited_is_told(world) {
        let store = world.open("a").await;
        let age = async || store.read().await.unwrap().depths().await.unwrap().oldest_unsealed_age;
        assert_eq!(age().await, None);
        write(&store, world, 1).await;
        world.clock.advance(SignedDuration::from_secs(90));
        write(&store, world, 1).await;
        assert_eq!(age().await, Some(SignedDuration::from_secs(90)));
        // Where the chain stands is not known any more, so nothing can be put behind it.
        assert_eq!(seal(&store, 1).await, 1);
        let short = if store.backend() == Backend::Sqlite { "x'00'" } else { "'\\x00'::bytea" };
        run(&store, &format!("update audit_seals set hash = {short}")).await;
        world.clock.advance(SignedDuration::from_secs(10));
        assert!(matches!(store.seal_audit(10).await, Err(Error::Corrupt { table: "audit_seals", .. })));
        assert_eq!(age().await, Some(SignedDuration::from_secs(10)));
    }

    async fn whoever_looks_changes_nothing_and_sees_the_same(world) {
        let store = world.open("a").await;
        write(&store, world, 3).await;
        store.seal_audit(10).await.unwrap();
        write(&store, world, 1).await;
        let looking = Store::look(world.options("a")).await.unwrap();
        let report = verify(&looking, &[]).await;
        assert!(report.is_sound() && (report.rows, report.unsealed) == (3, 1), "{report:#?}");
        assert!(looking.seal_audit(10).await.is_err(), "who looks does not write");
        write(&store, world, 1).await;
        assert_eq!(verify(&looking, &[]).await.unsealed, 2, "the writer goes on");
        looking.close().await;
        assert_eq!(seal(&store, 10).await, 2);
        store.close().await;
        drop(store);
        let report = verify(&Store::look(world.options("b")).await.unwrap(), &[]).await;
        assert!(report.is_sound() && report.rows == 5, "nobody runs: {report:#?}");
    }

    async fn the_newest_rows_come_first_and_can_be_sought(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        for (actor, action) in [("system", "run.start"), ("principal:ann", "approve"), ("principal:ben", "deny"), ("principal:an%", "note")] {
            tx.audit(&NewAudit { actor: actor.to_owned(), action: action.to_owned(), ..row(world, 1) }).await.unwrap();
        }
        tx.commit().await.unwrap();
        let ask = async |filter: AuditFilter| {
            let found = store.read().await.unwrap().newest_audit(&AuditFilter { limit: 10, ..filter }).await.unwrap();
            found.into_iter().map(|row| row.unwrap().row.action).collect::<Vec<_>>()
        };
        let actor = |actor: &str| AuditFilter { actor: actor.to_owned(), ..AuditFilter::default() };
        assert_eq!(ask(AuditFilter::default()).await, ["note", "deny", "approve", "run.start"]);
        assert_eq!(ask(actor("Ann")).await, ["approve"], "without the word before the name, whatever the case");
        assert_eq!(ask(actor("an%")).await, ["note"], "a sign of the database's own is a sign like others");
        assert_eq!(ask(actor("principal:")).await.len(), 3);
        assert_eq!(ask(AuditFilter { action: "run.".to_owned(), object: "RUN:1".to_owned(), ..actor("sys") }).await, ["run.start"]);
        assert_eq!(ask(AuditFilter { before: 3, ..AuditFilter::default() }).await, ["approve", "run.start"]);
    }

    async fn a_changed_row_is_found(world) {
        let sealed = sealed(world).await;
        for (what, sql) in [
            ("actor", "update audit set actor = 'principal:mallory' where seq = 5"),
            ("decision", "update audit set decision = 'refused' where seq = 5"),
            ("reason", "update audit set reason = 'x' where seq = 5"),
            ("time", "update audit set at = at + 1 where seq = 5"),
            ("detail", "update audit set detail = '{}' where seq = 5"),
            ("unreadable", "update audit set detail = '{' where seq = 5"),
            ("keyed hash", "update audit set mac = 'x' where seq = 5"),
            ("hash", "update audit set hash = prev_hash where seq = 5"),
            ("no hash", "update audit set hash = null where seq = 5"),
        ] {
            let report = sealed.after(sql).await;
            let fault = report.faults.first().unwrap_or_else(|| panic!("{what} was not found"));
            assert_eq!(fault.seq, Some(5), "{what}: {report:#?}");
        }
        let waiting = sealed.after("update audit set batch = null where seq = 9; update audit set actor = 'x' where seq = 9").await;
        assert!(waiting.faults.iter().any(|fault| fault.kind == FaultKind::Forged && fault.seq == Some(9)), "{waiting:#?}");
    }

    async fn a_row_that_cannot_be_read_keeps_no_other_from_being_sealed_and_is_named_for_ever(world) {
        let store = world.open("a").await;
        let mut damages = vec!["detail = '{'", "decision = 'perhaps'"];
        if store.backend() == Backend::Sqlite {
            damages.extend(["detail = cast(x'7bff7d' as text)", "detail = x'7b7d'", "at = 'noon'", "actor = cast(x'ff' as text)", "mac = x'00'"]);
        }
        run(&store, "create table kept as select * from audit").await;
        for (n, damage) in (1_i64..).zip(&damages) {
            write(&store, world, 3).await;
            let seq = 4 * n - 2;
            run(&store, &format!("insert into kept select * from audit where seq = {seq}")).await;
            run(&store, &format!("update audit set {damage} where seq = {seq}")).await;
            let report = verify(&store, &[]).await;
            assert_eq!((places(&report, FaultKind::Unreadable).last(), report.unsealed), (Some(&Some(seq)), 3), "{damage}: {report:#?}");
            let sealed = store.seal_audit(10).await.unwrap();
            assert_eq!((sealed.rows, sealed.unreadable.iter().map(|row| row.seq).collect::<Vec<_>>()), (3, vec![seq]), "{damage}");
            write(&store, world, 1).await;
            assert_eq!(seal(&store, 10).await, 1, "what comes behind it");
            let report = verify(&store, &[]).await;
            assert_eq!((report.faulty, places(&report, FaultKind::Unreadable).last()), (n as u64, Some(&Some(seq))), "{damage}: {report:#?}");
        }
        let end = store.read().await.unwrap().last_seal().await.unwrap().unwrap();
        assert_eq!(end.rows, 4 * damages.len() as i64);
        // Mended later, word for word, it is still not what was sealed.
        for column in ["at", "actor", "decision", "detail", "mac"] {
            run(&store, &format!("update audit set {column} = (select {column} from kept where kept.seq = audit.seq) where seq in (select seq from kept)")).await;
        }
        let report = verify(&store, &[Checkpoint::from(&end)]).await;
        assert_eq!(places(&report, FaultKind::Unreadable), []);
        assert_eq!(places(&report, FaultKind::Changed).len(), damages.len(), "{report:#?}");
    }

    async fn a_removed_row_is_found(world) {
        let sealed = sealed(world).await;
        let report = sealed.after("delete from audit where seq = 5").await;
        assert_eq!(places(&report, FaultKind::Broken), [Some(6)], "{report:#?}");
        assert!(!sealed.after("delete from audit where seq = 1").await.is_sound());
        assert!(!sealed.after("delete from audit where seq = 9").await.is_sound(), "the last of all");
        assert!(!sealed.after("delete from audit where batch = 2").await.is_sound(), "a batch without its seal");
        let sql = "delete from audit where batch = 2; delete from audit_seals where batch = 2";
        assert_eq!(places(&sealed.after(sql).await, FaultKind::Missing), [None], "a whole batch");
        assert!(!sealed.after("update audit set batch = null, hash = null, prev_hash = null where seq = 5").await.is_sound(), "made to wait");
    }

    async fn a_shortened_log_is_missed_by_its_checkpoint(world) {
        let sealed = sealed(world).await;
        for sql in [
            "delete from audit where batch = 3; delete from audit_seals where batch = 3",
            "delete from audit; delete from audit_seals",
            "update audit set batch = null where batch = 3; delete from audit_seals where batch = 3",
        ] {
            let report = sealed.after(sql).await;
            assert_eq!(places(&report, FaultKind::Truncated).len(), 1, "{sql} {report:#?}");
        }
        let report = sealed.after("delete from audit_seals where batch = 3").await;
        assert_eq!(places(&report, FaultKind::Missing), [None], "{report:#?}");
    }

    async fn an_inserted_or_moved_row_is_found(world) {
        let sealed = sealed(world).await;
        // Numbers behind the last, so that a copy finds room: rows are ordered by batch first.
        let copy = "insert into audit (seq, at, actor, action, object, decision, reason, detail, mac, batch, prev_hash, hash) \
                    select 1000, at, actor, action, object, decision, reason, detail, mac, 2, prev_hash, hash from audit where seq = 5";
        assert!(!sealed.after(copy).await.is_sound(), "a copy with a right keyed hash");
        let forged = "insert into audit (seq, at, actor, action, object, decision, reason, detail, mac, batch, prev_hash, hash) \
                      select 1000, at, 'principal:mallory', action, object, decision, reason, detail, mac, 3, hash, hash from audit where seq = 9";
        let report = sealed.after(forged).await;
        assert!(places(&report, FaultKind::Forged).contains(&Some(1000)), "{report:#?}");
        let waiting = "insert into audit (seq, at, actor, action, object, decision, reason, detail, mac) \
                       select 1000, at, 'principal:mallory', action, object, decision, reason, detail, mac from audit where seq = 9";
        assert_eq!(places(&sealed.after(waiting).await, FaultKind::Forged), [Some(1000)], "before it is sealed");
        for place in ["-1, -1", "0, 0", "-1, null", "0, null"] {
            let below = format!(
                "insert into audit (seq, batch, at, actor, action, object, decision, reason, detail, mac, prev_hash, hash) \
                 select {place}, at, actor, action, object, decision, reason, detail, mac, prev_hash, hash from audit where seq = 5"
            );
            assert!(!sealed.after(&below).await.is_sound(), "below all numbers: {place}");
        }
        let swap = "update audit set seq = 2000 where seq = 5; update audit set seq = 5 where seq = 4; update audit set seq = 4 where seq = 2000";
        assert!(!sealed.after(swap).await.is_sound(), "reordered");
        assert!(!sealed.after("update audit set batch = 1 where seq = 4").await.is_sound(), "another batch");
        assert!(!sealed.after("update audit_seals set rows_until = rows_until + 1 where batch = 2").await.is_sound(), "a seal");
        assert!(!sealed.after("update audit_seals set mac = 'x' where batch = 2").await.is_sound(), "a seal's keyed hash");
    }

    async fn another_key_is_called_so_and_a_second_one_is_believed(world) {
        let sealed = sealed(world).await;
        let keys = |bytes: &[u8]| AuditKeys::new(bytes.iter().map(|byte| vec![*byte; 32].into()).collect()).unwrap();
        let report = sealed.store.verify_audit(Verifier::new(Some(keys(&[8])), []), |_| ()).await.unwrap();
        assert_eq!(report.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [FaultKind::WrongKey]);
        let report = sealed.store.verify_audit(Verifier::new(Some(keys(&[8, 7])), []), |_| ()).await.unwrap();
        assert!(report.is_sound(), "{report:#?}");
    }

    async fn ten_thousand_rows_are_sealed_and_followed_soon(world) {
        let store = world.open("a").await;
        write(&store, world, 10_000).await;
        let began = Instant::now();
        while seal(&store, 500).await > 0 {}
        let sealing = began.elapsed();
        let mut told = 0;
        let verifier = Verifier::new(Some(keys()), []);
        let report = store.verify_audit(verifier, |_| told += 1).await.unwrap();
        assert!(report.is_sound() && (report.rows, report.batches) == (10_000, 20), "{report:#?}");
        assert!(told >= 10, "progress is told");
        println!("10,000 rows: sealed in {sealing:?}, verified in {:?}", began.elapsed() - sealing);
        assert!(sealing.as_secs() < 20, "{sealing:?}: unoptimised, and others share the machine");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sealers_over_one_postgresql_make_one_chain_although_rows_commit_out_of_order() {
    let world = World::new(Backend::Postgres).await;
    let stores = [world.open("a").await, world.open("b").await, world.open("c").await];
    let done = std::sync::atomic::AtomicBool::new(false);
    let sealer = async |store: &Store| {
        let mut sealed = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            sealed += seal(store, 7).await;
        }
        sealed
    };
    let writers = async {
        let writer = |n: usize| {
            let (store, world) = (&stores[n % 3], &world);
            async move {
                for i in 0..10 {
                    let mut tx = store.begin().await.unwrap();
                    tx.audit(&row(world, i)).await.unwrap();
                    // Others take greater numbers meanwhile, and commit first.
                    tokio::time::sleep(std::time::Duration::from_millis((n * 7 + i as usize * 3) as u64 % 11)).await;
                    if (n + i as usize).is_multiple_of(5) { tx.rollback().await.unwrap() } else { tx.commit().await.unwrap() }
                }
            }
        };
        tokio::join!(writer(0), writer(1), writer(2), writer(3), writer(4), writer(5));
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let (a, b, c, ()) = tokio::join!(sealer(&stores[0]), sealer(&stores[1]), sealer(&stores[2]), writers);
    let rest = seal(&stores[0], 1000).await;
    let report = verify(&stores[1], &[]).await;
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!((report.rows, report.unsealed), (48, 0));
    assert_eq!(a + b + c + rest, 48, "each row was sealed by one");
    let mut tx = stores[2].begin().await.unwrap();
    assert!(matches!(tx.sql("insert into audit_seals select * from audit_seals limit 1").await, Err(Error::Conflict)));
}

/// Three sealed batches of three rows, and what was seen of them outside.
struct Sealed {
    store: Store,
    checkpoint: Checkpoint,
}

impl Sealed {
    /// What a verification says after this was done in the database; it is undone afterwards.
    async fn after(&self, sql: &str) -> Report {
        for table in ["audit", "audit_seals"] {
            self.run(&format!("create table kept_{table} as select * from {table}")).await;
        }
        for statement in sql.split("; ") {
            assert!(self.run(statement).await > 0, "{statement} touches nothing");
        }
        let report = verify(&self.store, &[self.checkpoint]).await;
        for table in ["audit", "audit_seals"] {
            self.run(&format!("delete from {table}")).await;
            self.run(&format!("insert into {table} select * from kept_{table}")).await;
            self.run(&format!("drop table kept_{table}")).await;
        }
        assert!(verify(&self.store, &[self.checkpoint]).await.is_sound(), "it was undone");
        report
    }

    async fn run(&self, sql: &str) -> u64 {
        run(&self.store, sql).await
    }
}

async fn run(store: &Store, sql: &str) -> u64 {
    let mut tx = store.begin().await.unwrap();
    let touched = tx.sql(sql).await.unwrap();
    tx.commit().await.unwrap();
    touched
}

async fn sealed(world: &World) -> Sealed {
    let store = world.open("a").await;
    for _ in 0..3 {
        write(&store, world, 3).await;
        assert_eq!(seal(&store, 10).await, 3);
    }
    let seal = store.read().await.unwrap().last_seal().await.unwrap().unwrap();
    Sealed { store, checkpoint: Checkpoint::from(&seal) }
}

/// How many rows were sealed, all of which could be read.
async fn seal(store: &Store, most: i64) -> usize {
    let sealed = store.seal_audit(most).await.unwrap();
    assert_eq!(sealed.unreadable, []);
    sealed.rows
}

/// So many rows in one transaction.
pub(super) async fn write(store: &Store, world: &World, n: i64) {
    let mut tx = store.begin().await.unwrap();
    for i in 0..n {
        tx.audit(&row(world, i)).await.unwrap();
    }
    tx.commit().await.unwrap();
}

fn row(world: &World, n: i64) -> NewAudit {
    NewAudit {
        at: world.now(),
        actor: "principal:ann".to_owned(),
        action: "approve".to_owned(),
        object: format!("run:{n}"),
        decision: AuditDecision::Allowed,
        reason: "quorum".to_owned(),
        detail: json!({ "n": n, "share": 0.1 }),
    }
}

fn keys() -> AuditKeys {
    AuditKeys::new(vec![vec![7; 32].into()]).unwrap()
}

async fn verify(store: &Store, seen: &[Checkpoint]) -> Report {
    store.verify_audit(Verifier::new(Some(keys()), seen.iter().copied()), |_| ()).await.unwrap()
}

fn places(report: &Report, kind: FaultKind) -> Vec<Option<i64>> {
    report.faults.iter().filter(|fault| fault.kind == kind).map(|fault| fault.seq).collect()
}
