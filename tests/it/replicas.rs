//! Several servers over one PostgreSQL: they wake each other, share the work and its parts, and hold what only one may hold.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::StreamExt;
use harness::eventually;
use harness::fake::discord::{Config, FakeDiscord};
use harness::peers::Postgres;
use harness::world::{Alert, Plan, SOON, World};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::crash::waiting_shims;

/// A replica of this name over this database. It supervises nothing: two on one machine would start the same service twice.
pub(crate) fn replica(name: &str, database: &str) -> anyhow::Result<Plan> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.postgres(database)?;
    plan.merge(json!({ "server": { "name": name, "drain": "2s" }, "targets": null }));
    Ok(plan)
}

/// What one replica takes in, another one decides, and the first one's pages show it, faster than anybody looks without being told.
#[tokio::test]
async fn a_decision_in_one_replica_is_seen_in_another_at_once() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let database = Postgres::shared().await?.create_database().await?;
    let mut gateway = replica("gateway", &database)?.args(&["--only", "gateway"]).start().await?;
    let mut worker = replica("worker", &database)?.args(&["--only", "worker"]).start().await?;
    let stream = gateway.http().get(format!("{}/api/v1/stream", gateway.url())).bearer_auth(gateway.token("ann").await?);
    let stream = stream.timeout(SOON * 2).send().await?.error_for_status()?;
    let mut told = Box::pin(stream.bytes_stream());
    let mut waits = Vec::new();
    for n in 0..20 {
        gateway.send(&[Alert::new(&format!("N{n}"))]).await?;
        let began = Instant::now();
        loop {
            let part = tokio::time::timeout(SOON, told.next()).await?.context("the stream ended")??;
            if part.windows(15).any(|window| window == b"event: incident") {
                break;
            }
        }
        waits.push(began.elapsed());
        // What else the decision told, so that it is not taken for the next one's.
        while tokio::time::timeout(Duration::from_millis(150), told.next()).await.is_ok() {}
    }
    waits.sort();
    // Without a word it would be half a second's polling, 250 ms at the median.
    ensure!(waits[10] < Duration::from_millis(200), "{waits:?}");

    // Who runs no commands keeps no process for them.
    let [of_worker, of_gateway] = [worker.proc()?.pid(), gateway.proc()?.pid()];
    eventually(SOON, async || {
        let found = waiting_shims(of_worker)?;
        ensure!(found.len() == 1, "the worker has {found:?}");
        Ok(())
    })
    .await?;
    assert_eq!(waiting_shims(of_gateway)?, [0; 0]);

    // Each serves its part and nothing else.
    let status =
        async |world: &World, path: &str| anyhow::Ok(world.http().get(format!("{}{path}", world.url())).send().await?.status().as_u16());
    for world in [&gateway, &worker] {
        assert_eq!((status(world, "/livez").await?, status(world, "/readyz").await?, status(world, "/metrics").await?), (200, 200, 200));
    }
    assert_eq!((status(&gateway, "/login").await?, status(&worker, "/login").await?), (200, 404));
    assert_eq!(worker.post("{}").await?.status.as_u16(), 404);
    drop(worker);
    gateway.send(&[Alert::new("Undecided")]).await?;
    // Time in which it could decide.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gateway.incidents().await?.len(), 20, "a gateway decides nothing");
    Ok(())
}

#[tokio::test]
async fn parts_that_cannot_be_done_alone_are_refused_with_a_word() -> anyhow::Result<()> {
    let database = Postgres::shared().await?.create_database().await?;
    let refused = async |plan: Plan, only: &str, word: &str| {
        plan.write()?;
        let serve = plan.command().args(["serve", "--config"]).arg(plan.config_dir()).args(["--only", only]);
        let done = serve.run(SOON).await?;
        ensure!(!done.status.success() && done.stderr.contains(word), "--only {only}: {}", done.stderr);
        Ok(())
    };
    refused(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?, "worker", "--only needs PostgreSQL").await?;
    refused(replica("a", &database)?, "bot", "discord.gateway").await?;
    refused(replica("a", &database)?, "gateway,cook", "possible values: gateway, worker, bot").await
}

/// One replica holds Discord's socket. When it is killed another one takes it within the lease; when it is stopped, at once. That it is held for longer
/// than a lease is shown in `claims/`.
#[tokio::test]
async fn one_replica_at_a_time_holds_discords_socket() -> anyhow::Result<()> {
    let postgres = Postgres::shared().await?;
    let database = postgres.create_database().await?;
    let discord = FakeDiscord::start(Config::default()).await?;
    let (mut a, mut b) = (
        replica("a", &database)?.discord(&discord, true)?.start().await?,
        replica("b", &database)?.discord(&discord, true)?.start().await?,
    );
    let holder = async |within: Duration, not: &str| {
        eventually(within, async || {
            let lease =
                postgres.psql(&database, "select instance, n from leases where name = 'discord.gateway' and lease_until > 0").await?;
            let (name, number) = lease.split_once('|').context("nobody holds it")?;
            ensure!(name != not && discord.sessions() == 1, "{lease}: {} sessions", discord.sessions());
            Ok((name.to_owned(), number.parse::<i64>()?))
        })
        .await
    };
    let (first, number) = holder(SOON, "").await?;
    let (one, other) = if first == "a" { (&mut a, &mut b) } else { (&mut b, &mut a) };
    one.kill9()?;
    let began = Instant::now();
    let (second, next) = holder(SOON, &first).await?;
    ensure!(next == number + 1 && began.elapsed() < Duration::from_secs(45), "after {:?}", began.elapsed());
    one.start().await?;
    other.stop().await?;
    let began = Instant::now();
    holder(SOON, &second).await?;
    ensure!(began.elapsed() < Duration::from_secs(12), "given back, and taken only after {:?}", began.elapsed());
    Ok(())
}

/// An address for signs of life, and when each came there.
pub(crate) async fn signs_of_life() -> anyhow::Result<(String, UnboundedReceiver<Instant>)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/beat", listener.local_addr()?);
    let (heard, beats) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            if matches!(stream.read(&mut request).await, Ok(1..)) {
                let _ = heard.send(Instant::now());
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            }
        }
    });
    Ok((url, beats))
}

/// The sign of life is sent as often as is said, however many replicas there are.
#[tokio::test]
async fn what_is_due_is_done_by_one() -> anyhow::Result<()> {
    let database = Postgres::shared().await?.create_database().await?;
    let (url, mut beats) = signs_of_life().await?;
    let mut worlds = Vec::new();
    for name in ["a", "b", "c"] {
        let mut plan = replica(name, &database)?;
        plan.merge(json!({ "heartbeat": { "url": url, "every": "5s" } }));
        worlds.push(plan.start().await?);
    }
    let began = beats.recv().await.context("no sign of life")?;
    // As long as they are counted, and a bit.
    tokio::time::sleep(Duration::from_secs(16)).await;
    let count = std::iter::from_fn(|| beats.try_recv().ok()).filter(|at| at.duration_since(began) < Duration::from_secs(15)).count();
    ensure!((1..=3).contains(&count), "{count} further signs of life in 15 s: one every 5 s");
    Ok(())
}
