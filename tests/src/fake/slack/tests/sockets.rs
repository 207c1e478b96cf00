//! Socket Mode, driven by a bare websocket client.

use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::super::Target;
use super::*;

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn url(slack: &FakeSlack) -> String {
    let request = slack.client.post(format!("{}/apps.connections.open", slack.api_url())).bearer_auth(&slack.config().app_token);
    let opened: Value = request.send().await.unwrap().json().await.unwrap();
    opened["url"].as_str().unwrap().to_owned()
}

async fn next(client: &mut Client) -> Value {
    let frame = client.next().await.unwrap().unwrap();
    serde_json::from_str(frame.to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn envelopes_are_delivered_and_acknowledged() {
    let slack = slack().await;
    let url = url(&slack).await;
    let (mut client, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    assert!(tokio_tungstenite::connect_async(&url).await.is_err(), "a ticket is good for one connection");
    let hello = next(&mut client).await;
    assert_eq!(
        (&hello["type"], &hello["num_connections"], &hello["connection_info"]["app_id"]),
        (&json!("hello"), &json!(1), &json!("A0WATCH01"))
    );
    slack.wait_for_sockets(1, SOON).await.unwrap();

    api(&slack, "chat.postMessage", card("x")).await;
    let message = slack.channel(OPS).messages().pop().unwrap();
    let product = async {
        let envelope = next(&mut client).await;
        let ack = json!({"envelope_id": envelope["envelope_id"], "payload": {"text": "seen"}});
        client.send(Frame::text(ack.to_string())).await.unwrap();
        envelope
    };
    let click = slack.click(ANN, &message, "Approve", Target::Socket).into_future();
    let (reply, envelope) = tokio::join!(click, product);
    assert_eq!(reply.unwrap().json(), json!({"text": "seen"}));
    assert_eq!((&envelope["type"], &envelope["payload"]["actions"][0]["action_id"]), (&json!("interactive"), &json!("approve")));
    assert_eq!(envelope["accepts_response_payload"], true);

    slack.disconnect_sockets("refresh_requested");
    let goodbye = next(&mut client).await;
    assert_eq!((&goodbye["type"], &goodbye["reason"]), (&json!("disconnect"), &json!("refresh_requested")));
    assert!(goodbye["debug_info"]["host"].is_string());
    while client.next().await.is_some_and(|frame| frame.is_ok()) {}
    slack.wait_for_sockets(0, SOON).await.unwrap();
    assert!(slack.click(ANN, &message, "Approve", Target::Socket).await.unwrap_err().to_string().contains("no Socket Mode connection"));
}

#[tokio::test]
async fn only_the_app_token_opens_sockets() {
    let slack = slack().await;
    assert_eq!(api(&slack, "apps.connections.open", json!({})).await["error"], "not_allowed_token_type");
    let (mut first, _) = tokio_tungstenite::connect_async(&url(&slack).await).await.unwrap();
    next(&mut first).await;
    slack.wait_for_sockets(1, SOON).await.unwrap();
    assert_eq!(slack.sockets_opened(), 1);
    slack.cut_sockets();
    assert!(!first.next().await.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_text())));
}
