//! Small transactions share a commit on SQLite: whoever is told "stored" is stored, whoever goes away in the middle leaves nothing, whoever waits is told.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::World;
use super::make::run;
use crate::tx::{exec, exec_rows};
use crate::{Backend, Error, Store};

async fn there(store: &Store, key: &str) -> bool {
    store.read().await.unwrap().flag(key).await.unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_all_stored_and_those_who_went_away_are_not() {
    let world = World::new(Backend::Sqlite).await;
    let store = Arc::new(world.open("one").await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..300 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut tx = store.begin().await.unwrap();
            tx.set_flag(&format!("k{n}"), &json!(n)).await.unwrap();
            match n % 7 {
                // Dropped in the middle.
                3 => drop(tx),
                // A statement fails, and the rest goes with it.
                5 => assert!(failing(&mut tx).await.is_err()),
                // One that waits for the commit fails: that is nobody else's.
                2 => {
                    failing_later(&mut tx).await.unwrap();
                    assert!(tx.commit().await.is_err(), "k{n}");
                }
                // What waits finds the row otherwise than it should: that is nobody else's either.
                6 => {
                    tx.put_run(&run(None, &[], jiff::Timestamp::UNIX_EPOCH), 1).await.unwrap();
                    assert!(matches!(tx.commit().await, Err(Error::Conflict)), "k{n}");
                }
                // Dropped with something that waits.
                4 => failing_later(&mut tx).await.unwrap(),
                _ => {
                    tx.commit().await.unwrap();
                    assert!(there(&store, &format!("k{n}")).await, "k{n} was told to be stored");
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    for n in 0..300 {
        assert_eq!(there(&store, &format!("k{n}")).await, matches!(n % 7, 0 | 1), "k{n}");
    }
}

async fn failing(tx: &mut crate::Tx) -> Result<(), Error> {
    exec!(tx, "insert into no_such_table (a) values (1)");
    Ok(())
}

async fn failing_later(tx: &mut crate::Tx) -> Result<(), Error> {
    exec_rows!(tx, "insert into no_such_table (a) ", [1], |b, n| b.push_bind(*n), "");
    Ok(())
}

/// The next one in line goes away without a commit: nobody is left waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_done_does_not_wait_for_others_for_ever() {
    let world = World::new(Backend::Sqlite).await;
    let store = Arc::new(world.open("one").await);
    for round in 0..20 {
        let mut first = store.begin().await.unwrap();
        first.set_flag(&format!("first{round}"), &json!(1)).await.unwrap();
        let second = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                let mut tx = store.begin().await.unwrap();
                tx.set_flag(&format!("second{round}"), &json!(1)).await.unwrap();
                drop(tx);
            }
        });
        tokio::time::sleep(Duration::from_millis(2)).await;
        tokio::time::timeout(Duration::from_secs(5), first.commit()).await.expect("it is told").unwrap();
        second.await.unwrap();
        assert!(there(&store, &format!("first{round}")).await && !there(&store, &format!("second{round}")).await);
    }
}

/// What was told before a close is there after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_loses_nothing_that_was_told() {
    let world = World::new(Backend::Sqlite).await;
    let store = Arc::new(world.open("one").await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut tx = store.begin().await.ok()?;
            tx.set_flag(&format!("k{n}"), &json!(n)).await.ok()?;
            tx.commit().await.ok()?;
            Some(n)
        });
    }
    tokio::time::sleep(Duration::from_millis(3)).await;
    store.close().await;
    let told: Vec<i32> = tasks.join_all().await.into_iter().flatten().collect();
    drop(store);
    let store = world.open("one").await;
    for n in told {
        assert!(there(&store, &format!("k{n}")).await, "k{n}");
    }
}
