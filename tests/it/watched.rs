//! What outsiders see of the running program: its sign of life, which stops when the worker is stuck, and its certificate, which changes.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::peers::Postgres;
use harness::world::{Alert, Plan, SOON};
use harness::{Signal, eventually, repo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A place outside that counts the signs of life, and answers them as a real one would.
struct Receiver {
    url: String,
    came: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/ping/0123456789abcdef", listener.local_addr()?);
        let came = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&came);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"}") && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {}
                    if request.starts_with(b"POST /ping/0123456789abcdef ") && request.windows(13).any(|part| part == b"\"watchkeeper\"") {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    drop(stream.write_all(answer.as_bytes()).await);
                });
            }
        });
        Ok(Self { url, came })
    }

    fn count(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }

    async fn next(&self) -> anyhow::Result<()> {
        let seen = self.count();
        eventually(SOON, async || {
            ensure!(self.count() > seen, "no sign of life");
            Ok(())
        })
        .await
    }

    /// How many come within two intervals and a bit, once those that were on their way have arrived.
    async fn within_two(&self) -> usize {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let seen = self.count();
        tokio::time::sleep(Duration::from_secs(12)).await;
        self.count() - seen
    }
}

#[tokio::test]
async fn the_sign_of_life_stops_with_the_worker_or_the_server_and_comes_back() -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let postgres = Postgres::start().await?;
    let url = postgres.create_database().await?;
    let plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.postgres(&url)?;
    let mut world = plan.with(json!({ "heartbeat": { "url": receiver.url, "every": "5s" } })).allow("store").start().await?;
    receiver.next().await?;
    receiver.next().await?;

    // Nobody can claim a job while this lock is held: the gateway lives and takes alerts, but nothing would be done about them.
    let database = url.rsplit('/').next().unwrap_or_default().to_owned();
    let stuck = "begin; lock table jobs in access exclusive mode; select pg_sleep(120); commit";
    let holder = async {
        // It is told to stop when it was seen for long enough, which psql calls an error.
        let ended = format!("{:#}", postgres.psql(&database, stuck).await.err().context("the lock was given back too early")?);
        ensure!(ended.contains("user request"), "{ended}");
        Ok(())
    };
    let meanwhile = async {
        let locked = "relation = 'jobs'::regclass and mode = 'AccessExclusiveLock' and granted";
        let held = format!("select count(*) from pg_locks where {locked}");
        eventually(SOON, async || {
            ensure!(postgres.psql(&database, &held).await? == "1", "the lock is not held yet");
            Ok(())
        })
        .await?;
        let came = receiver.within_two().await;
        ensure!(came == 0, "{came} signs of life from a worker that can do nothing");
        ensure!(world.http().get(format!("{}/livez", world.url())).send().await?.status().is_success(), "the server lives");
        let stop = format!("select count(pg_cancel_backend(pid)) from pg_locks where {locked}");
        ensure!(postgres.psql(&database, &stop).await? == "1", "nobody holds the lock");
        Ok(())
    };
    tokio::try_join!(holder, meanwhile)?;
    receiver.next().await?;

    world.proc()?.signal(Signal::STOP)?;
    let came = receiver.within_two().await;
    world.proc()?.signal(Signal::CONT)?;
    ensure!(came == 0, "{came} signs of life from a stopped process");
    receiver.next().await?;
    world.send(&[Alert::new("Afterwards")]).await?;
    world.incident_in(1, "open", SOON).await?;
    world.stop().await?;
    ensure!(receiver.within_two().await == 0, "a sign of life from a server that ended");
    Ok(())
}

#[tokio::test]
async fn a_changed_certificate_is_served_without_a_restart() -> anyhow::Result<()> {
    let fixtures = repo().join("webhook-gateway/fixtures/tls");
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    let (crt, key) = (plan.dir().join("tls.crt"), plan.dir().join("tls.key"));
    let put = |name: &str| -> anyhow::Result<()> {
        for (from, to) in [(format!("{name}.crt"), &crt), (format!("{name}.key"), &key)] {
            // As certbot and Kubernetes do: whole files, moved into place.
            let fresh = to.with_extension("new");
            fs::copy(fixtures.join(from), &fresh)?;
            fs::rename(&fresh, to)?;
        }
        Ok(())
    };
    put("a")?;
    plan.merge(json!({ "server": { "tls": { "cert_file": crt, "key_file": key } } }));
    plan.write()?;
    let url = plan.url().replace("http://127.0.0.1", "https://localhost") + "/livez";
    let [a, b] = ["a.crt", "b.crt"].map(|name| fs::read(fixtures.join(name)));
    let (a, b) = (harness::http_trusting(&a?)?, harness::http_trusting(&b?)?);
    let sees = async |client: &reqwest::Client| client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());

    let mut proc = plan.command().arg("serve").arg("--config").arg(plan.config_dir()).spawn()?;
    proc.until_ready(SOON, async || {
        ensure!(sees(&a).await, "it does not answer under certificate A");
        Ok(())
    })
    .await?;
    ensure!(!sees(&b).await, "certificate B is not served yet");
    let pid = proc.pid();
    put("b")?;
    eventually(SOON, async || {
        ensure!(sees(&b).await, "it does not answer under certificate B");
        Ok(())
    })
    .await?;
    // A connection that stands keeps its certificate; a new client must not get the old one.
    let late = harness::http_trusting(&fs::read(fixtures.join("a.crt"))?)?;
    ensure!(!sees(&late).await, "certificate A is still served");
    ensure!(proc.is_running() && proc.pid() == pid, "it was not restarted");
    let told = proc.log();
    ensure!(told.contains("the certificate was read again") && !told.contains("\"level\":\"ERROR\""), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_source_gets_a_new_secret_by_a_reload() -> anyhow::Result<()> {
    let mut world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.start().await?;
    let fresh = "test-only-rotated-token-0123456789abcdef";
    fs::write(world.dir().join("source-token"), fresh)?;
    world.proc()?.signal(Signal::HUP)?;
    let send = async |token: &str| {
        let url = format!("{}/api/v1/webhooks/alertmanager/am", world.url());
        let post = world.http().post(url).bearer_auth(token).header("content-type", "application/json");
        anyhow::Ok(post.body(harness::world::body(&[Alert::new("Rotated")]).to_string()).send().await?.status().as_u16())
    };
    eventually(SOON, async || {
        ensure!(send(fresh).await? == 200, "the new secret is not taken yet");
        Ok(())
    })
    .await?;
    assert_eq!(send(world.source_token()).await?, 401, "the old one is out");
    Ok(())
}
