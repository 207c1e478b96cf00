//! The gateway, driven by a bare websocket client.

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::super::Target;
use super::*;

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(discord: &FakeDiscord) -> Client {
    let (_, gateway) = call(discord, "GET", "/gateway", Value::Null).await;
    let (mut client, _) = tokio_tungstenite::connect_async(format!("{}/?v=10", gateway["url"].as_str().unwrap())).await.unwrap();
    assert_eq!(next(&mut client).await["op"], 10);
    client
}

async fn next(client: &mut Client) -> Value {
    serde_json::from_str(client.next().await.unwrap().unwrap().to_text().unwrap()).unwrap()
}

async fn send(client: &mut Client, frame: Value) {
    client.send(Frame::text(frame.to_string())).await.unwrap();
}

async fn close_code(client: &mut Client) -> u16 {
    loop {
        match client.next().await {
            Some(Ok(Frame::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(_)) => {}
            _ => return 0,
        }
    }
}

fn identify(token: &str) -> Value {
    json!({"op": 2, "d": {"token": token, "intents": 0, "properties": {"os": "linux", "browser": "x", "device": "x"}}})
}

/// A ready session and its id.
async fn session(discord: &FakeDiscord) -> (Client, String) {
    let mut client = connect(discord).await;
    send(&mut client, identify(&discord.config().bot_token)).await;
    let ready = next(&mut client).await;
    assert_eq!((&ready["t"], &ready["s"], &ready["d"]["user"]["bot"]), (&json!("READY"), &json!(1), &json!(true)));
    assert_eq!(next(&mut client).await["t"], "GUILD_CREATE");
    (client, ready["d"]["session_id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn interactions_are_dispatched_and_called_back() {
    let discord = discord().await;
    let message = posted(&discord, card("x")).await;
    assert!(discord.click(ANN, &message, "Approve", Target::Gateway).await.err().unwrap().to_string().contains("no gateway session"));
    let (mut client, _) = session(&discord).await;
    send(&mut client, json!({"op": 1, "d": 2})).await;
    assert_eq!(next(&mut client).await["op"], 11);

    let product = async {
        let event = next(&mut client).await;
        assert_eq!((&event["t"], &event["d"]["data"]["custom_id"]), (&json!("INTERACTION_CREATE"), &json!("approve:run-1")));
        let path = format!("/interactions/{}/{}/callback", event["d"]["id"].as_str().unwrap(), event["d"]["token"].as_str().unwrap());
        let first = call(&discord, "POST", &path, json!({"type": 6})).await;
        (first, call(&discord, "POST", &path, json!({"type": 6})).await)
    };
    let (outcome, (first, second)) = tokio::join!(discord.click(ANN, &message, "Approve", Target::Gateway).into_future(), product);
    assert_eq!(outcome.unwrap().interaction.response_type(), Some(6));
    assert_eq!((first.0, second.0, &second.1["code"]), (204, 400, &json!(40_060)));
}

#[tokio::test]
async fn too_late_is_unknown() {
    let discord = discord().await;
    let message = posted(&discord, card("x")).await;
    let (mut client, _) = session(&discord).await;
    let late = async {
        let event = next(&mut client).await;
        discord.time().advance(Duration::from_secs(4));
        let path = format!("/interactions/{}/{}/callback", event["d"]["id"].as_str().unwrap(), event["d"]["token"].as_str().unwrap());
        call(&discord, "POST", &path, json!({"type": 6})).await.1["code"].clone()
    };
    let (outcome, code) = tokio::join!(discord.click(ANN, &message, "Approve", Target::Gateway).into_future(), late);
    assert!(outcome.is_err());
    assert_eq!(code, 10_062);
}

#[tokio::test]
async fn a_session_resumes_with_what_it_missed() {
    let discord = discord().await;
    let (mut client, id) = session(&discord).await;
    discord.reconnect_sessions();
    assert_eq!(next(&mut client).await["op"], 7);
    assert_eq!(close_code(&mut client).await, 4000);
    discord.wait_for_sessions(0, SOON).await.unwrap();
    discord.dispatch("TEST_EVENT", &json!({"missed": true}));

    let mut client = connect(&discord).await;
    send(&mut client, json!({"op": 6, "d": {"token": discord.config().bot_token, "session_id": id, "seq": 2}})).await;
    let missed = next(&mut client).await;
    assert_eq!((&missed["t"], &missed["s"]), (&json!("TEST_EVENT"), &json!(3)));
    assert_eq!(next(&mut client).await["t"], "RESUMED");
    assert_eq!((discord.sessions(), discord.resumes()), (1, 1));

    discord.invalidate_sessions(false);
    assert_eq!(next(&mut client).await, json!({"op": 9, "d": false}));
    let mut stranger = connect(&discord).await;
    send(&mut stranger, json!({"op": 6, "d": {"token": discord.config().bot_token, "session_id": id, "seq": 2}})).await;
    assert_eq!(next(&mut stranger).await, json!({"op": 9, "d": false}));

    let (mut client, _) = session(&discord).await;
    discord.cut_sessions();
    assert!(!client.next().await.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_text())));
}

#[tokio::test]
async fn bad_clients_are_closed_with_discords_codes() {
    let discord = discord().await;
    for (frame, code) in
        [(json!({"op": 3, "d": {}}), 4003), (identify("wrong"), 4004), (json!({"op": 2, "d": {"token": discord.config().bot_token}}), 4013)]
    {
        let mut client = connect(&discord).await;
        send(&mut client, frame).await;
        assert_eq!(close_code(&mut client).await, code);
    }
    let mut client = connect(&discord).await;
    client.send(Frame::text("{")).await.unwrap();
    assert_eq!(close_code(&mut client).await, 4002);
    let (mut client, _) = session(&discord).await;
    send(&mut client, identify(&discord.config().bot_token)).await;
    assert_eq!(close_code(&mut client).await, 4005);
    let (mut client, _) = session(&discord).await;
    discord.close_sessions(4009);
    assert_eq!(close_code(&mut client).await, 4009);
}
