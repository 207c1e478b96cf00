//! Backups of SQLite: nobody else reads them, and nothing of the store that was there gets into the one that takes its place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::event::Status::Firing;
use domain::inbox::Inbox;
use domain::run::RunState;

use super::World;
use super::make::{delivery, run, sighting};
use crate::{Backend, Store, backup};

async fn fill(store: &Store, world: &World, names: &str, count: usize) {
    for n in 0..count {
        let events = (0..50).map(|m| sighting(&format!("{names}-{n}-{m}"), Firing, world.now())).collect();
        store.accept(delivery("am", events, world.now())).await.unwrap();
    }
}

async fn events(store: &Store) -> i64 {
    store.read().await.unwrap().count_aging(crate::Aging::Events).await.unwrap()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

/// Closes a store, down to its last connection: that one takes the log away.
async fn closed(store: Store, path: &Path) {
    store.close().await;
    drop(store);
    let gone = async || {
        anyhow::ensure!(!beside(path, "-wal").exists(), "its log is there");
        Ok(())
    };
    if harness::eventually(std::time::Duration::from_secs(5), gone).await.is_err() {
        // Two connections that close at one time take each other for the last. All of it was moved before.
        for end in ["-wal", "-shm"] {
            let _gone = fs::remove_file(beside(path, end));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_its_owners_alone_from_its_first_byte_on() {
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    fill(&store, &world, "x", 60).await;
    let file = world.dir().join("b.backup");
    let (part, done) = (beside(&file, ".part"), Arc::new(AtomicBool::new(false)));
    let over = Arc::clone(&done);
    let watch = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while !over.load(Ordering::SeqCst) {
            seen.extend(fs::metadata(&part).map(|meta| meta.permissions().mode() & 0o777).ok());
        }
        seen.dedup();
        seen
    });
    backup::create(&world.options("a").url, &file, world.now()).await.unwrap();
    done.store(true, Ordering::SeqCst);
    assert_eq!(watch.join().unwrap(), [0o600]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

/// As after `kill -9`, when only the database was moved away; or when a restore had moved that and was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_its_database_is_put_aside() {
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    fill(&store, &world, "before", 2).await;
    let file = world.dir().join("b.backup");
    backup::create(&world.options("a").url, &file, world.now()).await.unwrap();
    fill(&store, &world, "after", 20).await;
    let path = world.dir().join("store.db");
    let log = fs::read(beside(&path, "-wal")).unwrap();
    assert!(log.len() > 100_000, "{}", log.len());
    closed(store, &path).await;
    for moved in [true, false] {
        fs::write(beside(&path, "-wal"), &log).unwrap();
        if moved {
            fs::remove_file(&path).unwrap();
        }
        // Each takes the present second for its name.
        world.clock.advance(jiff::SignedDuration::from_secs(1));
        let (_, new, aside) = backup::restore(world.options("a"), &file, !moved, false).await.unwrap();
        let kept = aside.iter().find(|name| name.to_string_lossy().ends_with("-wal")).unwrap();
        assert_eq!(fs::read(kept).unwrap(), log);
        let store = world.open("a").await;
        assert_eq!((events(&store).await, store.read().await.unwrap().epoch().await.unwrap()), (100, new.epoch));
        closed(store, &path).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_tells_the_bus_where_somebody_listens() {
    for publish in [true, false] {
        let world = World::new(Backend::Sqlite).await;
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        for state in [RunState::Queued, RunState::Running] {
            tx.insert_run(&domain::run::Run { state, ..run(None, &["web"], world.now()) }).await.unwrap();
        }
        tx.commit().await.unwrap();
        let file = world.dir().join("b.backup");
        backup::create(&world.options("a").url, &file, world.now()).await.unwrap();
        store.close().await;
        drop(store);
        backup::restore(world.options("a"), &file, true, publish).await.unwrap();
        let store = world.open("a").await;
        let waiting = store.read().await.unwrap().count_unpublished().await.unwrap();
        assert_eq!(waiting, if publish { 2 } else { 0 });
    }
}
