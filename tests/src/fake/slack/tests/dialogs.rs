//! Modals, answers by `response_url`, commands and events, as the product would receive them.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_modal_opens_once_and_is_submitted() {
    let (slack, product) = (slack().await, Product::ok().await);
    let message = posted(&slack, card("x")).await;
    let view = json!({
        "type": "modal", "callback_id": "deny", "private_metadata": "run-1", "title": {"type": "plain_text", "text": "Deny"},
        "submit": {"type": "plain_text", "text": "Deny"}, "blocks": [{"type": "input", "block_id": "why", "label": {"type": "plain_text", "text": "Reason"},
        "element": {"type": "plain_text_input", "action_id": "reason", "multiline": true, "min_length": 3}}]
    });
    slack.click(ANN, &message, "Deny", product.url()).await.unwrap();
    let trigger = product.last().payload()["trigger_id"].clone();
    let opened = api(&slack, "views.open", json!({"trigger_id": trigger, "view": view})).await;
    assert_eq!(opened["ok"], true, "{opened}");
    assert_eq!(api(&slack, "views.open", json!({"trigger_id": trigger, "view": view})).await["error"], "exchanged_trigger_id");
    let modal = slack.wait_for_view(ANN, SOON).await.unwrap();
    assert_eq!((modal.visible_text().as_str(), modal.private_metadata().as_str()), ("Deny\nReason", "run-1"));

    let submit = |values: &[(&str, &str)], product: &Product| slack.submit_view(ANN, &modal.id, values, product.url());
    assert!(submit(&[], &product).await.unwrap_err().to_string().contains("insists"));
    assert!(submit(&[("Reason", "no")], &product).await.unwrap_err().to_string().contains("3 to 3000"));
    assert!(submit(&[("Reason", "because"), ("Other", "x")], &product).await.is_err());
    let picky = Product::answering(200, json!({"response_action": "errors", "errors": {"why": "say more"}})).await;
    submit(&[("Reason", "because")], &picky).await.unwrap();
    assert_eq!(slack.view(&modal.id).unwrap().errors["why"], "say more");
    submit(&[("reason", "not now")], &product).await.unwrap();
    let payload = product.last().payload();
    assert_eq!(payload["type"], "view_submission");
    assert_eq!(payload["view"]["state"]["values"]["why"]["reason"], json!({"type": "plain_text_input", "value": "not now"}));
    assert_eq!((&payload["view"]["callback_id"], &payload["view"]["private_metadata"]), (&json!("deny"), &json!("run-1")));
    assert!(!slack.view(&modal.id).unwrap().open);

    slack.click(ANN, &message, "Deny", product.url()).await.unwrap();
    slack.time().advance(Duration::from_secs(4));
    let late = json!({"trigger_id": product.last().payload()["trigger_id"], "view": view});
    assert_eq!(api(&slack, "views.open", late).await["error"], "expired_trigger_id");
    let long = json!({"type": "modal", "title": {"type": "plain_text", "text": "x".repeat(25)}, "blocks": view["blocks"]});
    let refused = api(&slack, "views.open", json!({"trigger_id": "x", "view": long})).await;
    assert_eq!((refused["error"].as_str(), refused["errors"].as_array().map(Vec::len)), (Some("invalid_arguments"), Some(2)), "{refused}");
}

#[tokio::test]
async fn an_answer_url_works_five_times_for_half_an_hour() {
    let (slack, product) = (slack().await, Product::ok().await);
    let message = posted(&slack, card("x")).await;
    slack.click(ANN, &message, "Approve", product.url()).await.unwrap();
    let url = product.last().payload()["response_url"].as_str().unwrap().to_owned();
    let answer = async |body: Value| {
        let response = slack.client.post(&url).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(
        answer(json!({"text": "only for you", "response_type": "ephemeral", "replace_original": false})).await,
        (200, "ok".to_owned())
    );
    assert_eq!(slack.ephemerals(ANN)[0].text, "only for you");
    answer(json!({"text": "decided", "replace_original": true, "blocks": []})).await;
    assert_eq!(slack.current(&message).unwrap().visible_text(), "decided");
    answer(json!({"text": "for all", "response_type": "in_channel"})).await;
    assert_eq!(slack.channel(OPS).messages().len(), 2);
    assert_eq!(answer(json!({"blocks": [{"type": "nonsense"}], "text": "x"})).await, (400, "invalid_blocks".to_owned()));
    assert_eq!(answer(json!({"delete_original": true})).await.0, 200);
    assert!(slack.current(&message).is_err());
    assert_eq!(answer(json!({"text": "sixth"})).await, (404, "used_url".to_owned()));

    let again = posted(&slack, card("y")).await;
    slack.click(ANN, &again, "Approve", product.url()).await.unwrap();
    let url = product.last().payload()["response_url"].as_str().unwrap().to_owned();
    slack.time().advance(Duration::from_secs(1801));
    let late = slack.client.post(&url).json(&json!({"text": "x"})).send().await.unwrap();
    assert_eq!((late.status().as_u16(), late.text().await.unwrap()), (404, "expired_url".to_owned()));
    assert_eq!(slack.refused().len(), 3);
}

#[tokio::test]
async fn commands_and_events() {
    let slack = slack().await;
    let product = Product::answering(200, json!({"response_type": "ephemeral", "text": "2 open incidents"})).await;
    slack.command(ANN, OPS, "/incident", "list all & more", product.url()).await.unwrap();
    let received = product.last();
    assert!(verifies(&slack, &received));
    let fields: HashMap<String, String> = form::decode(&received.body).into_iter().collect();
    assert_eq!((fields["command"].as_str(), fields["text"].as_str(), fields["user_id"].as_str()), ("/incident", "list all & more", ANN));
    assert_eq!(slack.ephemerals(ANN)[0].text, "2 open incidents");
    let url = fields["response_url"].clone();
    slack.client.post(&url).json(&json!({"text": "later"})).send().await.unwrap();
    assert_eq!(slack.ephemerals(ANN).len(), 2);
    let broken = Product::answering(200, json!({"text": "x", "blocks": [{"type": "nonsense"}]})).await;
    assert!(slack.command(ANN, OPS, "/incident", "", broken.url()).await.unwrap_err().to_string().contains("unsupported type"));

    let product = Product::ok().await;
    slack.url_verification(product.url()).await.unwrap();
    assert!(serde_json::from_str::<Value>(&product.last().body).unwrap()["challenge"].is_string());
    let event =
        json!({"type": "app_mention", "user": ANN, "text": "<@U0BOT0001> hi", "channel": OPS, "ts": "1.000001", "event_ts": "1.000001"});
    slack.event(&event, product.url()).retry(1, "http_timeout").await.unwrap();
    let body: Value = serde_json::from_str(&product.last().body).unwrap();
    assert_eq!(
        (&body["type"], &body["event"]["type"], &product.last().headers["x-slack-retry-num"]),
        (&json!("event_callback"), &json!("app_mention"), &"1".to_owned())
    );
    assert!(body["event_id"].as_str().unwrap().starts_with("Ev"));
}
