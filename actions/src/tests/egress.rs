//! The way out, against a real server on loopback.

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;

use super::server::{Reply, Server};
use crate::egress::{Egress, EgressError, MAX_BODY, Request, parse_url};

fn get(url: &str) -> Request {
    Request { method: Method::GET, url: parse_url(url).unwrap(), headers: HeaderMap::new(), body: vec![], timeout: Duration::from_secs(5) }
}

fn allowing(exception: &str) -> Egress {
    Egress::new(vec![exception.parse().unwrap()])
}

#[tokio::test]
async fn loopback_is_refused_under_every_spelling_unless_named() {
    let server = Server::json(200, "{}").await;
    let port = server.port;
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "017700000001",
        "localhost",
        "LOCALHOST.",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "0.0.0.0",
        "0",
    ] {
        let outcome = Egress::default().send(get(&format!("http://{host}:{port}/"))).await;
        match outcome {
            Err(EgressError::Refused(problem)) => assert!(problem.contains("is refused"), "{host}: {problem}"),
            other => panic!("{host}: {other:?}"),
        }
    }
    assert!(server.seen().is_empty());
    for (exception, host) in [("127.0.0.1:*", "127.1"), ("127.0.0.0/8:*", "[::ffff:127.0.0.1]")] {
        let answer = allowing(exception).send(get(&format!("http://{host}:{port}/"))).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"{}".as_slice()));
    }
    // Another port of the same address is another destination.
    assert!(matches!(allowing(&format!("127.0.0.1:{}", port ^ 1)).send(get(&server.url("/"))).await, Err(EgressError::Refused(_))));
}

#[tokio::test]
async fn a_named_host_is_asked_under_its_name() {
    let server = Server::json(200, "{}").await;
    // The machine may resolve localhost to ::1 too, where nobody listens: the other address is tried.
    let egress = allowing(&format!("localhost:{}", server.port));
    let answer = egress.send(get(&format!("http://localhost:{}/a", server.port))).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(server.seen()[0].contains(&format!("host: localhost:{}", server.port)), "{}", server.seen()[0]);
}

#[tokio::test]
async fn redirects_are_answers() {
    let inside = Server::json(200, "secret").await;
    let outside = Server::start(Reply::Answer(302, format!("location: {}\r\n", inside.url("/")), String::new())).await;
    let answer = allowing("127.0.0.1:*").send(get(&outside.url("/"))).await.unwrap();
    assert_eq!(answer.status, 302);
    assert!(inside.seen().is_empty());
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time() {
    let large = Server::json(200, &"x".repeat(MAX_BODY + 1)).await;
    let answer = allowing("127.0.0.1:*").send(get(&large.url("/"))).await.unwrap();
    assert_eq!((answer.body.len(), answer.cut), (MAX_BODY, true));
    let silent = Server::start(Reply::Hang).await;
    let began = Instant::now();
    let outcome = allowing("127.0.0.1:*").send(Request { timeout: Duration::from_millis(300), ..get(&silent.url("/")) }).await;
    assert!(matches!(&outcome, Err(EgressError::Broken(problem)) if problem.contains("no whole answer in time")), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn what_was_sent_is_told_from_what_was_not() {
    let egress = allowing("127.0.0.1:*");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outcome = egress.send(get(&format!("http://127.0.0.1:{nobody}/"))).await;
    assert!(matches!(&outcome, Err(EgressError::NotSent(problem)) if problem.contains("cannot connect")), "{outcome:?}");
    let outcome = egress.send(get("http://no-such-host.invalid/")).await;
    assert!(matches!(&outcome, Err(EgressError::NotSent(problem)) if problem.contains("does not resolve")), "{outcome:?}");
    // A server that talks no TLS: the handshake fails before anything is sent.
    let plain = Server::json(200, "{}").await;
    let outcome = egress.send(get(&plain.url("/").replace("http:", "https:"))).await;
    assert!(matches!(&outcome, Err(EgressError::NotSent(_))), "{outcome:?}");
    for reply in [Reply::Close, Reply::Half] {
        let server = Server::start(reply).await;
        let outcome = egress.send(get(&server.url("/"))).await;
        assert!(matches!(&outcome, Err(EgressError::Broken(_))), "{outcome:?}");
        assert_eq!(server.seen().len(), 1, "it was sent again");
    }
}

#[test]
fn urls_that_hide_something_are_refused() {
    for url in [
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://x/",
        "javascript:alert(1)",
        "http://",
        "example.com",
        "/path",
        "http://user:pw@example.com/",
        "http://user@example.com/",
        "http://exa mple.com/",
        "http://example.com/\r\nHost: x",
        "http://example.com/\t",
        " http://example.com",
        "unix:/run/docker.sock",
    ] {
        assert!(parse_url(url).is_err(), "{url}");
    }
    assert!(parse_url(&format!("http://example.com/{}", "x".repeat(5000))).is_err());
    assert!(parse_url("https://example.com:8443/a?b=c#d").is_ok());
}
