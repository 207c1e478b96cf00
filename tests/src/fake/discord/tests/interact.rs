//! Interactions over HTTP: buttons, modals, commands, follow-ups, and the endpoint's check.

use ed25519_dalek::{Signature, Verifier, VerifyingKey};

use super::*;

/// Checks the signature with the public key alone, as the product has to.
fn verifies(public_key: &str, received: &Received) -> bool {
    let Some(signature) = received.headers.get("x-signature-ed25519") else { return false };
    let key = VerifyingKey::from_bytes(&hex::decode(public_key).unwrap().try_into().unwrap()).unwrap();
    let signature = Signature::from_slice(&hex::decode(signature).unwrap()).unwrap();
    key.verify(format!("{}{}", received.headers["x-signature-timestamp"], received.body).as_bytes(), &signature).is_ok()
}

/// A product that checks signatures, answers PING and otherwise as told.
async fn checking(discord: &FakeDiscord, answer: Value) -> Product {
    let key = discord.public_key();
    Product::by(Duration::ZERO, move |received| match received {
        received if !verifies(&key, received) => (401, Value::Null),
        received if received.json()["type"] == 1 => (200, json!({"type": 1})),
        _ => (200, answer.clone()),
    })
    .await
}

#[tokio::test]
async fn a_click_arrives_signed_and_complete() {
    let discord = discord().await;
    let product = checking(&discord, json!({"type": 6})).await;
    discord.verify_endpoint(&product.url()).await.unwrap();
    let message = posted(&discord, card("API down")).await;
    let outcome = discord.click(ANN, &message, "Approve", product.url()).await.unwrap();
    assert_eq!((outcome.reply.status, outcome.interaction.response_type()), (200, Some(6)));
    let payload = product.last().json();
    assert_eq!((&payload["type"], &payload["version"]), (&json!(3), &json!(1)));
    assert_eq!((&payload["data"]["custom_id"], &payload["data"]["component_type"]), (&json!("approve:run-1"), &json!(2)));
    assert_eq!((&payload["member"]["user"]["id"], &payload["member"]["roles"]), (&json!(ANN), &json!(["1100000000000000301"])));
    assert_eq!(
        (&payload["guild_id"], &payload["channel_id"], &payload["message"]["id"]),
        (&json!("1100000000000000100"), &json!(OPS), &json!(message.id))
    );
    for field in [
        "token",
        "app_permissions",
        "locale",
        "guild_locale",
        "entitlements",
        "channel",
        "application_id",
        "attachment_size_limit",
        "context",
    ] {
        assert!(!payload[field].is_null(), "{field} is missing");
    }
    assert!(discord.click(ANN, &message, "Escalate", product.url()).await.is_err());

    assert_eq!(discord.click(ANN, &message, "Deny", product.url()).forged().await.unwrap().reply.status, 401);
    assert_eq!(discord.click(ANN, &message, "Deny", product.url()).unsigned().await.unwrap().reply.status, 401);
    discord.click(ANN, &message, "deny:run-1", product.url()).of_guild("1").aged(Duration::from_secs(360)).await.unwrap();
    assert_eq!(product.last().json()["guild_id"], "1");
    let recorded = discord.click(ANN, &message, "Deny", product.url()).sign().unwrap();
    recorded.send().await.unwrap();
    let first = product.last();
    recorded.send().await.unwrap();
    assert_eq!(first.body, product.last().body);

    let slow = Product::by(Duration::from_secs(4), |_| (200, json!({"type": 6}))).await;
    assert!(discord.click(ANN, &message, "Approve", slow.url()).await.is_err());
    let wrong = Product::answering(200, json!({"type": 8})).await;
    let error = discord.click(ANN, &message, "Approve", wrong.url()).await.err().unwrap().to_string();
    assert!(error.contains("This interaction failed"), "{error}");
    let loose = Product::answering(200, json!({"type": 1})).await;
    assert!(discord.verify_endpoint(&loose.url()).await.unwrap_err().to_string().contains("bad signature"));
}

#[tokio::test]
async fn follow_ups_use_the_token_for_fifteen_minutes() {
    let discord = discord().await;
    let product = checking(&discord, json!({"type": 6})).await;
    let message = posted(&discord, card("x")).await;
    let outcome = discord.click(ANN, &message, "Approve", product.url()).await.unwrap();
    let hook = format!("/webhooks/{}/{}", discord.config().application_id, outcome.interaction.token);
    let (status, _) = call(&discord, "POST", &hook, json!({"content": "you may not", "flags": 64})).await;
    assert_eq!(status, 200);
    assert_eq!(outcome.interaction.followups()[0].content, "you may not");
    assert_eq!((discord.ephemerals(ANN).len(), discord.ephemerals(BEN).len(), discord.channel(OPS).messages().len()), (1, 0, 1));
    let (status, edited) =
        call(&discord, "PATCH", &format!("{hook}/messages/@original"), json!({"content": "done", "components": []})).await;
    assert_eq!((status, &edited["id"]), (200, &json!(message.id)));
    assert_eq!(discord.current(&message).unwrap().buttons(), []);
    let other = posted(&discord, card("y")).await;
    assert_eq!(call(&discord, "PATCH", &format!("{hook}/messages/{}", other.id), json!({"content": "x"})).await.0, 404);
    discord.time().advance(Duration::from_secs(901));
    assert_eq!(call(&discord, "POST", &hook, json!({"content": "late"})).await.1["code"], 50_027);
}

#[tokio::test]
async fn a_deferred_answer_is_filled_in_once() {
    let discord = discord().await;
    let product = checking(&discord, json!({"type": 5, "data": {"flags": 64}})).await;
    let message = posted(&discord, card("x")).await;
    let outcome = discord.click(ANN, &message, "Approve", product.url()).await.unwrap();
    let hook = format!("/webhooks/{}/{}", discord.config().application_id, outcome.interaction.token);
    assert_eq!(call(&discord, "GET", &format!("{hook}/messages/@original"), Value::Null).await.0, 404);
    call(&discord, "POST", &hook, json!({"content": "approved"})).await;
    assert_eq!(discord.ephemerals(ANN)[0].content, "approved", "the deferral's ephemeral flag holds");
    call(&discord, "POST", &hook, json!({"content": "for all"})).await;
    let texts: Vec<String> = outcome.interaction.followups().into_iter().map(|message| message.content).collect();
    assert_eq!(texts, ["approved", "for all"]);
    assert_eq!(outcome.interaction.original().unwrap().content, "approved");
    call(&discord, "DELETE", &format!("{hook}/messages/@original"), Value::Null).await;
    assert!(discord.ephemerals(ANN).is_empty());
}

#[tokio::test]
async fn answers_show_messages_and_updates() {
    let discord = discord().await;
    let message = posted(&discord, card("x")).await;
    let says = checking(&discord, json!({"type": 4, "data": {"content": "not you", "flags": 64, "allowed_mentions": {"parse": []}}})).await;
    let outcome = discord.click(BEN, &message, "Approve", says.url()).await.unwrap();
    assert_eq!(discord.ephemerals(BEN)[0].content, "not you");
    assert_eq!(outcome.interaction.wait_for_followup(|_| true, SOON).await.unwrap().content, "not you");
    let updates = checking(&discord, json!({"type": 7, "data": {"content": "approved", "components": []}})).await;
    discord.click(ANN, &message, "Approve", updates.url()).await.unwrap();
    assert_eq!(discord.current(&message).unwrap().content, "approved");
    let long = checking(&discord, json!({"type": 4, "data": {"content": "x".repeat(2001)}})).await;
    assert!(discord.click(ANN, &message, "Approve", long.url()).await.err().unwrap().to_string().contains("BASE_TYPE_MAX_LENGTH"));
}

#[tokio::test]
async fn a_modal_is_filled_in_and_submitted() {
    let discord = discord().await;
    let message = posted(&discord, card("x")).await;
    let input = json!({"type": 4, "custom_id": "reason", "label": "Reason", "style": 2, "min_length": 3});
    let modal =
        json!({"type": 9, "data": {"custom_id": "deny:run-1", "title": "Deny", "components": [{"type": 1, "components": [input]}]}});
    let opens = checking(&discord, modal).await;
    let opened = discord.click(ANN, &message, "Deny", opens.url()).await.unwrap().interaction.modal().unwrap();
    assert_eq!((opened.title.as_str(), opened.inputs[0].0.as_str()), ("Deny", "Reason"));
    let product = checking(&discord, json!({"type": 6})).await;
    assert!(discord.submit_modal(ANN, &opened, &[], product.url()).await.is_err());
    assert!(discord.submit_modal(ANN, &opened, &[("Reason", "no")], product.url()).await.is_err());
    assert!(discord.submit_modal(BEN, &opened, &[("Reason", "because")], product.url()).await.is_err());
    discord.submit_modal(ANN, &opened, &[("Reason", "because")], product.url()).await.unwrap();
    let payload = product.last().json();
    assert_eq!(
        (&payload["type"], &payload["data"]["custom_id"], &payload["message"]["id"]),
        (&json!(5), &json!("deny:run-1"), &json!(message.id))
    );
    assert_eq!(payload["data"]["components"][0]["components"][0]["value"], "because");
    let long = json!({"type": 9, "data": {"custom_id": "x", "title": "x".repeat(46), "components": []}});
    let long = checking(&discord, long).await;
    assert!(discord.click(ANN, &message, "Deny", long.url()).await.err().unwrap().to_string().contains("data"));
}

#[tokio::test]
async fn commands_are_typed_as_registered() {
    let discord = discord().await;
    let path = format!("/applications/{}/guilds/{}/commands", discord.config().application_id, discord.config().guild_id);
    let number = json!({"type": 4, "name": "number", "description": "Which", "required": true, "autocomplete": true});
    let ack = json!({"type": 1, "name": "ack", "description": "Acknowledge", "options": [number]});
    call(&discord, "PUT", &path, json!([{"name": "incident", "description": "Incidents", "options": [ack]}])).await;
    let product = checking(&discord, json!({"type": 5, "data": {"flags": 64}})).await;
    discord.command(ANN, OPS, "/incident ack", &[("number", json!(142))], product.url()).await.unwrap();
    let data = product.last().json()["data"].clone();
    assert_eq!((&data["name"], &data["options"][0]["name"]), (&json!("incident"), &json!("ack")));
    assert_eq!(data["options"][0]["options"][0], json!({"name": "number", "type": 4, "value": 142}));
    for (line, options) in
        [("oncall", vec![]), ("incident", vec![]), ("incident ack", vec![]), ("incident ack", vec![("number", json!(1)), ("x", json!(1))])]
    {
        assert!(discord.command(ANN, OPS, line, &options, product.url()).await.is_err(), "{line}");
    }
    let choices = checking(&discord, json!({"type": 8, "data": {"choices": [{"name": "#142 API down", "value": 142}]}})).await;
    let outcome = discord.autocomplete(ANN, OPS, "incident ack", ("number", "14"), choices.url()).await.unwrap();
    assert_eq!(outcome.interaction.choices(), [("#142 API down".to_owned(), json!(142))]);
    assert_eq!(choices.last().json()["data"]["options"][0]["options"][0]["focused"], true);
}
