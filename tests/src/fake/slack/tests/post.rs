//! Messages: posting, editing, threads, reading, waiting; limits and faults.

use serde_json::json;

use super::*;
use crate::fake::Fault;

#[tokio::test]
async fn keeps_a_card_and_its_edits() {
    let slack = slack().await;
    let posted = api(&slack, "chat.postMessage", card("api down")).await;
    assert_eq!((posted["ok"].as_bool(), posted["channel"].as_str()), (Some(true), Some(OPS)), "{posted}");
    let ts = posted["ts"].as_str().unwrap().to_owned();
    assert_eq!(posted["message"]["blocks"][2]["block_id"], "decide");
    assert!(posted["message"]["blocks"][0]["block_id"].is_string());

    let shown = slack.channel("ops").wait_for(|message| message.text.contains("api down"), SOON).await.unwrap();
    assert_eq!(shown.visible_text(), "api down\n*api* is down\nenv: prod\nApprove\nDeny");
    assert_eq!(shown.buttons().iter().map(|button| button.label.as_str()).collect::<Vec<_>>(), ["Approve", "Deny"]);
    assert_eq!((shown.buttons()[0].style.as_str(), shown.buttons()[0].value.as_str()), ("primary", "run-1"));
    assert!(slack.unread().is_empty());

    let edited = json!({"channel": OPS, "ts": ts, "text": "resolved", "blocks": [{"type": "section", "text": {"type": "plain_text", "text": "Done"}}]});
    assert_eq!(api(&slack, "chat.update", edited).await["ok"], true);
    assert_eq!(slack.unread().len(), 1);
    let now = slack.wait_until(&shown, |message| message.edits.len() == 1, SOON).await.unwrap();
    assert_eq!((now.visible_text().as_str(), now.edits[0].text.as_str()), ("Done", "P1 api down"));

    // Blocks that an update does not name stay; an empty list removes them.
    api(&slack, "chat.update", json!({"channel": OPS, "ts": ts, "text": "again"})).await;
    assert_eq!(slack.current(&shown).unwrap().visible_text(), "Done");
    api(&slack, "chat.update", json!({"channel": OPS, "ts": ts, "text": "bare", "blocks": []})).await;
    assert_eq!(slack.current(&shown).unwrap().visible_text(), "bare");
    assert!(slack.refused().is_empty());
}

#[tokio::test]
async fn threads_are_read_back_in_order() {
    let slack = slack().await;
    let root = api(&slack, "chat.postMessage", card("root")).await["ts"].clone();
    for text in ["one", "two"] {
        let reply = json!({"channel": OPS, "text": text, "thread_ts": root, "reply_broadcast": text == "two"});
        assert_eq!(api(&slack, "chat.postMessage", reply).await["ok"], true);
    }
    let parent = slack.channel(OPS).messages().remove(0);
    let texts = |messages: Vec<Message>| messages.into_iter().map(|message| message.text).collect::<Vec<_>>();
    assert_eq!(texts(slack.channel(OPS).messages()), ["P1 root", "two"]);
    assert_eq!(texts(slack.channel(OPS).thread(&parent)), ["one", "two"]);

    let replies =
        slack.client.get(format!("{}/conversations.replies", slack.api_url())).query(&[("channel", OPS), ("ts", root.as_str().unwrap())]);
    let replies: Value = replies.bearer_auth(&slack.config().bot_token).send().await.unwrap().json().await.unwrap();
    let order: Vec<&str> = replies["messages"].as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(order, ["P1 root", "one", "two"]);
    assert_eq!(replies["messages"][0]["reply_count"], 2);
    let history = api(&slack, "conversations.history", json!({"channel": OPS, "limit": 1})).await;
    assert_eq!((history["messages"][0]["text"].as_str(), history["has_more"].as_bool()), (Some("two"), Some(true)));
    let link = api(&slack, "chat.getPermalink", json!({"channel": OPS, "message_ts": root})).await;
    assert!(link["permalink"].as_str().unwrap().ends_with(&root.as_str().unwrap().replace('.', "")));
}

#[tokio::test]
async fn metadata_finds_a_message_again() {
    let slack = slack().await;
    let metadata = json!({"event_type": "watchkeeper_card", "event_payload": {"delivery": "d-1"}});
    let first = api(&slack, "chat.postMessage", json!({"channel": OPS, "text": "one", "metadata": metadata})).await;
    api(&slack, "chat.postMessage", json!({"channel": OPS, "text": "two"})).await;
    let range = json!({"channel": OPS, "oldest": first["ts"], "inclusive": true, "include_all_metadata": true});
    let history = api(&slack, "conversations.history", range).await;
    assert_eq!((&history["messages"][1]["metadata"], history["messages"].as_array().unwrap().len()), (&metadata, 2));
    let later = api(&slack, "conversations.history", json!({"channel": OPS, "oldest": first["ts"]})).await;
    assert_eq!(later["messages"][0]["text"], "two");
    let broken = json!({"channel": OPS, "text": "x", "metadata": {"event_type": 1}});
    assert_eq!(api(&slack, "chat.postMessage", broken).await["error"], "invalid_metadata_schema");
}

#[tokio::test]
async fn ephemerals_are_seen_by_one_person_only() {
    let slack = slack().await;
    let only = json!({"channel": OPS, "user": ANN, "text": "you may not approve this"});
    let answer = api(&slack, "chat.postEphemeral", only).await;
    assert!(answer["message_ts"].is_string(), "{answer}");
    assert_eq!(slack.wait_for_ephemeral(ANN, |_| true, SOON).await.unwrap().text, "you may not approve this");
    assert!(slack.channel(OPS).messages().is_empty());
    assert!(slack.ephemerals("U0BEN0001").is_empty());
    let update = json!({"channel": OPS, "ts": answer["message_ts"], "text": "no"});
    assert_eq!(api(&slack, "chat.update", update).await["error"], "message_not_found");
}

#[tokio::test]
async fn waiting_for_nothing_says_what_is_there() {
    let slack = slack().await;
    api(&slack, "chat.postMessage", card("disk full")).await;
    let error = slack.channel(OPS).wait_for(|message| message.text == "other", Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().contains("disk full"), "{error}");
}

#[tokio::test]
async fn limits_answer_429_with_a_time_to_wait() {
    let slack = slack().await;
    slack.rate_limits(true);
    for index in 0..3 {
        assert_eq!(api(&slack, "chat.postMessage", card(&index.to_string())).await["ok"], true);
    }
    let post = || {
        slack.client.post(format!("{}/chat.postMessage", slack.api_url())).bearer_auth(&slack.config().bot_token).json(&card("four")).send()
    };
    let limited = post().await.unwrap();
    assert_eq!((limited.status().as_u16(), limited.headers()["retry-after"].to_str().unwrap()), (429, "3"));
    assert_eq!(limited.json::<Value>().await.unwrap(), json!({"ok": false, "error": "ratelimited"}));
    post().await.unwrap();
    assert_eq!((slack.throttled(), slack.impatient()), (2, 1));
    slack.time().advance(Duration::from_secs(3));
    assert_eq!(post().await.unwrap().status(), 200);
    // Another channel has a limit of its own, and edits are counted apart: 50 a minute.
    assert_eq!(api(&slack, "chat.postMessage", json!({"channel": "C0DEV0001", "text": "x"})).await["ok"], true);
    let ts = slack.channel(OPS).messages()[0].ts.clone();
    for _ in 0..50 {
        assert_eq!(api(&slack, "chat.update", json!({"channel": OPS, "ts": ts, "text": "x"})).await["ok"], true);
    }
    assert_eq!(api(&slack, "chat.update", json!({"channel": OPS, "ts": ts, "text": "x"})).await["error"], "ratelimited");
}

#[tokio::test]
async fn planted_faults_hit_once_each() {
    let slack = slack().await;
    let post = || {
        slack.client.post(format!("{}/chat.postMessage", slack.api_url())).bearer_auth(&slack.config().bot_token).json(&card("x")).send()
    };
    slack.fail("chat.postMessage", Fault::Status(502), 1);
    assert_eq!(post().await.unwrap().status(), 502);
    slack.fail("*", Fault::RateLimited(Duration::from_secs(7)), 1);
    assert_eq!(post().await.unwrap().headers()["retry-after"], "7");
    slack.fail("chat.postMessage", Fault::Answer(200, json!({"ok": false, "error": "fatal_error"})), 1);
    assert_eq!(post().await.unwrap().json::<Value>().await.unwrap()["error"], "fatal_error");
    slack.fail("chat.postMessage", Fault::Drop, 1);
    assert!(post().await.is_err());
    slack.fail("chat.postMessage", Fault::Hang(Duration::from_millis(30)), 1);
    assert!(post().await.is_err());
    assert!(slack.channel(OPS).messages().is_empty());

    slack.fail("chat.postMessage", Fault::Ambiguous, 1);
    assert!(post().await.is_err());
    assert_eq!(slack.channel(OPS).messages().len(), 1, "an ambiguous failure has happened all the same");
    slack.fail("chat.postMessage", Fault::Slow(Duration::from_millis(40)), 1);
    let started = std::time::Instant::now();
    assert_eq!(post().await.unwrap().status(), 200);
    assert!(started.elapsed() >= Duration::from_millis(40));
    let statuses: Vec<u16> = slack.calls_of("chat.postMessage").iter().map(|call| call.status).collect();
    assert_eq!(statuses, [502, 429, 200, 0, 0, 200, 200]);
    slack.fail("*", Fault::Drop, 9);
    slack.heal();
    assert_eq!(post().await.unwrap().status(), 200);
}
