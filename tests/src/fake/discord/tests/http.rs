//! Messages over HTTP: posting, editing, threads, nonces, files, limits and faults.

use super::*;
use crate::fake::Fault;

#[tokio::test]
async fn keeps_a_card_and_its_edits() {
    let discord = discord().await;
    let message = posted(&discord, card("API down")).await;
    assert_eq!(message.visible_text(), "API down\n**api** is down\nenv\nprod\n#142\nApprove\nDeny");
    assert_eq!((message.color(), message.buttons()[1].style), (Some(0x00a3_0200), 4));
    let (status, fetched) = call(&discord, "GET", &format!("/channels/{OPS}/messages/{}", message.id), Value::Null).await;
    assert_eq!((status, &fetched["embeds"][0]["title"], &fetched["author"]["bot"]), (200, &json!("API down"), &json!(true)));

    let path = format!("/channels/{OPS}/messages/{}", message.id);
    let (status, edited) = call(&discord, "PATCH", &path, json!({"embeds": [{"title": "Resolved"}], "components": []})).await;
    assert_eq!(status, 200, "{edited}");
    assert!(edited["edited_timestamp"].is_string());
    assert_eq!(discord.unread().len(), 1);
    let now = discord.wait_until(&message, |message| message.edits.len() == 1, SOON).await.unwrap();
    assert_eq!((now.visible_text().as_str(), now.edits[0].components.len()), ("Resolved", 1));
    assert_eq!(call(&discord, "DELETE", &path, Value::Null).await.0, 204);
    assert!(discord.current(&message).is_err());
    assert!(discord.refused().is_empty());
}

#[tokio::test]
async fn an_enforced_nonce_posts_once() {
    let discord = discord().await;
    let path = format!("/channels/{OPS}/messages");
    let once = json!({"content": "page", "nonce": "delivery-1", "enforce_nonce": true});
    let (_, first) = call(&discord, "POST", &path, once.clone()).await;
    let (_, second) = call(&discord, "POST", &path, once.clone()).await;
    assert_eq!(first["id"], second["id"]);
    assert_eq!((discord.channel(OPS).messages().len(), discord.deduplicated()), (1, 1));
    discord.time().advance(Duration::from_secs(301));
    assert_ne!(call(&discord, "POST", &path, once).await.1["id"], first["id"]);
    let free = json!({"content": "page", "nonce": "delivery-1"});
    call(&discord, "POST", &path, free).await;
    assert_eq!(discord.channel(OPS).messages().len(), 3);
}

#[tokio::test]
async fn threads_start_from_messages() {
    let discord = discord().await;
    let message = posted(&discord, card("API down")).await;
    let path = format!("/channels/{OPS}/messages/{}/threads", message.id);
    let (status, thread) = call(&discord, "POST", &path, json!({"name": "#142 API down", "auto_archive_duration": 1440})).await;
    assert_eq!((status, &thread["id"], &thread["type"]), (200, &json!(message.id), &json!(11)));
    assert_eq!(call(&discord, "POST", &path, json!({"name": "again"})).await.1["code"], 160_004);
    let (status, _) =
        call(&discord, "POST", &format!("/channels/{}/messages", message.id), json!({"content": "acknowledged by ann"})).await;
    assert_eq!(status, 200);
    let thread = discord.thread_of(&message).unwrap();
    assert_eq!((thread.name().as_str(), thread.messages()[0].content.as_str()), ("#142 API down", "acknowledged by ann"));
    assert_eq!(discord.channel("ops").messages().len(), 1);
    let (_, listed) = call(&discord, "GET", &format!("/channels/{}/messages?limit=5", message.id), Value::Null).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn files_come_as_multipart() {
    let discord = discord().await;
    let body = "--X\r\nContent-Disposition: form-data; name=\"payload_json\"\r\n\r\n{\"content\":\"log\"}\r\n--X\r\n\
        Content-Disposition: form-data; name=\"files[0]\"; filename=\"out.txt\"\r\n\r\nline one\r\n--X--\r\n";
    let request = request(&discord, "POST", &format!("/channels/{OPS}/messages"), Value::Null);
    let answer = request.header("content-type", "multipart/form-data; boundary=X").body(body).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["attachments"][0]["filename"], "out.txt");
    assert_eq!(discord.channel(OPS).messages()[0].files[0].bytes, b"line one");
}

#[tokio::test]
async fn limits_are_announced_and_kept() {
    let discord = discord().await;
    discord.rate_limits(true);
    let path = format!("/channels/{OPS}/messages");
    for left in (0..5).rev() {
        let response = request(&discord, "POST", &path, json!({"content": "x"})).send().await.unwrap();
        assert_eq!(response.headers()["x-ratelimit-remaining"].to_str().unwrap(), left.to_string());
    }
    let limited = request(&discord, "POST", &path, json!({"content": "x"})).send().await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["x-ratelimit-scope"]),
        (429, &"user".parse::<reqwest::header::HeaderValue>().unwrap())
    );
    let body: Value = limited.json().await.unwrap();
    assert!(body["retry_after"].as_f64().unwrap() > 0.0 && body["global"] == false);
    assert_eq!(call(&discord, "POST", &path, json!({"content": "x"})).await.0, 429);
    assert_eq!((discord.throttled(), discord.impatient(), discord.invalid_requests()), (2, 1, 2));
    discord.time().advance(Duration::from_secs(5));
    assert_eq!(call(&discord, "POST", &path, json!({"content": "x"})).await.0, 200);
    for _ in 0..60 {
        call(&discord, "GET", "/gateway", Value::Null).await;
    }
    assert!(discord.throttled() > 2);
}

#[tokio::test]
async fn planted_faults_hit_once_each() {
    let discord = discord().await;
    let path = format!("/channels/{OPS}/messages");
    let post = || request(&discord, "POST", &path, json!({"content": "x", "nonce": "n", "enforce_nonce": true})).send();
    discord.fail("POST /channels/:/messages", Fault::Status(503), 1);
    assert_eq!(post().await.unwrap().status(), 503);
    discord.fail("*", Fault::RateLimited(Duration::from_millis(1500)), 1);
    let limited = post().await.unwrap();
    assert_eq!(limited.headers()["retry-after"], "2");
    assert_eq!(limited.json::<Value>().await.unwrap()["retry_after"], 1.5);
    discord.fail("POST /channels/:/messages", Fault::Ambiguous, 1);
    assert!(post().await.is_err());
    // The retry after the ambiguous failure meets the nonce.
    assert_eq!(post().await.unwrap().status(), 200);
    assert_eq!((discord.channel(OPS).messages().len(), discord.deduplicated()), (1, 1));
    let statuses: Vec<u16> = discord.calls_of("POST /channels/:/messages").iter().map(|call| call.status).collect();
    assert_eq!(statuses, [503, 429, 200, 200]);
}
