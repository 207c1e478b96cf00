//! What is printed in one replica is seen in another that asks for it, and only there, at a bounded rate.

use std::time::{Duration, Instant};

use domain::id::RunId;
use domain::printed::{Printed, Source};
use domain::redact::Redactor;
use harness::eventually;
use sqlx::postgres::PgListener;

use super::World;
use crate::{Backend, Change, Printer, Store, Watched, relay};

const SOON: Duration = Duration::from_secs(30);
const SECRET: &str = "Tr0ub4dor&3-correct-horse";

fn print(store: &Store, watched: Watched, printer: Printer, offset: usize, text: &str) {
    let piece = Printed { source: Source::Stdout, offset: offset as u64, oldest: false, bytes: text.as_bytes().to_vec() };
    store.show_printed(watched, printer, &piece, &Redactor::new([SECRET]).unwrap());
}

/// What is seen of the first step; asks for it.
fn seen(store: &Store, run: RunId) -> (String, u64) {
    let all = store.printed(run);
    all.first().map(|seen| (seen.shown[0].text.clone(), seen.shown[0].lines)).unwrap_or_default()
}

async fn sees(store: &Store, run: RunId, text: &str, lines: u64) {
    let looked = eventually(SOON, async || {
        let seen = seen(store, run);
        anyhow::ensure!(seen == (text.to_owned(), lines), "{seen:?}");
        Ok(())
    });
    looked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_in_one_replica_is_seen_in_another_that_asks() {
    let world = World::new(Backend::Postgres).await;
    let [a, b, c] = [world.open("a").await, world.open("b").await, world.open("c").await];
    let run = RunId::new(world.now());
    let [first, second] = [0, 1].map(|index| Watched { run, index, attempt: 1 });
    print(&a, first, Printer::Here, 0, "one\n");
    let mut hints = b.changes();
    sees(&b, run, "one\n", 1).await;
    while hints.recv().await.unwrap() != Change::Printed(run) {}
    // In two pieces, so that nobody but the whole can know it.
    print(&a, first, Printer::Here, 4, &SECRET[..9]);
    print(&a, first, Printer::Here, 13, &format!("{}\n\"three\"\n", &SECRET[9..]));
    sees(&b, run, "one\n[redacted]\n\"three\"\n", 3).await;
    while hints.recv().await.unwrap() != Change::Printed(run) {}
    // Who did not ask was not told; who asks later hears all that is there.
    assert_eq!(seen(&c, run), Default::default());
    sees(&c, run, "one\n[redacted]\n\"three\"\n", 3).await;
    // Agents are heard by everybody: nobody passes them on.
    print(&a, second, Printer::Agent, 0, "by an agent\n");
    let length = 4 + SECRET.len() + 9;
    print(&a, first, Printer::Here, length, "four\n");
    sees(&b, run, "one\n[redacted]\n\"three\"\nfour\n", 4).await;
    assert_eq!(b.printed(run).len(), 1);
    // What is printed in front of us needs no telling.
    print(&b, second, Printer::Here, 0, "here\n");
    assert_eq!(b.printed(run)[1].shown[0].text, "here\n");
    // That was all.
    sees(&c, run, "one\n[redacted]\n\"three\"\nfour\n", 4).await;
    let both = eventually(SOON, async || {
        anyhow::ensure!(c.printed(run).len() == 2);
        Ok(())
    });
    both.await.unwrap();
    // Another start of the one that prints begins anew, and is asked without anybody looking.
    a.close().await;
    drop(a);
    world.clock.advance(jiff::SignedDuration::from_secs(1));
    let again = world.open("a").await;
    let mut hints = c.changes();
    print(&again, first, Printer::Here, 0, "anew\n");
    let hinted = async { while !matches!(hints.recv().await, Ok(Change::Printed(_))) {} };
    tokio::time::timeout(SOON, hinted).await.unwrap();
    assert_eq!(seen(&c, run), ("anew\n".to_owned(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_told_at_a_bounded_rate_and_ends_with_the_newest() {
    let world = World::new(Backend::Postgres).await;
    let [a, b] = [world.open("a").await, world.open("b").await];
    let mut ear = PgListener::connect(&world.options("x").url).await.unwrap();
    ear.listen(relay::CHANNEL).await.unwrap();
    let run = RunId::new(world.now());
    let watched = Watched { run, index: 0, attempt: 1 };
    print(&a, watched, Printer::Here, 0, "begin\n");
    sees(&b, run, "begin\n", 1).await;
    let counted = tokio::spawn(async move {
        let (mut bytes, mut longest) = (0, 0);
        while let Ok(Ok(told)) = tokio::time::timeout(Duration::from_secs(3), ear.recv()).await {
            bytes += told.payload().len();
            longest = longest.max(told.payload().len());
        }
        (bytes, longest)
    });
    let (began, mut offset, mut lines) = (Instant::now(), 6, 1);
    let line = format!("{}\n", "\"".repeat(99));
    while began.elapsed() < Duration::from_secs(4) {
        let many = line.repeat(1000);
        print(&a, watched, Printer::Here, offset, &many);
        offset += many.len();
        lines += 1000;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    print(&a, watched, Printer::Here, offset, "last\n");
    eventually(SOON, async || {
        let (text, count) = seen(&b, run);
        anyhow::ensure!(text.ends_with("\"\nlast\n") && count == lines + 1, "{count} of {lines} lines");
        anyhow::ensure!(text.lines().all(|line| line.len() == 99 || line == "last"), "a line is cut");
        Ok(())
    })
    .await
    .unwrap();
    let (bytes, longest) = counted.await.unwrap();
    // Ten words of 6 KB in half a second.
    let most = (began.elapsed().as_secs() as usize * 2 + 3) * 10 * 6_500;
    println!("{offset} bytes were printed, and {bytes} told");
    assert!(offset > 2 * most && longest < 8_000, "{offset} bytes, {longest} in one word");
    assert!(bytes < most, "{bytes} bytes were told of {offset}");
}
