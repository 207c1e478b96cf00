//! What the Web API refuses.

use serde_json::json;

use super::super::Channel;
use super::*;

#[tokio::test]
async fn refuses_calls_as_the_web_api_does() {
    let slack = slack().await;
    slack.put_channel(Channel { is_member: false, ..Channel::new("C0FAR0001", "far") });
    slack.put_channel(Channel { is_archived: true, ..Channel::new("C0OLD0001", "old") });
    let theirs = slack.say(ANN, OPS, "hello").unwrap();
    let root = api(&slack, "chat.postMessage", json!({"channel": OPS, "text": "root"})).await["ts"].clone();
    let reply = api(&slack, "chat.postMessage", json!({"channel": OPS, "text": "reply", "thread_ts": root})).await["ts"].clone();
    let cases = [
        ("chat.postMessage", json!({"channel": "C0NONE", "text": "x"}), "channel_not_found"),
        ("chat.postMessage", json!({"channel": "#ops", "text": "x"}), "channel_not_found"),
        ("chat.postMessage", json!({"channel": "C0FAR0001", "text": "x"}), "not_in_channel"),
        ("chat.postMessage", json!({"channel": "C0OLD0001", "text": "x"}), "is_archived"),
        ("chat.postMessage", json!({"channel": OPS, "blocks": [json!({"type": "divider"})]}), "no_text"),
        ("chat.postMessage", json!({"channel": OPS, "text": "x".repeat(40_001)}), "msg_too_long"),
        ("chat.postMessage", json!({"channel": OPS, "text": "x", "thread_ts": "1.000001"}), "message_not_found"),
        ("chat.postMessage", json!({"channel": OPS, "text": "x", "thread_ts": reply}), "cannot_reply_to_message"),
        ("chat.postMessage", json!({"channel": OPS, "text": "x", "blocks": "{"}), "invalid_blocks_format"),
        ("chat.postMessage", json!({"text": "x"}), "invalid_arguments"),
        ("chat.update", json!({"channel": OPS, "ts": "1.000001", "text": "x"}), "message_not_found"),
        ("chat.update", json!({"channel": OPS, "ts": theirs.ts, "text": "x"}), "cant_update_message"),
        ("chat.delete", json!({"channel": OPS, "ts": theirs.ts}), "cant_delete_message"),
        ("chat.postEphemeral", json!({"channel": OPS, "user": "U0NOBODY", "text": "x"}), "user_not_in_channel"),
        ("users.info", json!({"user": "U0NOBODY"}), "user_not_found"),
        (
            "views.open",
            json!({"trigger_id": "1.2.3", "view": {"type": "modal", "title": {"type": "plain_text", "text": "x"}, "blocks": []}}),
            "invalid_trigger_id",
        ),
        ("conversations.replies", json!({"channel": OPS, "ts": "1.000001"}), "thread_not_found"),
        ("chat.postMassage", json!({}), "unknown_method"),
    ];
    for (method, args, wanted) in cases {
        assert_eq!(api(&slack, method, args.clone()).await["error"], wanted, "{method} {args}");
    }
    assert_eq!(api(&slack, "users.info", json!({"user": "U0GUEST01"})).await["user"]["is_restricted"], true);
}

#[tokio::test]
async fn checks_tokens_and_content_types() {
    let slack = slack().await;
    let url = format!("{}/chat.postMessage", slack.api_url());
    let send = async |request: reqwest::RequestBuilder| request.send().await.unwrap().json::<Value>().await.unwrap();
    let good = json!({"channel": OPS, "text": "x"});
    let post = || slack.client.post(&url);
    let token = slack.config().bot_token.clone();
    assert_eq!(send(post().json(&good)).await["error"], "not_authed");
    assert_eq!(send(post().bearer_auth("xoxb-wrong").json(&good)).await["error"], "invalid_auth");
    assert_eq!(send(post().header("authorization", &token).json(&good)).await["error"], "invalid_auth");
    assert_eq!(send(post().bearer_auth(&slack.config().app_token).json(&good)).await["error"], "not_allowed_token_type");
    assert_eq!(send(post().bearer_auth(&token).body("{}")).await["error"], "missing_post_type");
    assert_eq!(send(post().bearer_auth(&token).header("content-type", "text/csv").body("x")).await["error"], "invalid_post_type");
    assert_eq!(send(post().bearer_auth(&token).header("content-type", "application/json").body("{")).await["error"], "invalid_json");
    assert_eq!(send(post().bearer_auth(&token).json(&json!([1]))).await["error"], "json_not_object");
    let blocks = json!([json!({"type": "section", "text": {"type": "mrkdwn", "text": "by form"}})]).to_string();
    let form = [("channel", OPS), ("text", "x & y"), ("blocks", &blocks), ("token", &token)];
    assert_eq!(send(post().form(&form)).await["ok"], true);
    assert_eq!(slack.channel(OPS).messages()[0].visible_text(), "by form");
    assert!(!slack.calls().iter().any(|call| call.args.to_string().contains(&token)));
    let test = slack.client.get(format!("{}/auth.test", slack.api_url())).bearer_auth(&token);
    assert_eq!(send(test).await["team_id"], "T0WATCH01");
}
