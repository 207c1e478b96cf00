//! `http.check` and `http.request`.

use std::time::Duration;

use domain::action::ActionError;
use serde_json::{Value, json};

use super::server::{Reply, Server};
use super::{SECRET, World, failed, nothing, refused, target, unknown};

const HEALTH: &str = r#"{"status":"degraded","version":"v1.0.0","timestamp":"2026-10-19T15:30:00Z","checks":{"database":"healthy","redis":"unhealthy"},"uptime":"72h30m15s"}"#;

#[tokio::test]
async fn a_check_asks_for_status_fields_health_and_speed() {
    let (world, server) = (World::new().await, Server::json(200, HEALTH).await);
    let check = async |with: Value| {
        let mut with = with;
        with["url"] = json!(server.url("/health"));
        world.run("http.check", with).await
    };
    let output = check(
        json!({"status": 200, "json": {"/checks/database": "healthy", "/version": "v1.0.0"}, "health": "degraded", "max_latency": "5s"}),
    )
    .await
    .unwrap();
    assert!(output.summary.starts_with("200 in ") && output.summary.ends_with("degraded (redis unhealthy)"), "{}", output.summary);
    assert_eq!((&output.data["status"], &output.data["health"]["status"]), (&json!(200), &json!("degraded")));
    assert!(output.text.contains("72h30m15s"));
    assert_eq!(failed(check(json!({"status": [201, 204]})).await), "it answered 200, degraded (redis unhealthy)");
    assert_eq!(failed(check(json!({"health": "healthy"})).await), "it says degraded (redis unhealthy)");
    assert_eq!(failed(check(json!({"json": {"/checks/redis": "healthy"}})).await), "/checks/redis is \"unhealthy\", not \"healthy\"");
    assert_eq!(failed(check(json!({"json": {"/queue": 0}})).await), "the answer has nothing at /queue");
    assert!(failed(check(json!({"max_latency": "0"})).await).contains("more than 0s"));
    assert!(refused(check(json!({"json": {"queue": 0}})).await).contains("no JSON pointer"));
    assert!(refused(check(json!({"health": "fine"})).await).starts_with("`health`"));
}

#[tokio::test]
async fn an_unhealthy_answer_may_come_with_503() {
    let world = World::new().await;
    let server = Server::json(503, r#"{"status":"unhealthy","checks":{"db":"down"}}"#).await;
    let url = server.url("/health");
    assert_eq!(failed(world.run("http.check", json!({"url": url})).await), "it answered 503, unhealthy (db down)");
    assert_eq!(failed(world.run("http.check", json!({"url": url, "health": "degraded"})).await), "it says unhealthy (db down)");
    assert!(world.run("http.check", json!({"url": url, "health": "unhealthy"})).await.is_ok());
    let page = Server::start(Reply::Answer(200, String::new(), format!("<b>{SECRET}</b>"))).await;
    assert!(failed(world.run("http.check", json!({"url": page.url("/"), "health": "healthy"})).await).contains("not of the form"));
    let output = world.run("http.check", json!({"url": page.url("/")})).await.unwrap();
    assert_eq!(output.text, "<b>[redacted]</b>");
}

#[tokio::test]
async fn a_check_takes_its_url_from_the_target() {
    let (world, server) = (World::new().await, Server::json(200, HEALTH).await);
    for (kind, field) in [("http", "url"), ("process", "health_url"), ("compose", "health_url")] {
        let api = target("api", kind, json!({field: server.url("/health")}));
        assert!(world.run_on("http.check", nothing(), Some(&api), Duration::from_secs(9)).await.is_ok(), "{kind}");
    }
    let bare = target("api", "compose", nothing());
    assert!(world.action("http.check").check(&nothing(), Some(&bare)).unwrap_err().contains("neither `health_url` nor `url`"));
    assert!(world.action("http.check").check(&nothing(), None).unwrap_err().contains("needs a `url`"));
    assert!(refused(world.run("http.check", json!({"url": "http://169.254.169.254/latest/meta-data/"})).await).contains("metadata"));
}

#[tokio::test]
async fn a_check_that_gets_no_answer_has_failed() {
    let world = World::new().await;
    for reply in [Reply::Hang, Reply::Close, Reply::Half] {
        let server = Server::start(reply).await;
        assert!(!failed(world.run("http.check", json!({"url": server.url("/"), "timeout": "300ms"})).await).is_empty());
    }
}

#[tokio::test]
async fn a_request_carries_its_key_and_body_once() {
    let (world, server) = (World::new().await, Server::json(201, &format!(r#"{{"id":7,"token":"{SECRET}"}}"#)).await);
    let with = json!({"method": "POST", "url": server.url("/pool/reset"), "headers": {"x-team": "sre"}, "json": {"name": "a\"b"}, "expect_status": [200, 201]});
    let output = world.run("http.request", with).await.unwrap();
    assert_eq!(
        (&output.data["status"], &output.data["json"]["id"], &output.data["json"]["token"]),
        (&json!(201), &json!(7), &json!("[redacted]"))
    );
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    let (head, body) = seen[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /pool/reset HTTP/1.1\r\n"));
    for header in ["idempotency-key: key-1", "x-team: sre", "content-type: application/json", "user-agent: watchkeeper/"] {
        assert!(head.contains(header), "{head}");
    }
    assert_eq!(body, r#"{"name":"a\"b"}"#);
}

#[tokio::test]
async fn an_outcome_is_unknown_only_where_it_is() {
    let world = World::new().await;
    let send = async |method: &str, url: String| world.run("http.request", json!({"method": method, "url": url, "timeout": "400ms"})).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(failed(send("POST", format!("http://127.0.0.1:{nobody}/")).await).contains("cannot connect"));
    for reply in [Reply::Hang, Reply::Close, Reply::Half] {
        let server = Server::start(reply).await;
        assert!(unknown(send("POST", server.url("/")).await).contains("may have acted"));
        assert!(!failed(send("GET", server.url("/")).await).is_empty());
    }
    for (code, is_unknown) in [(400, false), (404, false), (500, false), (503, false), (502, true), (504, true)] {
        let server = Server::json(code, "no").await;
        let outcome = send("DELETE", server.url("/")).await;
        assert_eq!(matches!(outcome, Err(ActionError::Unknown(_))), is_unknown, "{code}");
        assert!(failed(send("HEAD", server.url("/")).await).starts_with(&format!("it answered {code}")));
    }
}

#[tokio::test]
async fn a_request_is_refused_before_it_is_sent() {
    let (world, server) = (World::new().await, Server::json(200, "{}").await);
    let url = server.url("/");
    for with in [
        json!({"method": "post", "url": url}),
        json!({"method": "CONNECT", "url": url}),
        json!({"method": "GET", "url": url, "body": "x"}),
        json!({"method": "POST", "url": url, "body": "x", "json": 1}),
        json!({"method": "GET", "url": url, "headers": {"Host": "x"}}),
        json!({"method": "GET", "url": url, "headers": {"Transfer-Encoding": "chunked"}}),
        json!({"method": "GET", "url": url, "headers": {"Proxy-Authorization": "x"}}),
        json!({"method": "GET", "url": url, "headers": {"x": "a\r\nb: c"}}),
        json!({"method": "GET", "url": url, "headers": {"a b": "c"}}),
        json!({"method": "GET", "url": "http://169.254.169.254/"}),
        json!({"method": "GET", "url": "http://127.0.0.2:1/"}),
        json!({"url": url}),
    ] {
        assert!(!refused(world.run("http.request", with.clone()).await).is_empty(), "{with}");
    }
    assert!(server.seen().is_empty());
}
