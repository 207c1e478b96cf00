//! Several processes over one PostgreSQL: leases, words to each other, the shared clock, and versions that differ.

use std::sync::Arc;
use std::time::Duration;

use domain::event::Status::Firing;
use domain::id::StartId;
use domain::inbox::Inbox;
use domain::time::SystemClock;
use jiff::SignedDuration;

use super::make::{delivery, job, sighting};
use super::{World, migrate_further};
use crate::{Backend, Change, Error, Options, Store};

const LEASE: SignedDuration = SignedDuration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_one_holder_and_its_number_rises() {
    let world = World::new(Backend::Postgres).await;
    let [a, b] = [world.open("a").await, world.open("b").await];
    assert_eq!(a.take_lease("socket", LEASE).await.unwrap(), Some(1));
    assert_eq!((b.take_lease("socket", LEASE).await.unwrap(), b.take_lease("other", LEASE).await.unwrap()), (None, Some(1)));
    world.clock.advance(SignedDuration::from_secs(10));
    assert_eq!(a.take_lease("socket", LEASE).await.unwrap(), Some(1), "renewed");
    world.clock.advance(SignedDuration::from_secs(10));
    assert_eq!(b.take_lease("socket", LEASE).await.unwrap(), None);
    world.clock.advance(SignedDuration::from_secs(10));
    assert_eq!(b.take_lease("socket", LEASE).await.unwrap(), Some(2), "lapsed");
    assert_eq!(a.take_lease("socket", LEASE).await.unwrap(), None);
    a.release_lease("socket").await.unwrap();
    assert_eq!(a.take_lease("socket", LEASE).await.unwrap(), None, "what is not ours is not given back");
    b.release_lease("socket").await.unwrap();
    assert_eq!(a.take_lease("socket", LEASE).await.unwrap(), Some(3), "given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_commits_the_others_hear() {
    let world = World::new(Backend::Postgres).await;
    let [a, b] = [world.open("a").await, world.open("b").await];
    let mut heard = b.changes();
    let mut own = a.changes();
    a.accept(delivery("am", vec![sighting("x", Firing, world.now())], world.now())).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await.unwrap().unwrap();
    assert_eq!((told, own.recv().await.unwrap()), (Change::Events, Change::Events));
    let mut tx = b.begin().await.unwrap();
    tx.enqueue(&[job("card", "k", world.now())]).await.unwrap();
    tx.commit().await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), own.recv()).await.unwrap().unwrap();
    assert_eq!(told, Change::Jobs, "and not its own word once more");
}

/// The server may hold a lost connection for alive, and our name with it: it is ours again as soon as that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_was_still_taken_after_a_break_is_taken_later() {
    let world = World::new(Backend::Postgres).await;
    let store = world.open("a").await;
    let holders = "select pid from pg_locks where locktype = 'advisory' and granted and \
                   database = (select oid from pg_database where datname = current_database())";
    let other: sqlx::PgPool = crate::open::pool().max_connections(1).connect(&world.options("x").url).await.unwrap();
    let (ours,): (i32,) = sqlx::query_as(holders).fetch_one(&other).await.unwrap();
    let (me,): (i32,) = sqlx::query_as("select pg_backend_pid()").fetch_one(&other).await.unwrap();
    let mut changes = store.changes();
    // In one statement, so that the name is never free.
    let swap = "select pg_terminate_backend($1), pg_advisory_lock(hashtextextended('watchkeeper/instance/a', 0))";
    sqlx::query(swap).bind(ours).execute(&other).await.unwrap();
    while changes.recv().await.unwrap() != Change::Missed {}
    let (holder,): (i32,) = sqlx::query_as(holders).fetch_one(&other).await.unwrap();
    assert_eq!(holder, me, "it listens again, and the name is not ours");
    sqlx::query("select pg_advisory_unlock_all()").execute(&other).await.unwrap();
    let taken = harness::eventually(Duration::from_secs(20), async || {
        let found: Option<(i32,)> = sqlx::query_as(holders).fetch_optional(&other).await?;
        anyhow::ensure!(found.is_some(), "nobody has the name");
        Ok(())
    });
    taken.await.unwrap();
}

/// After a newer version has changed the tables an older one takes deliveries, says that it is not ready, and decides nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_an_older_version_decides_nothing_any_more() {
    let world = World::new(Backend::Postgres).await;
    let store = world.open("a").await;
    migrate_further(&store).await;
    harness::eventually(Duration::from_secs(20), async || {
        anyhow::ensure!(store.ping().await.is_err(), "it still says that all is well");
        Ok(())
    })
    .await
    .unwrap();
    assert!(matches!(store.begin().await, Err(Error::Unavailable(why)) if why.contains("newer Watchkeeper")));
    store.accept(delivery("am", vec![sighting("x", Firing, world.now())], world.now())).await.unwrap();
}

/// The machine's clock says nothing: what counts is the server's, wherever it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_is_the_servers() {
    let server = harness::peers::Postgres::start().await.unwrap();
    let url = server.create_database().await.unwrap();
    let hour = SignedDuration::from_hours(1);
    server.turn_clock(Duration::from_secs(3_600)).await.unwrap();
    let world = World::new(Backend::Sqlite).await;
    let options = Options { url, clock: Arc::new(SystemClock), start: StartId::new(world.now()), ..world.options("a") };
    let store = Store::open(options).await.unwrap();
    let off = |store: &Store| {
        use domain::time::Clock;
        store.clock().now().duration_since(SystemClock.now())
    };
    assert!((off(&store) - hour).abs() < SignedDuration::from_secs(5), "{}", off(&store));
    server.turn_clock(Duration::from_secs(7_200)).await.unwrap();
    harness::eventually(Duration::from_secs(20), async || {
        anyhow::ensure!((off(&store) - hour * 2).abs() < SignedDuration::from_secs(5), "{}", off(&store));
        Ok(())
    })
    .await
    .unwrap();
}
