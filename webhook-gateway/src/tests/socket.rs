//! What only a real socket shows: bodies that are not read, slow ones, many large ones, and too many connections.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use harness::eventually;
use harness::world::SOON;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stop::Served;
use super::world::{BEARER, Setup, World};
use crate::{Connections, Limits};

const PATH: &str = "/api/v1/webhooks/alertmanager/prod";

/// Writes the head of a POST and what there is of its body, and reads the first line of the answer.
async fn status(stream: &mut TcpStream, secret: &str, length: usize, body: &[u8]) -> String {
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    first_line(stream).await
}

async fn first_line(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

async fn quick(limits: Limits) -> Served {
    Served::start(World::with(Setup { limits, ..Setup::default() }).await, Connections::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_refused_before_the_body_arrives() {
    let served = quick(Limits::default()).await;
    let mut stream = served.connect().await;
    let line = tokio::time::timeout(Duration::from_secs(5), status(&mut stream, "wrong", 30_000_000, b"{")).await.unwrap();
    assert_eq!(line, "HTTP/1.1 401 Unauthorized");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_ends_with_a_503() {
    let served = quick(Limits { body_time: Duration::from_millis(300), ..Limits::default() }).await;
    let mut stream = served.connect().await;
    let began = Instant::now();
    let line = status(&mut stream, BEARER, 1000, b"{").await;
    assert_eq!(line, "HTTP/1.1 503 Service Unavailable");
    assert!((Duration::from_millis(290)..Duration::from_secs(5)).contains(&began.elapsed()));
}

/// Nobody has to prove anything to send a form: a body that does not come must not hold its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_form_ends_with_a_503() {
    let served = quick(Limits { body_time: Duration::from_millis(300), ..Limits::default() }).await;
    for path in ["/login", "/login/link"] {
        let mut stream = served.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 9000\r\n\r\nname="
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let line = tokio::time::timeout(Duration::from_secs(5), first_line(&mut stream)).await.unwrap();
        assert_eq!(line, "HTTP/1.1 503 Service Unavailable", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_end_is_cut_off() {
    let bounds = Connections { header_time: Duration::from_millis(300), ..Connections::default() };
    let served = Served::start(World::new().await, bounds).await;
    let mut stream = served.connect().await;
    stream.write_all(b"POST /livez HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    let mut stream = served.connect().await;
    let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(first_line(&mut stream).await, "HTTP/1.1 431 Request Header Fields Too Large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_cap_are_closed_and_the_others_work_on() {
    let served = Served::start(World::new().await, Connections { most: 2, ..Connections::default() }).await;
    let (mut first, mut second) = (served.connect().await, served.connect().await);
    for stream in [&mut first, &mut second] {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(first_line(stream).await, "HTTP/1.1 200 OK");
    }
    let mut third = served.connect().await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), third.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty() || read.is_err());
    drop(first);
    let place = async || {
        let mut again = served.connect().await;
        again.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        let mut answer = [0; 15];
        again.read_exact(&mut answer).await.context("the place was not given back")?;
        Ok(answer)
    };
    assert_eq!(&eventually(SOON, place).await.unwrap(), b"HTTP/1.1 200 OK");
}

/// A body of about 30 MiB with few, large alerts: it is the reading that is tested, not the storing.
fn large(n: usize) -> Bytes {
    let text = "x".repeat(300_000);
    let alert = |i: usize| {
        format!(
            r#"{{"status":"firing","labels":{{"alertname":"L","n":"{n}-{i}"}},"annotations":{{"summary":"{text}"}},"startsAt":"2026-11-20T04:55:07Z","fingerprint":"{n:08x}{i:08x}"}}"#
        )
    };
    let alerts: Vec<String> = (0..104).map(alert).collect();
    format!(r#"{{"version":"4","alerts":[{}]}}"#, alerts.join(",")).into()
}

/// Resident bytes of this process.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_parallel_bodies_of_30_mib_stay_within_bounds_and_none_is_lost_in_silence() {
    let served = quick(Limits { body_time: Duration::from_secs(60), ..Limits::default() }).await;
    let body = large(0);
    assert!(body.len() > 29 * 1024 * 1024 && body.len() < 32 * 1024 * 1024);
    let before = resident();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (address, body) = (served.address, body.clone());
        senders.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head =
                format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {BEARER}\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            // Like Go's client: the answer may come before the body is out.
            let write = async { writer.write_all(&body).await };
            let read = async {
                let mut answer = vec![0; 12];
                reader.read_exact(&mut answer).await.map(|_| String::from_utf8_lossy(&answer[9..]).into_owned())
            };
            let (_, answer) = tokio::join!(write, read);
            answer.unwrap_or_else(|error| panic!("no answer: {error}"))
        });
    }
    let mut peak = 0;
    let mut answers = Vec::new();
    loop {
        peak = peak.max(resident().saturating_sub(before));
        match tokio::time::timeout(Duration::from_millis(5), senders.join_next()).await {
            Ok(Some(answer)) => answers.push(answer.unwrap()),
            Ok(None) => break,
            Err(_) => {}
        }
    }
    let accepted = answers.iter().filter(|status| *status == "200").count();
    assert!(answers.iter().all(|status| status == "200" || status == "503"), "{answers:?}");
    assert!(accepted >= 1, "{answers:?}");
    assert!(peak < 400 * 1024 * 1024, "{} MiB more than before, for 1500 MiB of bodies", peak / 1024 / 1024);
    assert_eq!(served.world.events().await.len(), 104, "what was accepted is there, once");
}
