//! What is SQLite's alone: its files, its plans and its log.

use std::sync::Arc;
use std::time::Duration;

use domain::event::Status::Firing;
use domain::inbox::Inbox;
use sqlx::Connection;

use super::World;
use super::make::{delivery, sighting};
use crate::{Backend, Error, Options, Store};

#[tokio::test]
async fn a_second_process_on_the_file_is_refused() {
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    let error = Store::open(world.options("b")).await.unwrap_err();
    assert!(matches!(&error, Error::Config(why) if why.contains("another Watchkeeper")), "{error}");
    drop(store);
    world.open("b").await;
}

#[tokio::test]
async fn sqlites_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    store.accept(delivery("am", vec![sighting("x", Firing, world.now())], world.now())).await.unwrap();
    let path = world.options("a").url.strip_prefix("sqlite:").unwrap().to_owned();
    for file in ["", "-wal", "-shm", ".lock"] {
        let mode = std::fs::metadata(format!("{path}{file}")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

/// What is done for every event must not grow with what is stored.
#[tokio::test]
async fn sqlite_finds_alerts_and_incidents_by_index() {
    let world = World::new(Backend::Sqlite).await;
    drop(world.open("a").await);
    let mut conn = connect(&world).await;
    for [before, after] in [crate::alerts::FIND, crate::incidents::FIND] {
        let steps = plan(&mut conn, &format!("{before}values ('a', 'b'), ('c', 'd'){after}")).await;
        assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN a") || step.starts_with("SCAN i")), "{steps:?}");
    }
}

/// What is looked at again and again must not grow with what is over: it is found by the indexes of what is not, in their order.
#[tokio::test]
async fn sqlite_finds_what_is_open_or_under_way_by_index() {
    let world = World::new(Backend::Sqlite).await;
    drop(world.open("a").await);
    let mut conn = connect(&world).await;
    assert_eq!(plan(&mut conn, &crate::attempts::unfinished()).await[0], "SCAN a USING INDEX attempts_unfinished");
    assert_eq!(plan(&mut conn, &crate::incidents::list(true)).await, ["SEARCH incidents USING INDEX incidents_open_number (number<?)"]);
    assert_eq!(plan(&mut conn, &crate::runs::list(true)).await, ["SCAN runs USING INDEX runs_active_id"]);
    let of_unknown = plan(&mut conn, &crate::depths::unknown()).await;
    assert!(
        of_unknown[0].starts_with("SCAN r USING INDEX runs_active") && of_unknown[1].starts_with("SEARCH a USING INDEX"),
        "{of_unknown:?}"
    );
}

async fn plan(conn: &mut sqlx::SqliteConnection, sql: &str) -> Vec<String> {
    let sql = format!("explain query plan {sql}");
    let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await.unwrap();
    steps.into_iter().map(|step| step.3).collect()
}

/// The log has its length before anything is written to it, and what is behind the last commit in it is nothing to who opens it after a crash.
#[tokio::test]
async fn sqlites_log_has_its_length_from_the_start() {
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    let path = world.options("a").url.strip_prefix("sqlite:").unwrap().to_owned();
    let length = || std::fs::metadata(format!("{path}-wal")).unwrap().len();
    let begun = length();
    assert!(begun >= 6 << 20, "{begun} bytes");
    for n in 0..20 {
        store.accept(delivery("am", vec![sighting(&n.to_string(), Firing, world.now())], world.now())).await.unwrap();
    }
    assert_eq!(length(), begun);
    let crashed = World::new(Backend::Sqlite).await;
    let copy = crashed.options("a").url.strip_prefix("sqlite:").unwrap().to_owned();
    for file in ["", "-wal"] {
        std::fs::copy(format!("{path}{file}"), format!("{copy}{file}")).unwrap();
    }
    let store = crashed.open("a").await;
    assert_eq!(store.read().await.unwrap().events_since(0, 100).await.unwrap().len(), 20);
}

/// The log is moved beside the writer and begins anew: it does not grow with what was ever written.
#[tokio::test]
async fn sqlites_log_stays_short() {
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    let send = async |n: usize, size: usize| {
        let mut delivery = delivery("am", vec![sighting(&n.to_string(), Firing, world.now())], world.now());
        delivery.raw = vec![b'x'; size].into();
        store.accept(delivery).await.unwrap();
    };
    for n in 0..24 {
        send(n, 1 << 20).await;
    }
    let mut conn = connect(&world).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    for n in 24.. {
        let (_, pages, _): (i64, i64, i64) = sqlx::query_as("pragma wal_checkpoint(noop)").fetch_one(&mut conn).await.unwrap();
        if pages < 1_000 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{pages} pages");
        tokio::time::sleep(Duration::from_millis(50)).await;
        send(n, 1).await;
    }
}

/// The log begins anew, too, when there is no moment in which nobody writes, and long before the writer has to see to it.
#[tokio::test]
async fn sqlites_log_stays_short_while_somebody_always_writes() {
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    let log = format!("{}-wal", world.options("a").url.strip_prefix("sqlite:").unwrap());
    let mut longest = 0;
    for n in 0..2_500 {
        let mut delivery = delivery("am", vec![sighting(&n.to_string(), Firing, world.now())], world.now());
        delivery.raw = vec![b'x'; 1 << 16].into();
        store.accept(delivery).await.unwrap();
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    assert!(longest >> 20 < 120, "{} MB", longest >> 20);
}

async fn connect(world: &World) -> sqlx::SqliteConnection {
    let url = world.options("a").url;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(url.strip_prefix("sqlite:").unwrap());
    sqlx::SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn a_store_in_memory_forgets() {
    let world = World::new(Backend::Sqlite).await;
    let options = Options { url: "sqlite::memory:".to_owned(), ..world.options("a") };
    let store = Store::open(options.clone()).await.unwrap();
    assert!(store.durability().contains("nothing survives"));
    store.accept(delivery("am", vec![sighting("x", Firing, world.now())], world.now())).await.unwrap();
    let other = Store::open(options).await.unwrap();
    assert!(other.read().await.unwrap().events_since(0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_bad_address_says_what_to_do() {
    let world = World::new(Backend::Sqlite).await;
    for (url, what) in [
        ("mysql://x", "sqlite: or postgres://"),
        ("sqlite:/nowhere/at/all/x.db", "the store's folder must exist"),
        ("postgres://[", "no PostgreSQL address"),
    ] {
        let error = Store::open(Options { url: url.to_owned(), ..world.options("a") }).await.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    let nobody = Options { url: format!("postgres://x@127.0.0.1:{}/x", harness::free_port()), ..world.options("a") };
    assert!(matches!(Store::open(nobody).await, Err(Error::Unavailable(_))));
}

/// While the server is away senders hear so within a second; when it is back everything goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_may_go_away_and_come_back() {
    let world = World::new(Backend::Sqlite).await;
    let mut server = harness::peers::Postgres::start().await.unwrap();
    let url = server.create_database().await.unwrap();
    let store = Store::open(Options { url, clock: Arc::new(world.clock.clone()), ..world.options("a") }).await.unwrap();
    let send = async |name: &str| store.accept(delivery("am", vec![sighting(name, Firing, world.now())], world.now())).await;
    send("before").await.unwrap();
    server.stop(harness::peers::Stop::Immediate).await.unwrap();
    for name in ["first", "second"] {
        let begun = std::time::Instant::now();
        assert!(send(name).await.is_err());
        assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    }
    assert!(store.ping().await.is_err());
    server.resume().await.unwrap();
    harness::eventually(Duration::from_secs(10), async || send("after").await.map_err(anyhow::Error::from)).await.unwrap();
    assert_eq!(store.read().await.unwrap().events_since(0, 10).await.unwrap().len(), 2);
}
