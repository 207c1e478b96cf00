//! Opening, transactions, and migrations over data.

use std::time::Duration;

use domain::audit::{AuditKeys, Verifier};
use domain::event::Status::Firing;
use domain::inbox::Inbox;
use sqlx::{Connection, Executor};

use super::make::{delivery, sighting};
use super::{migrate_further, on_both};
use crate::{Backend, Error, IncidentFilter, RunFilter, Store, schema};

on_both! {
    async fn what_was_accepted_is_there_after_a_restart(world) {
        let store = world.open("a").await;
        assert!(store.durability().contains("survives kill -9 and power loss"), "{}", store.durability());
        store.ping().await.unwrap();
        store.accept(delivery("am", vec![sighting("x", Firing, world.now())], world.now())).await.unwrap();
        store.close().await;
        assert!(store.accept(delivery("am", vec![sighting("y", Firing, world.now())], world.now())).await.is_err());
        assert!(store.read().await.is_err() && store.begin().await.is_err() && store.ping().await.is_err());
        drop(store);
        let store = world.open("a").await;
        assert_eq!(store.read().await.unwrap().events_since(0, 10).await.unwrap().len(), 1);
    }

    async fn a_reader_sees_one_picture_and_cannot_write(world) {
        let store = world.open("a").await;
        let mut before = store.read().await.unwrap();
        assert_eq!(before.flag("k").await.unwrap(), None);
        let mut tx = store.begin().await.unwrap();
        tx.set_flag("k", &1.into()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(before.flag("k").await.unwrap(), None);
        let mut after = store.read().await.unwrap();
        assert_eq!(after.flag("k").await.unwrap(), Some(1.into()));
        assert!(after.set_flag("k", &2.into()).await.is_err());
    }

    async fn writers_of_one_row_wait_for_each_other(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        tx.set_flag("n", &0.into()).await.unwrap();
        tx.commit().await.unwrap();
        let mut writers = Vec::new();
        for _ in 0..20 {
            let store = store.clone();
            writers.push(tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let lock = format!("select cast(value as bigint) from flags where key = 'n'{}", tx.lock(" for update"));
                let n = tx.number(Box::leak(lock.into_boxed_str())).await.unwrap();
                tx.set_flag("n", &(n + 1).into()).await.unwrap();
                tx.commit().await.unwrap();
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(store.read().await.unwrap().flag("n").await.unwrap(), Some(20.into()));
    }

    async fn a_writer_that_goes_away_in_the_middle_leaves_nothing_and_blocks_nobody(world) {
        let store = world.open("a").await;
        for n in 0..10_u64 {
            let mut tx = store.begin().await.unwrap();
            tx.set_flag("half", &true.into()).await.unwrap();
            // Cut off at another place each time.
            // What is only written may wait; what is read does not.
            let work = async { while tx.set_flag("half", &n.into()).await.is_ok() && tx.flag("half").await.is_ok() {} };
            let _ = tokio::time::timeout(Duration::from_millis(n), work).await;
        }
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tx.flag("half").await.unwrap(), None);
        tx.set_flag("whole", &true.into()).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn what_failed_is_not_called_stored_whoever_forgets_the_error(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        tx.set_flag("before", &1.into()).await.unwrap();
        assert!(tx.sql("insert into no_such_table (a) values (1)").await.is_err());
        let after = tx.set_flag("after", &1.into()).await;
        let stored = tx.commit().await;
        if store.backend() == Backend::Postgres {
            assert!(matches!((&after, &stored), (Err(Error::Retry), Err(Error::Retry))), "{after:?}, {stored:?}");
        }
        let mut look = store.read().await.unwrap();
        let there = look.flag("before").await.unwrap().is_some() && look.flag("after").await.unwrap().is_some();
        assert_eq!(there, stored.is_ok());
        drop(look);
        let mut tx = store.begin().await.unwrap();
        assert!(tx.sql("insert into no_such_table (a) values (1)").await.is_err());
        tx.rollback().await.unwrap();
    }

    async fn a_row_that_cannot_be_read_is_named(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        tx.sql("insert into flags (key, value) values ('bent', '{')").await.unwrap();
        let error = tx.flag("bent").await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { table: "flags", id, .. } if id == "bent"), "{error}");
    }

    async fn every_migration_keeps_the_data_before_it(world) {
        let url = world.options("a").url;
        let backend = if url.starts_with("sqlite") { Backend::Sqlite } else { Backend::Postgres };
        for (number, fixture) in FIXTURES {
            match backend {
                Backend::Sqlite => {
                    let options = url.strip_prefix("sqlite:").unwrap();
                    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(options).create_if_missing(true);
                    let mut conn = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                    schema::migrator(backend).run_to(*number, &mut conn).await.unwrap();
                    conn.execute(sqlx::AssertSqlSafe(*fixture)).await.unwrap();
                    if *number == 18 {
                        // Numbers that were given to incidents which are gone.
                        conn.execute("update numbers set last = 150").await.unwrap();
                    }
                    conn.close().await.unwrap();
                }
                Backend::Postgres => {
                    let mut conn = sqlx::PgConnection::connect(&url).await.unwrap();
                    schema::migrator(backend).run_to(*number, &mut conn).await.unwrap();
                    // The one difference: how bytes are written.
                    conn.execute(sqlx::AssertSqlSafe(fixture.replace("x'", "'\\x"))).await.unwrap();
                    conn.close().await.unwrap();
                }
            }
        }
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        let events = tx.claim_events(10).await.unwrap();
        assert_eq!(events.iter().map(super::make::told).collect::<Vec<_>>(), ["fp1:firing"]);
        assert_eq!(tx.dead_letters(10).await.unwrap().len(), 1);
        assert!(tx.outcome(2).await.unwrap().is_some());
        let incidents = tx.incidents(&IncidentFilter { limit: 10, ..IncidentFilter::default() }).await.unwrap();
        assert_eq!(incidents.iter().map(|i| i.number).collect::<Vec<_>>(), [142, 141]);
        let open = tx.incidents(&IncidentFilter { open_only: true, limit: 10, ..IncidentFilter::default() }).await.unwrap();
        assert_eq!(open, incidents[..1]);
        if backend == Backend::Sqlite {
            assert_eq!(tx.next_incident_number().await.unwrap(), 151, "no number is given out twice");
        }
        let gathers = tx.latest_incidents(&[("am".to_owned(), "web".to_owned())]).await.unwrap();
        assert_eq!(gathers.values().map(|i| i.number).collect::<Vec<_>>(), [142]);
        assert_eq!(tx.incident_alerts(incidents[0].id, 10).await.unwrap().len(), 1);
        assert_eq!(tx.timeline(incidents[0].id, 10).await.unwrap().len(), 1);
        let runs = tx.active_runs().await.unwrap();
        assert_eq!(tx.runs(&RunFilter { active_only: true, limit: 10, ..RunFilter::default() }).await.unwrap(), runs);
        assert_eq!(tx.runs(&RunFilter { limit: 10, ..RunFilter::default() }).await.unwrap().len(), runs.len() + 1);
        assert_eq!(tx.attempts(runs[0].id).await.unwrap().len(), 1);
        assert_eq!(tx.approval_of(runs[0].id).await.unwrap().unwrap().run, runs[0].id);
        assert_eq!(tx.locked_targets().await.unwrap()[0].1, runs[0].id);
        assert_eq!(tx.cards_of(incidents[0].id).await.unwrap().len(), 1);
        assert_eq!((tx.heartbeats().await.unwrap().len(), tx.samples("am").await.unwrap().len()), (1, 1));
        assert!(tx.flag("paused").await.unwrap().is_some() && tx.rule_set("d1").await.unwrap().is_some());
        let audit = tx.audit_rows(0, 10).await.unwrap();
        assert!(store.audit_intact(audit[0].as_ref().unwrap()).unwrap(), "written by the first version, under the key of these tests");
        let (links, seals) = (tx.audit_links((0, 0), 10).await.unwrap(), tx.audit_seals(0, 10).await.unwrap());
        let mut verifier = Verifier::new(Some(AuditKeys::new(vec![vec![7; 32].into()]).unwrap()), []);
        links.iter().for_each(|link| verifier.link(link));
        seals.iter().for_each(|seal| verifier.seal(seal));
        assert_eq!((links.len(), verifier.end().faults), (1, vec![]), "sealed by the version of migration 10");
        assert_eq!(tx.audit_cut().await.unwrap().map(|cut| (cut.batch, cut.rows)), Some((1, 1)));
        assert_eq!((tx.tokens().await.unwrap().len(), tx.password("ann").await.unwrap().is_some()), (1, true));
        assert!(tx.agent_report("019ca945-0a00-7b1f-8d5e-3f7c9a2b1e02-0-1").await.unwrap().is_some());
        assert_eq!(tx.unpublished(3, 10).await.unwrap()[0].1.kind, "incident.opened");
        let bodies = "select cast(1000 * count(*) + sum(packed_from) as bigint) from deliveries where length(raw) > 0";
        assert_eq!(tx.number(bodies).await.unwrap(), 2082, "one as it came, one that was packed");
        tx.commit().await.unwrap();
        let lease = jiff::SignedDuration::from_secs(1);
        assert_eq!(store.claim_jobs(10, lease).await.unwrap().len(), 1);
        assert_eq!(store.take_lease("discord.gateway", lease).await.unwrap(), Some(4));
    }

    async fn a_database_is_looked_at_beside_whoever_uses_it(world) {
        let url = world.options("a").url;
        let before = crate::inspect(&url).await.unwrap();
        assert_eq!((before.schema, before.absent), (None, before.backend == Backend::Sqlite));
        let store = world.open("a").await;
        let found = crate::inspect(&url).await.unwrap();
        assert_eq!((found.schema, found.absent), (Some(found.newest), false));
        match found.backend {
            Backend::Sqlite => assert_eq!(found.setting("journal_mode"), "wal"),
            Backend::Postgres => assert!(found.clock.is_some() && ["on", "off"].contains(&found.setting("fsync"))),
        }
        store.ping().await.unwrap();
    }

    async fn a_database_of_a_newer_version_is_refused(world) {
        let store = world.open("a").await;
        migrate_further(&store).await;
        store.close().await;
        drop(store);
        let error = Store::open(world.options("a")).await.unwrap_err();
        assert!(matches!(&error, Error::Config(why) if why.contains("newer Watchkeeper")), "{error}");
    }
}

const FIXTURES: &[(i64, &str)] = &[
    (1, include_str!("../../fixtures/0001_inbox.sql")),
    (2, include_str!("../../fixtures/0002_incidents.sql")),
    (3, include_str!("../../fixtures/0003_runs.sql")),
    (4, include_str!("../../fixtures/0004_jobs.sql")),
    (5, include_str!("../../fixtures/0005_chat.sql")),
    (6, include_str!("../../fixtures/0006_upkeep.sql")),
    (7, include_str!("../../fixtures/0007_audit.sql")),
    (8, include_str!("../../fixtures/0008_signin.sql")),
    (9, include_str!("../../fixtures/0009_fences.sql")),
    (10, include_str!("../../fixtures/0010_seals.sql")),
    (11, include_str!("../../fixtures/0011_replicas.sql")),
    (12, include_str!("../../fixtures/0012_lifecycle.sql")),
    (13, include_str!("../../fixtures/0013_agents.sql")),
    (14, include_str!("../../fixtures/0014_retention.sql")),
    (15, include_str!("../../fixtures/0015_audit_cut.sql")),
    (16, include_str!("../../fixtures/0016_unopened.sql")),
    (17, include_str!("../../fixtures/0017_packed.sql")),
    (18, include_str!("../../fixtures/0018_listed.sql")),
    (19, include_str!("../../fixtures/0019_fewer_pages.sql")),
];

#[test]
fn every_migration_has_a_fixture() {
    let migrations: Vec<i64> = schema::migrator(Backend::Sqlite).iter().map(|m| m.version).collect();
    assert_eq!(migrations, FIXTURES.iter().map(|(number, _)| *number).collect::<Vec<_>>());
}
