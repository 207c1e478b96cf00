//! Mappings as users write them, and what a body may do to them.

use super::*;

const DEPLOYS: &str = include_str!("../../fixtures/generic/deploys.json");

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn compiled(spec: Value) -> GenericMap {
    GenericMap::compile(&serde_json::from_value(spec).unwrap()).unwrap()
}

fn deploys() -> GenericMap {
    compiled(json!({
        "each": "body.failures",
        "fingerprint": "body.project + '/' + item.job",
        "status": "item.ok ? 'resolved' : 'firing'",
        "labels": {
            "alertname": "'DeployFailed'",
            "job": "item.job",
            "project": "body.project",
            "attempt": "has(item.attempt) ? item.attempt : null",
            "event": "headers['x-ci-event']",
        },
        "annotations": {"summary": "item.job + ' failed'", "note": "has(item.note) ? item.note : ''"},
        "starts_at": "item.at",
        "ends_at": "item.at",
        "url": "has(item.log) ? item.log : ''",
    }))
}

fn headers() -> Vec<(String, String)> {
    vec![("x-ci-event".to_owned(), "deploy".to_owned())]
}

#[test]
fn each_item_is_an_alert() {
    let body: Value = serde_json::from_str(DEPLOYS).unwrap();
    let found = map(&deploys(), body, &headers(), now()).unwrap();
    assert_eq!(found.len(), 2);
    let (failed, fine) = (&found[0], &found[1]);
    assert_eq!((failed.fingerprint.as_str(), failed.status, failed.ends_at), ("shop/deploy-cart", Status::Firing, None));
    assert_eq!(failed.labels["attempt"], "2");
    assert_eq!(failed.labels["event"], "deploy");
    assert_eq!(failed.annotations["note"], "exit 1␀");
    assert_eq!(failed.starts_at, "2026-11-20T10:00:00Z".parse().unwrap());
    assert_eq!(failed.generator_url.as_deref(), Some("https://ci.example.com/811"));
    assert_eq!((fine.status, fine.ends_at), (Status::Resolved, Some("2026-11-20T10:01:00Z".parse().unwrap())));
    assert!(!fine.labels.contains_key("attempt"), "null leaves a label out");
    assert!(!fine.annotations.contains_key("note"));
}

#[test]
fn a_body_without_each_is_one_alert_that_fires_from_its_arrival() {
    let how = compiled(json!({"labels": {"alertname": "body.title", "n": "body.n", "yes": "true"}}));
    let found = map(&how, json!({"title": "Disk", "n": 1.5}), &[], now()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].status, found[0].starts_at), (Status::Firing, now()));
    assert_eq!((found[0].labels["n"].as_str(), found[0].labels["yes"].as_str()), ("1.5", "true"));
    let again = map(&how, json!({"n": 1.5, "title": "Disk"}), &[], now()).unwrap();
    assert_eq!(found[0].fingerprint, again[0].fingerprint, "the labels are the identity");
    assert_ne!(found[0].fingerprint, map(&how, json!({"title": "Disk", "n": 2}), &[], now()).unwrap()[0].fingerprint);
}

#[test]
fn times_are_text_or_seconds_and_status_may_be_a_boolean() {
    let how = compiled(json!({"labels": {"alertname": "'x'"}, "status": "body.bad", "starts_at": "body.at", "ends_at": "body.at"}));
    let read = |body: Value| map(&how, body, &[], now());
    assert_eq!(read(json!({"bad": true, "at": 1_763_632_800})).unwrap()[0].starts_at, "2025-11-20T10:00:00Z".parse().unwrap());
    assert_eq!(read(json!({"bad": false, "at": 1_763_632_800.25})).unwrap()[0].ends_at, Some("2025-11-20T10:00:00.25Z".parse().unwrap()));
    for at in [json!("soon"), json!([1]), json!(1e300)] {
        assert_eq!(read(json!({"bad": true, "at": at})).unwrap_err().at, "ends_at", "{at}");
    }
    assert_eq!(read(json!({"bad": "maybe", "at": null})).unwrap_err().at, "status");
}

#[test]
fn an_error_names_its_expression() {
    let body: Value = serde_json::from_str(DEPLOYS).unwrap();
    let error = map(&deploys(), json!({"project": "shop", "failures": [{"ok": true}]}), &headers(), now()).unwrap_err();
    assert!(["labels.job", "fingerprint"].contains(&error.at.as_str()), "{error}");
    assert_eq!(map(&deploys(), json!({"failures": 3}), &headers(), now()).unwrap_err().at, "each");
    let list = compiled(json!({"labels": {"alertname": "body.failures"}}));
    assert_eq!(map(&list, body, &[], now()).unwrap_err().at, "labels.alertname");
}

#[test]
fn what_cannot_work_is_refused_at_load() {
    let refused = |spec: Value| GenericMap::compile(&serde_json::from_value(spec).unwrap()).unwrap_err().at;
    assert_eq!(refused(json!({})), "labels");
    assert_eq!(refused(json!({"labels": {"a": "item.x"}})), "labels.a", "`item` needs `each`");
    assert_eq!(refused(json!({"each": "item", "labels": {"a": "'x'"}})), "each");
    assert_eq!(refused(json!({"labels": {"a": "'x'"}, "status": "body."})), "status");
    assert!(serde_json::from_value::<MapSpec>(json!({"label": {}})).is_err());
}

#[test]
fn work_is_bounded() {
    let items: Vec<Value> = (0..=MAX_ITEMS).map(Value::from).collect();
    let how = compiled(json!({"each": "body.items", "labels": {"alertname": "string(item)"}}));
    assert_eq!(map(&how, json!({"items": items}), &[], now()).unwrap_err().at, "each");
    let wide = compiled(json!({"each": "body.items", "labels": {"alertname": "body.name"}}));
    let body = json!({"items": vec![0; 2000], "name": "x", "pad": "x".repeat(100_000)});
    assert_eq!(map(&wide, body, &[], now()).unwrap_err().at, "each");
}
