//! The example, and every kind of mistake in the server's part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use domain::rules::schema::{Rules, SERVER_KEYS};
use secrecy::ExposeSecret;

use super::*;

mod mistakes;

const EXAMPLE: &str = include_str!("../../../deploy/watchkeeper.example.yaml");
const SECRET: &str = "a-secret-of-more-than-16-bytes";

fn env(name: &str) -> Option<String> {
    match name {
        "TOKEN" | "PGPASSWORD" | "PING_ID" | "DEPLOY_HOOK_SECRET" | "DISCORD_BOT_TOKEN" => Some(format!("{SECRET}-{name}")),
        "PORT" => Some("9999".to_owned()),
        "SHORT" => Some("abc".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn secret_file(path: &Path) -> io::Result<String> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("empty") => Ok("\n".to_owned()),
        Some("nothing") => Err(io::Error::from(io::ErrorKind::NotFound)),
        _ => Ok(format!("{SECRET}\n")),
    }
}

fn load(text: &str) -> Result<Config, Vec<Problem>> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), text).unwrap();
    Config::load_with(dir.path(), &Lookup { env: &env, file: &secret_file })
}

/// The findings, less the name of the temporary folder.
fn problems(text: &str) -> String {
    match load(text) {
        Ok(_) => "no findings".to_owned(),
        Err(problems) => problems.iter().map(|p| nowhere(&p.to_string())).collect::<Vec<_>>().join("\n"),
    }
}

fn nowhere(text: &str) -> String {
    let temp = std::env::temp_dir().display().to_string();
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(&temp) {
        out.push_str(&rest[..start]);
        rest = &rest[start + temp.len()..];
        // `/.tmpXXXXXX/`
        rest = rest[1..].split_once('/').map_or("", |(_, rest)| rest);
    }
    out + rest
}

#[test]
fn the_example_loads_with_the_real_actions() {
    let config = load(EXAMPLE).unwrap_or_else(|_| panic!("{}", problems(EXAMPLE)));
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:9095");
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/watchkeeper"));
    assert_eq!(config.store.url.expose_secret(), "sqlite:/var/lib/watchkeeper/watchkeeper.db");
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["alertmanager"]);
    assert_eq!(config.rules.runbooks.len(), 2);
    assert_eq!(config.rules.texts[0].0, "a.yaml", "names are relative, so that the digest is the same everywhere");
}

/// What the example shows in comments must be right too: with the comments taken away it says everything at once.
#[test]
fn what_the_example_has_commented_out_is_right_as_well() {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        let bare = line.trim_start();
        let shown = bare.strip_prefix("# ").filter(|rest| {
            let key = rest.trim_start().split(':').next().unwrap_or_default();
            let word = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '-');
            word && rest.contains(':') && !rest.contains("watchkeeper check") && !rest.starts_with("observe")
        });
        match shown {
            Some(rest) => text.push_str(&format!("{}{rest}\n", &line[..line.len() - bare.len()])),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    let text = text.replace("public_key: 6f1d...", &format!("public_key: {}", "6f1d".repeat(16))).replace("include: [packs/*.yaml]", "");
    // The stream's source is shown only by name.
    let text = text.replace("subscriptions:", "subscriptions: {} #").replace("tasks: { stream", "# tasks: { stream");
    let config = load(&text).unwrap_or_else(|_| panic!("{}\n{text}", problems(&text)));
    assert!(config.slack.is_some() && config.discord.is_some() && config.nats.is_some() && config.heartbeat.is_some());
    assert!(config.server.tls.is_some() && config.telemetry.metrics_token.is_some() && config.store.postgres);
    assert_eq!(config.sources.len(), 2);
    assert_eq!(config.keys.button.len(), 1);
    assert_eq!(config.rules.channels.len(), 2);
    assert!(config.rules.targets.contains_key("scraper"));
}

#[test]
fn secrets_come_from_outside_and_are_gathered() {
    let config = load(
        r#"
sources:
  one: { kind: alertmanager, auth: { bearer: ['${TOKEN}', "${PGPASSWORD}"], basic: { user: am, password_file: pw } } }
store: { url: 'postgres://u:${PGPASSWORD}@h/d' }
keys: { button: [k/b1, k/b2], session: s, audit: /a }
server: { listen: '127.0.0.1:${PORT}', public_url: 'https://wk.example.com/' }
telemetry: { metrics_token_file: m }
data_dir: data
"#,
    );
    let config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(config.server.listen.port(), 9999);
    assert_eq!((config.server.public_url.as_str(), config.server.https()), ("https://wk.example.com", true));
    assert_eq!(config.store.url.expose_secret(), &format!("postgres://u:{SECRET}-PGPASSWORD@h/d"));
    assert!(config.data_dir.is_absolute() && config.keys.button[0].is_absolute() && config.keys.audit == [PathBuf::from("/a")]);
    let mut secrets: Vec<&str> = config.secrets.iter().map(|secret| secret.expose_secret()).collect();
    secrets.sort_unstable();
    secrets.dedup();
    assert_eq!(secrets, [SECRET, &format!("{SECRET}-PGPASSWORD"), &format!("{SECRET}-TOKEN")]);
    let kept = config.rules.texts.iter().any(|(_, text)| text.contains(SECRET));
    assert!(!kept, "the texts are stored: no secret is in them");
}

#[test]
fn the_audit_log_is_kept_for_as_long_as_incidents_unless_it_is_said() {
    let kept = |retention: &str| {
        let config = load(&format!("server: {{ listen: '127.0.0.1:0' }}\nretention: {{ {retention} }}\n")).unwrap();
        config.retention.audit.human()
    };
    assert_eq!(
        [kept("dead: 1d"), kept("incidents: 800d"), kept("incidents: 30d"), kept("audit: 90d")],
        ["400 d", "800 d", "400 d", "90 d"]
    );
    assert!(problems("retention: { audit: 1h }").contains("`audit` is kept for less than a day"));
}

#[test]
fn a_pretended_secret_passes_wherever_a_secret_can_stand() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
sources:
  a: { kind: alertmanager, auth: { bearer: '${A}' } }
  b: { kind: alertmanager, auth: { hmac: { form: standard-webhooks, secret_file: b } } }
"#;
    fs::write(dir.path().join("a.yaml"), text).unwrap();
    let config = Config::load_with(&dir.path().join("a.yaml"), &Lookup::pretended());
    assert_eq!(config.map(|config| config.sources.len()).map_err(|problems| format!("{problems:?}")), Ok(2));
}

#[test]
fn a_source_of_the_bus_needs_no_secret_for_http() {
    let text = r#"
nats: { url: ["nats://a:4222", "tls://b:4222"], subscriptions: { tasks: { stream: TASKS, subjects: task.created } } }
sources: { tasks: { kind: generic, map: { labels: { alertname: '"TaskCreated"', id: body.id } } } }
"#;
    let config = load(text).unwrap_or_else(|problems| panic!("{problems:?}"));
    let nats = config.nats.unwrap();
    assert_eq!((nats.link.urls.len(), nats.subscriptions["tasks"].durable.as_str()), (2, "watchkeeper-tasks"));
}

#[test]
fn the_schema_and_the_keys_agree() {
    let schema = json_schema().to_value();
    let properties = schema["properties"].as_object().unwrap();
    let mut keys: Vec<&str> = Rules::KEYS.into_iter().chain(SERVER_KEYS).collect();
    keys.sort_unstable();
    assert_eq!(properties.keys().map(String::as_str).collect::<Vec<_>>(), keys);
    let slack = &schema["$defs"]["WrittenSlack"];
    assert!(slack["properties"]["bot_token_file"].is_object());
    assert_eq!(slack["required"], serde_json::json!(["team_id"]));
    assert_eq!(schema["additionalProperties"], false);
}
