//! What Block Kit refuses, and what text does in it.

use serde_json::json;

use super::super::{Link, Mention};
use super::*;

fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": text}})
}

fn button(label: &str) -> Value {
    json!({"type": "button", "text": {"type": "plain_text", "text": label}})
}

fn actions(elements: Vec<Value>) -> Value {
    json!({"type": "actions", "elements": elements})
}

#[tokio::test]
async fn refuses_blocks_as_block_kit_does() {
    let slack = slack().await;
    let long = |count: usize| "x".repeat(count);
    let with = |mut button: Value, name: &str, value: Value| {
        button[name] = value;
        button
    };
    let cases: Vec<(Vec<Value>, &str)> = vec![
        (vec![section("x"); 51], "no more than 50 items allowed [json-pointer:/blocks]"),
        (vec![section(&long(3001))], "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"),
        (vec![section("")], "must be more than 0 characters"),
        (vec![json!({"type": "section"})], "missing required field: text or fields"),
        (vec![json!({"type": "header", "text": {"type": "plain_text", "text": long(151)}})], "must be less than 151 characters"),
        (
            vec![json!({"type": "header", "text": {"type": "mrkdwn", "text": "x"}})],
            "unsupported type: mrkdwn [json-pointer:/blocks/0/text]",
        ),
        (vec![json!({"type": "section", "fields": vec![json!({"type": "mrkdwn", "text": "x"}); 11]})], "no more than 10 items allowed"),
        (vec![json!({"type": "section", "fields": [{"type": "mrkdwn", "text": long(2001)}]})], "/blocks/0/fields/0/text"),
        (vec![actions(vec![button("x"); 26])], "no more than 25 items allowed [json-pointer:/blocks/0/elements]"),
        (vec![actions(vec![])], "no less than 1 items allowed"),
        (vec![actions(vec![button(&long(76))])], "must be less than 76 characters"),
        (vec![actions(vec![with(button("x"), "value", json!(long(2001)))])], "must be less than 2001 characters"),
        (vec![actions(vec![with(button("x"), "action_id", json!(long(256)))])], "must be less than 256 characters"),
        (
            vec![actions(vec![with(button("x"), "action_id", json!("a")), with(button("y"), "action_id", json!("a"))])],
            "action_id already exists",
        ),
        (vec![actions(vec![with(button("x"), "style", json!("success"))])], "must be one of: primary, danger"),
        (vec![actions(vec![with(button("x"), "disabled", json!(true))])], "invalid additional property: disabled"),
        (vec![with(section("a"), "block_id", json!("b")), with(section("a"), "block_id", json!("b"))], "block_id already exists"),
        (vec![json!({"type": "context", "elements": vec![json!({"type": "mrkdwn", "text": "x"}); 11]})], "no more than 10 items allowed"),
        (vec![json!({"type": "container"})], "unsupported type: container"),
        (
            vec![json!({"type": "section", "text": {"type": "plain_text", "text": "x", "verbatim": true}})],
            "invalid additional property: verbatim",
        ),
    ];
    for (blocks, wanted) in cases {
        let answer = api(&slack, "chat.postMessage", json!({"channel": OPS, "text": "x", "blocks": blocks})).await;
        assert_eq!(answer["error"], "invalid_blocks", "{blocks:?}");
        let details = answer["response_metadata"]["messages"].to_string();
        assert!(details.contains(wanted), "wanted {wanted:?} in {details}");
    }
    let attached = json!({"channel": OPS, "text": "x", "attachments": [{"color": "#a30200", "blocks": [section(&long(3001))]}]});
    let answer = api(&slack, "chat.postMessage", attached).await;
    assert!(answer["errors"][0].as_str().unwrap().contains("json-pointer:/attachments/0/blocks/0/text"), "{answer}");
    assert!(slack.channel(OPS).messages().is_empty());
    assert_eq!(slack.refused().len(), 21);
}

#[tokio::test]
async fn text_acts_only_where_slack_lets_it() {
    let slack = slack().await;
    let show = async |args: Value| {
        let mut args = args;
        args["channel"] = json!(OPS);
        assert_eq!(api(&slack, "chat.postMessage", args).await["ok"], true);
        slack.channel(OPS).messages().pop().unwrap()
    };
    let active = show(json!({"text": "x", "blocks": [section("<!channel> <@U0ANN0001> <!subteam^S1> <https://evil.example|safe> <#C0DEV0001|dev> a &lt;b&gt; &amp; c")]})).await;
    assert_eq!(active.visible_text(), "@channel @U0ANN0001 @S1 safe #dev a <b> & c");
    assert_eq!(
        active.mentions(),
        [Mention::Everybody("channel".to_owned()), Mention::User(ANN.to_owned()), Mention::Group("S1".to_owned())]
    );
    assert_eq!(active.links()[0], Link { url: "https://evil.example".to_owned(), label: "safe".to_owned() });
    assert_eq!(active.links().len(), 2);

    let hostile = "&lt;!channel&gt; @here https://evil.example #general &lt;x|y&gt;";
    let inert = json!({"type": "section", "text": {"type": "mrkdwn", "text": hostile, "verbatim": true}});
    let plain = json!({"type": "header", "text": {"type": "plain_text", "text": "<!channel> https://evil.example"}});
    let rich =
        json!({"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [{"type": "text", "text": "<@U1> @here"}]}]});
    let inert = show(json!({"text": "calm", "blocks": [inert, plain, rich]})).await;
    assert_eq!((inert.mentions(), inert.links()), (vec![], vec![]));
    assert_eq!(inert.visible_text(), "<!channel> @here https://evil.example #general <x|y>\n<!channel> https://evil.example\n<@U1> @here");

    // Without `verbatim` Slack finds names and addresses by itself.
    let auto = show(json!({"text": "calm", "blocks": [section("@here see https://evil.example, #general")]})).await;
    assert_eq!(auto.mentions(), [Mention::Everybody("here".to_owned())]);
    assert_eq!(auto.links().len(), 2);
    // The notification text notifies too, though it is not shown beside blocks.
    let notified = show(json!({"text": "<!here> down", "blocks": [section("x")]})).await;
    assert_eq!((notified.mentions().len(), notified.notification().as_str()), (1, "@here down"));
    let named = json!({"text": "@everyone", "link_names": true});
    assert_eq!((show(named).await.mentions().len(), show(json!({"text": "@everyone"})).await.mentions().len()), (1, 0));

    let date = show(json!({"text": "<!date^0^since {date_num} {time}|long ago> <!date^x^{time}|never>"})).await;
    assert_eq!(date.visible_text(), "since 1970-01-01 00:00 never");
    let bar =
        show(json!({"text": "x", "attachments": [{"color": "#a30200", "blocks": [section("inside"), actions(vec![button("Go")])]}]})).await;
    assert_eq!((bar.color().as_deref(), bar.visible_text().as_str(), bar.buttons().len()), (Some("#a30200"), "x\ninside\nGo", 1));
}
