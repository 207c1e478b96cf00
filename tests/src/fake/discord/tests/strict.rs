//! What Discord refuses, and what text does in it.

use super::super::{Link, Mention};
use super::*;

/// The error code at a dotted path of a form error.
fn code_at(answer: &Value, path: &str) -> String {
    let at = path.split('.').fold(&answer["errors"], |at, part| &at[part]);
    at["_errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}

fn buttons(buttons: Vec<Value>) -> Value {
    json!({"content": "x", "components": [{"type": 1, "components": buttons}]})
}

fn button(id: &str) -> Value {
    json!({"type": 2, "style": 1, "label": "x", "custom_id": id})
}

#[tokio::test]
async fn refuses_forms_as_discord_does() {
    let discord = discord().await;
    let long = |count: usize| "x".repeat(count);
    let embed = |embed: Value| json!({"embeds": [embed]});
    let with = |mut button: Value, name: &str, value: Value| {
        button[name] = value;
        button
    };
    let cases = [
        (json!({"content": long(2001)}), "content", "BASE_TYPE_MAX_LENGTH"),
        (json!({"content": 1}), "content", "STRING_TYPE_CONVERT"),
        (json!({"embeds": vec![json!({"title": "x"}); 11]}), "embeds", "BASE_TYPE_MAX_LENGTH"),
        (embed(json!({"title": long(257)})), "embeds.0.title", "BASE_TYPE_MAX_LENGTH"),
        (embed(json!({"description": long(4097)})), "embeds.0.description", "BASE_TYPE_MAX_LENGTH"),
        (embed(json!({"fields": vec![json!({"name": "x", "value": "y"}); 26]})), "embeds.0.fields", "BASE_TYPE_MAX_LENGTH"),
        (embed(json!({"fields": [{"name": "x", "value": ""}]})), "embeds.0.fields.0.value", "BASE_TYPE_BAD_LENGTH"),
        (embed(json!({"fields": [{"name": "x", "value": long(1025)}]})), "embeds.0.fields.0.value", "BASE_TYPE_BAD_LENGTH"),
        (embed(json!({"fields": [{"value": "x"}]})), "embeds.0.fields.0.name", "BASE_TYPE_REQUIRED"),
        (embed(json!({"footer": {"text": long(2049)}})), "embeds.0.footer.text", "BASE_TYPE_BAD_LENGTH"),
        (embed(json!({"title": "x", "url": "javascript:alert(1)"})), "embeds.0.url", "URL_TYPE_INVALID_URL"),
        (embed(json!({"title": "x", "timestamp": "yesterday"})), "embeds.0.timestamp", "DATE_TIME_TYPE_PARSE"),
        (json!({"embeds": [{"description": long(4000)}, {"description": long(2001)}]}), "embeds", "MAX_EMBED_SIZE_EXCEEDED"),
        (
            json!({"content": "x", "components": vec![json!({"type": 1, "components": [button("a")]}); 6]}),
            "components",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (buttons((0..6).map(|id| button(&id.to_string())).collect()), "components.0.components", "BASE_TYPE_BAD_LENGTH"),
        (buttons(vec![button("a"), button("a")]), "components.0.components.1.custom_id", "COMPONENT_CUSTOM_ID_DUPLICATED"),
        (buttons(vec![button(&long(101))]), "components.0.components.0.custom_id", "BASE_TYPE_BAD_LENGTH"),
        (buttons(vec![with(button("a"), "label", json!(long(81)))]), "components.0.components.0.label", "BASE_TYPE_BAD_LENGTH"),
        (buttons(vec![with(button("a"), "style", json!(7))]), "components.0.components.0.style", "BASE_TYPE_CHOICES"),
        (buttons(vec![json!({"type": 2, "style": 5, "label": "x"})]), "components.0.components.0.url", "BASE_TYPE_REQUIRED"),
        (json!({"content": "x", "components": [{"type": 17}]}), "components.0.type", "BASE_TYPE_CHOICES"),
        (json!({"content": "x", "nonce": long(26)}), "nonce", "BASE_TYPE_MAX_LENGTH"),
        (json!({"content": "x", "flags": 64}), "flags", "MESSAGE_FLAGS_EPHEMERAL"),
        (json!({"content": "x", "flags": 1 << 15}), "flags", "INVALID_BITWISE_FLAG"),
        (
            json!({"content": "x", "allowed_mentions": {"parse": ["users"], "users": ["1"]}}),
            "allowed_mentions",
            "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE",
        ),
        (json!({"content": "x", "message_reference": {"message_id": "1"}}), "message_reference", "REPLIES_UNKNOWN_MESSAGE"),
    ];
    for (form, path, code) in cases {
        let (status, answer) = call(&discord, "POST", &format!("/channels/{OPS}/messages"), form).await;
        assert_eq!((status, &answer["code"]), (400, &json!(50_035)), "{answer}");
        assert_eq!(code_at(&answer, path), code, "{path}: {answer}");
    }
    assert!(discord.channel(OPS).messages().is_empty());
}

#[tokio::test]
async fn refuses_calls_as_discord_does() {
    let discord = discord().await;
    let theirs = discord.say(ANN, OPS, "hello").unwrap();
    let mine = posted(&discord, card("x")).await;
    let messages = format!("/channels/{OPS}/messages");
    let cases = [
        ("POST", "/channels/1/messages".to_owned(), json!({"content": "x"}), 404, 10_003),
        ("POST", messages.clone(), json!({"content": " "}), 400, 50_006),
        ("POST", messages.clone(), json!([]), 400, 50_109),
        ("PATCH", format!("{messages}/1"), json!({"content": "x"}), 404, 10_008),
        ("PATCH", format!("{messages}/{}", theirs.id), json!({"content": "x"}), 403, 50_005),
        ("PATCH", format!("{messages}/{}", mine.id), json!({"content": "", "embeds": []}), 400, 50_006),
        ("POST", format!("{messages}/{}/threads", mine.id), json!({"name": "x".repeat(101)}), 400, 50_035),
        ("POST", format!("{messages}/{}/threads", mine.id), json!({"name": "x", "auto_archive_duration": 5}), 400, 50_035),
        ("POST", "/interactions/1/t/callback".to_owned(), json!({"type": 6}), 404, 10_062),
        ("POST", format!("/webhooks/{}/t", discord.config().application_id), json!({"content": "x"}), 401, 50_027),
        ("GET", "/nonsense".to_owned(), Value::Null, 404, 0),
    ];
    for (method, path, body, status, code) in cases {
        let (got, answer) = call(&discord, method, &path, body).await;
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{method} {path}: {answer}");
    }
    let wrong =
        discord.client.get(format!("{}/api/v10/users/@me", discord.url())).header("user-agent", "x").header("authorization", "Bot wrong");
    assert_eq!(wrong.send().await.unwrap().status(), 401);
    let nameless = discord.client.get(format!("{}/api/v10/gateway", discord.url()));
    assert_eq!(nameless.send().await.unwrap().status(), 403);
    let old = discord.client.get(format!("{}/api/v8/gateway", discord.url()));
    assert_eq!(old.send().await.unwrap().status(), 404);
    assert_eq!(discord.invalid_requests(), 4);
    let (_, me) = call(&discord, "GET", "/users/@me", Value::Null).await;
    assert_eq!(me["id"], discord.config().application_id);
}

#[tokio::test]
async fn commands_are_registered_as_a_whole() {
    let discord = discord().await;
    let path = format!("/applications/{}/guilds/{}/commands", discord.config().application_id, discord.config().guild_id);
    let ack = json!({"type": 1, "name": "ack", "description": "Acknowledge", "options": [{"type": 4, "name": "number", "description": "Which", "required": true}]});
    let good = json!([{"name": "incident", "description": "Incidents", "options": [ack]}]);
    let (status, registered) = call(&discord, "PUT", &path, good).await;
    assert_eq!(status, 200, "{registered}");
    assert!(registered[0]["id"].is_string() && registered[0]["version"].is_string());
    let bad = json!([{"name": "Incident", "description": ""}, {"name": "Incident", "description": "x"}]);
    let (status, answer) = call(&discord, "PUT", &path, bad).await;
    assert_eq!(status, 400);
    assert_eq!(code_at(&answer, "0.name"), "APPLICATION_COMMAND_INVALID_NAME");
    assert_eq!(code_at(&answer, "0.description"), "BASE_TYPE_BAD_LENGTH");
    assert_eq!(code_at(&answer, "1.name"), "APPLICATION_COMMANDS_DUPLICATE_NAME");
    assert_eq!(call(&discord, "GET", &path, Value::Null).await.1[0]["name"], "incident");
}

#[tokio::test]
async fn text_pings_and_links_only_where_discord_lets_it() {
    let discord = discord().await;
    let hostile = "@everyone <@1100000000000000401> <@&1100000000000000301> [safe](https://evil.example) https://evil.example/x.";
    let active = posted(&discord, json!({"content": hostile})).await;
    assert_eq!(
        active.mentions(),
        [Mention::User(ANN.to_owned()), Mention::Role("1100000000000000301".to_owned()), Mention::Everyone("everyone".to_owned())]
    );
    assert_eq!(active.links()[0], Link { url: "https://evil.example".to_owned(), label: "safe".to_owned() });
    assert_eq!(active.links()[1].url, "https://evil.example/x");

    let quiet = posted(&discord, json!({"content": hostile, "allowed_mentions": {"parse": []}})).await;
    assert_eq!(quiet.mentions(), []);
    let only_ann = posted(&discord, json!({"content": hostile, "allowed_mentions": {"parse": [], "users": [ANN]}})).await;
    assert_eq!(only_ann.mentions(), [Mention::User(ANN.to_owned())]);
    let embedded =
        posted(&discord, json!({"embeds": [{"title": "<@1100000000000000401>", "description": "@here", "url": "https://a.example"}]}))
            .await;
    assert_eq!((embedded.mentions().len(), embedded.links().len()), (0, 1));

    let escaped = posted(&discord, json!({"content": "\\[x\\](y) a\\*b\\_c `[code](https://c.example)`"})).await;
    assert_eq!((escaped.visible_text().as_str(), escaped.links().len()), ("[x](y) a*b_c `[code](https://c.example)`", 0));
}
