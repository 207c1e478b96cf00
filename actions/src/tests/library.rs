//! The catalogue itself, and the small actions.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::action::{ActionCatalogue, Effect, Risk};
use serde_json::json;
use tokio::time::Instant;

use super::{SECRET, World, failed, nothing, refused, target};

#[tokio::test]
async fn names_are_unique_and_risks_are_as_documented() {
    let world = World::new().await;
    let all = world.library.all();
    let names: BTreeSet<&str> = all.iter().map(|action| action.name()).collect();
    assert_eq!(names.len(), all.len());
    // One file per action: a name used twice would hide one of them in the table.
    let listed = include_str!("../lib.rs").split_once("\nactions! {").unwrap().1.split_once('}').unwrap().0;
    assert_eq!(listed.split(',').filter(|name| !name.trim().is_empty()).count(), all.len());
    let table: Vec<_> = all.iter().map(|action| (action.name(), action.risk(), action.effect())).collect();
    assert_eq!(
        table,
        [
            ("collect.bundle", Risk::Read, Effect::ReadOnly),
            ("command", Risk::Disruptive, Effect::AtMostOnce),
            ("http.check", Risk::Read, Effect::ReadOnly),
            ("http.request", Risk::Disruptive, Effect::AtMostOnce),
            ("notify", Risk::Reversible, Effect::Idempotent),
            ("service.restart", Risk::Disruptive, Effect::Idempotent),
            ("service.status", Risk::Read, Effect::ReadOnly),
            ("wait", Risk::Read, Effect::ReadOnly),
        ]
    );
    assert!(world.library.get("command").is_some() && world.library.get("commands").is_none());
}

#[tokio::test]
async fn every_action_describes_itself_and_refuses_unknown_parameters() {
    let world = World::new().await;
    let api = target("api", "process", json!({"program": "/bin/sleep"}));
    for action in world.library.all() {
        let schema = action.schema();
        assert_eq!(schema.get("additionalProperties"), Some(&json!(false)), "{}", action.name());
        assert!(action.about().ends_with('.'), "{}", action.name());
        let error = action.check(&json!({"surprise": 1}), Some(&api)).unwrap_err();
        assert!(error.contains("no parameter \"surprise\""), "{}: {error}", action.name());
        assert!(!refused(action.run(&world.cx(Some(&api), Duration::from_secs(1)), &json!({"surprise": 1})).await).is_empty());
    }
}

#[tokio::test]
async fn a_wait_is_bounded_and_waits() {
    let world = World::new().await;
    let wait = world.action("wait");
    assert!(wait.check(&json!({"for": "10m"}), None).is_ok());
    assert!(wait.check(&json!({"for": "601s"}), None).unwrap_err().contains("longer than 10m"));
    assert!(wait.check(&nothing(), None).unwrap_err().contains("`for`"));
    let began = Instant::now();
    let output = world.run("wait", json!({"for": "50ms"})).await.unwrap();
    assert_eq!(output.summary, "waited 50 ms");
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_message_is_handed_over_without_secrets() {
    let world = World::new().await;
    let text = format!("restarted with {SECRET} @everyone");
    world.run("notify", json!({"channel": "ops", "text": text})).await.unwrap();
    let told = world.notes.told.lock().unwrap().clone();
    assert_eq!(told, [("ops".to_owned(), "restarted with [redacted] @everyone".to_owned())]);
    assert!(failed(world.run("notify", json!({"channel": "nowhere", "text": "x"})).await).contains("nowhere"));
    assert!(refused(world.run("notify", json!({"channel": "ops", "text": " "})).await).contains("empty"));
    assert!(refused(world.run("notify", json!({"channel": "ops", "text": "x".repeat(4001)})).await).contains("4000"));
}
