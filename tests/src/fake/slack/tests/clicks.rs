//! Buttons and menus, as the product would receive them.

use serde_json::json;

use super::super::Choice;
use super::*;

#[tokio::test]
async fn a_click_arrives_signed_and_complete() {
    let (slack, product) = (slack().await, Product::ok().await);
    let message = posted(&slack, card("api down")).await;
    let reply = slack.click(ANN, &message, "Approve", product.url()).await.unwrap();
    assert!(reply.is_ok() && reply.took < Duration::from_secs(3));
    let received = product.last();
    assert!(verifies(&slack, &received));
    assert_eq!(received.headers["content-type"], "application/x-www-form-urlencoded");
    let payload = received.payload();
    assert_eq!(payload["type"], "block_actions");
    assert_eq!(payload["user"], json!({"id": ANN, "username": "ann", "name": "ann", "team_id": "T0WATCH01"}));
    assert_eq!(payload["container"], json!({"type": "message", "message_ts": message.ts, "channel_id": OPS, "is_ephemeral": false}));
    assert_eq!((&payload["channel"]["name"], &payload["message"]["ts"]), (&json!("ops"), &json!(message.ts)));
    let action = &payload["actions"][0];
    assert_eq!((&action["action_id"], &action["block_id"], &action["value"]), (&json!("approve"), &json!("decide"), &json!("run-1")));
    assert!(payload["trigger_id"].is_string() && payload["response_url"].is_string() && payload["api_app_id"] == "A0WATCH01");

    // By action id, by part of a label, in an attachment; but not by a name that nothing has.
    slack.click(ANN, &message, "deny", product.url()).await.unwrap();
    assert_eq!(product.last().payload()["actions"][0]["action_id"], "deny");
    assert!(slack.click(ANN, &message, "Escalate", product.url()).await.unwrap_err().to_string().contains("Approve"));
    assert!(slack.click("U0NOBODY", &message, "Deny", product.url()).await.is_err());
    let mut attached = card("x");
    attached["attachments"] = json!([{"color": "good", "blocks": attached["blocks"]}]);
    attached.as_object_mut().unwrap().remove("blocks");
    let attached = posted(&slack, attached).await;
    slack.click(ANN, &attached, "Appr", product.url()).await.unwrap();
    assert_eq!(
        (&product.last().payload()["container"]["type"], &product.last().payload()["container"]["attachment_id"]),
        (&json!("message_attachment"), &json!(1))
    );
}

#[tokio::test]
async fn the_other_ways_to_click() {
    let (slack, product) = (slack().await, Product::ok().await);
    let message = posted(&slack, card("x")).await;
    slack.click(ANN, &message, "Approve", product.url()).forged().await.unwrap();
    assert!(!verifies(&slack, &product.last()));
    slack.click(ANN, &message, "Approve", product.url()).unsigned().await.unwrap();
    assert!(!product.last().headers.contains_key("x-slack-signature"));
    slack.click(ANN, &message, "Approve", product.url()).aged(Duration::from_secs(360)).await.unwrap();
    assert!(verifies(&slack, &product.last()));
    let sent: i64 = product.last().headers["x-slack-request-timestamp"].parse().unwrap();
    assert!((355..=365).contains(&(slack.time().now().as_second() - sent)));
    slack.click(ANN, &message, "Approve", product.url()).of_team("T0EVIL").await.unwrap();
    assert_eq!(
        (&product.last().payload()["team"]["id"], &product.last().payload()["user"]["team_id"]),
        (&json!("T0EVIL"), &json!("T0EVIL"))
    );
    slack.click("U0OTHER01", &message, "Approve", product.url()).await.unwrap();
    assert_eq!(product.last().payload()["user"]["team_id"], "T0OTHER01");

    let recorded = slack.click(ANN, &message, "Approve", product.url()).sign().unwrap();
    recorded.send().await.unwrap();
    let first = product.last();
    recorded.send().await.unwrap();
    assert_eq!((first.body, &first.headers), (product.last().body, &product.last().headers), "a replay is the same to the byte");

    let slow = Product::by(Duration::from_secs(4), |_| (200, Value::Null)).await;
    let error = slack.click(ANN, &message, "Approve", slow.url()).await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
}

#[tokio::test]
async fn menus_are_chosen_from() {
    let (slack, product) = (slack().await, Product::ok().await);
    let option = |text: &str, value: &str| json!({"text": {"type": "plain_text", "text": text}, "value": value});
    let select = json!({"type": "static_select", "action_id": "silence", "placeholder": {"type": "plain_text", "text": "Silence"}, "options": [option("1 h", "1h"), option("4 h", "4h")]});
    let message = posted(&slack, json!({"channel": OPS, "text": "x", "blocks": [{"type": "actions", "elements": [select]}]})).await;
    assert_eq!(message.menus()[0].options[1], ("4 h".to_owned(), "4h".to_owned()));
    slack.choose(ANN, &message, Choice { menu: "Silence", option: "4 h" }, product.url()).await.unwrap();
    assert_eq!(product.last().payload()["actions"][0]["selected_option"]["value"], "4h");
    assert!(slack.choose(ANN, &message, Choice { menu: "Silence", option: "9 h" }, product.url()).await.is_err());
}
