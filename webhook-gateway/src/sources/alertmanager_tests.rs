//! What Alertmanager and Grafana really send, and what hostile or broken senders may.

use domain::event::{Labels, NewEvent, Payload};
use domain::rules::SourceRule;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::sources::events;

const FIRING: &str = include_str!("../../fixtures/alertmanager/firing.json");
const RESOLVED: &str = include_str!("../../fixtures/alertmanager/resolved.json");
const TRUNCATED: &str = include_str!("../../fixtures/alertmanager/truncated.json");
const GRAFANA: &str = include_str!("../../fixtures/alertmanager/grafana.json");
const WATCHDOG: &str = include_str!("../../fixtures/alertmanager/watchdog.json");

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn read(body: &str) -> Parsed {
    parse(body.as_bytes(), now()).unwrap()
}

fn one(alert: Value) -> Sighting {
    read(&json!({"alerts": [alert]}).to_string()).sightings.remove(0)
}

#[test]
fn a_firing_group_is_its_alerts() {
    let parsed = read(FIRING);
    assert_eq!((parsed.sightings.len(), parsed.left_out), (2, 0));
    let first = &parsed.sightings[0];
    assert_eq!(first.fingerprint, "6a9f3b1d2c4e5f70");
    assert_eq!(first.status, Status::Firing);
    assert_eq!(first.labels["instance"], "10.0.3.17:8080");
    assert_eq!(first.annotations["summary"], "api is down");
    assert_eq!(first.starts_at, "2026-11-20T04:55:07.203419Z".parse().unwrap(), "cut to microseconds");
    assert_eq!(first.ends_at, None, "year 1 is no time");
    assert!(first.generator_url.as_deref().unwrap().starts_with("http://prometheus.example.com:9090/graph?"));
    assert_eq!(first.external_url.as_deref(), Some("http://alertmanager.example.com:9093"));
    assert_eq!(first.cut, 0);
}

#[test]
fn a_resolve_has_its_end_in_any_offset_and_another_start() {
    let sighting = read(RESOLVED).sightings.remove(0);
    assert_eq!(sighting.status, Status::Resolved);
    assert_eq!(sighting.ends_at, Some("2026-11-20T05:02:37.203419Z".parse().unwrap()));
    assert_eq!(sighting.fingerprint, read(FIRING).sightings[0].fingerprint);
    assert_ne!(sighting.starts_at, read(FIRING).sightings[0].starts_at);
}

#[test]
fn what_was_left_out_is_counted_and_nothing_is_made_of_it() {
    let parsed = read(TRUNCATED);
    assert_eq!((parsed.sightings.len(), parsed.left_out), (1, 41));
    assert_eq!(parsed.sightings[0].generator_url, None, "an empty link is none");
}

#[test]
fn grafana_sends_the_same_and_its_links_become_annotations() {
    let sighting = read(GRAFANA).sightings.remove(0);
    assert_eq!(sighting.starts_at, "2026-11-20T07:30:10Z".parse().unwrap());
    assert!(sighting.annotations["dashboard_url"].starts_with("https://grafana.example.com/d/"));
    assert!(sighting.annotations["panel_url"].ends_with("viewPanel=2"));
    assert!(sighting.annotations["silence_url"].contains("/alerting/silence/new?"));
}

#[test]
fn two_senders_of_one_cluster_meet_the_same_key_and_a_changed_text_another() {
    let key = |body: &str| NewEvent::sighting("prod", read(body).sightings.remove(0)).key;
    let other_sender = FIRING.replace("alertmanager.example.com:9093", "alertmanager-1.example.com:9093").replace("\"4\"", "\"5\"");
    assert_eq!(key(FIRING), key(&other_sender));
    assert_ne!(key(FIRING), key(&FIRING.replace("has not answered", "did not answer")));
    assert_ne!(key(FIRING), key(RESOLVED));
}

#[test]
fn a_watchdog_is_a_sign_of_life_only_by_the_sources_rule_and_only_while_it_fires() {
    let within = "10m".parse().unwrap();
    let rule = SourceRule { name: "prod".to_owned(), repeat_interval: None, heartbeats: [("Watchdog".to_owned(), within)].into() };
    let kinds = |body: &str, rule: Option<&SourceRule>, delivery: &str| events("prod", rule, read(body).sightings, now(), delivery);
    let Payload::Heartbeat(heartbeat) = &kinds(WATCHDOG, Some(&rule), "1")[0].payload else { panic!("no heartbeat") };
    assert_eq!((heartbeat.name.as_str(), heartbeat.within, heartbeat.at), ("Watchdog", within, now()));
    assert!(matches!(kinds(WATCHDOG, None, "1")[0].payload, Payload::Alert(_)));
    let resolved = WATCHDOG.replace("\"firing\"", "\"resolved\"");
    assert!(matches!(kinds(&resolved, Some(&rule), "1")[0].payload, Payload::Alert(_)));
    let key = |delivery: &str| kinds(WATCHDOG, Some(&rule), delivery)[0].key;
    assert_ne!(key("1"), key("2"), "each one counts");
    assert_eq!(key("1"), key("1"), "its redelivery does not");
}

#[test]
fn a_missing_fingerprint_is_computed_as_alertmanager_does() {
    assert_eq!(fingerprint(&Labels::new()), "cbf29ce484222325", "the offset basis of FNV-1a");
    // FNV-1a of "a\xffb\xff", worked out apart from this code.
    assert_eq!(fingerprint(&[("a".to_owned(), "b".to_owned())].into()), "d2b371819297f98a");
    let labels = json!({"alertname": "X", "instance": "a"});
    let without = one(json!({"status": "firing", "labels": labels, "startsAt": "2026-11-20T04:55:07Z"}));
    let empty = one(json!({"status": "firing", "labels": labels, "startsAt": "2026-11-20T04:55:07Z", "fingerprint": ""}));
    assert_eq!(without, empty);
    assert_eq!(without.fingerprint.len(), 16);
}

#[test]
fn labels_are_bounded_after_the_identity_is_taken() {
    let long = |tail: &str| json!({"status": "firing", "labels": {"alertname": "X", "blob": format!("{}{tail}", "x".repeat(100_000))}});
    let (a, b) = (one(long("a")), one(long("b")));
    assert_eq!(a.labels["blob"].len(), domain::text::MAX_VALUE);
    assert_eq!((a.cut, a.labels == b.labels), (1, true));
    assert_ne!(a.fingerprint, b.fingerprint, "what tells them apart was cut, not lost");
    let many: serde_json::Map<_, _> = (0..500).map(|n| (format!("l{n:03}"), json!("v"))).chain([("zz".to_owned(), json!("v"))]).collect();
    let sighting = one(json!({"status": "firing", "labels": many}));
    assert_eq!((sighting.labels.len(), sighting.cut), (64, 437));
}

#[test]
fn hostile_text_travels_as_data() {
    let nul = one(
        json!({"status": "firing", "labels": {"alertname": "a\u{0}b", "n\u{0}": "$(reboot)"}, "annotations": {"summary": "\u{202e}<!channel> {{ 7*7 }}\r\n"}}),
    );
    assert_eq!(nul.labels["alertname"], "a␀b");
    assert_eq!(nul.labels["n␀"], "$(reboot)");
    assert_eq!(nul.annotations["summary"], "\u{202e}<!channel> {{ 7*7 }}\r\n");
    let stored = serde_json::to_string(&nul).unwrap();
    assert!(!stored.contains("\\u0000") && !stored.contains('\0'));
    let odd = one(json!({"status": "firing", "labels": {}, "fingerprint": "x\u{0}".repeat(1000)}));
    assert_eq!(odd.fingerprint.len(), 32);
}

#[test]
fn only_web_links_are_kept() {
    let url = |url: &str| one(json!({"status": "firing", "labels": {}, "generatorURL": url})).generator_url;
    assert_eq!(url("https://example.com/x?y=1").as_deref(), Some("https://example.com/x?y=1"));
    for bad in ["javascript:alert(1)", "file:///etc/passwd", "http://a b", "https://x\ny", &format!("https://{}", "x".repeat(3000)), ""] {
        assert_eq!(url(bad), None, "{bad}");
    }
}

#[test]
fn times_that_are_missing_are_those_of_arrival() {
    let bare = one(json!({"status": "resolved", "labels": {"a": "b"}, "annotations": null, "startsAt": "0001-01-01T00:00:00Z"}));
    assert_eq!((bare.starts_at, bare.ends_at), (now(), None));
    let firing = one(json!({"status": "firing", "labels": {"a": "b"}, "endsAt": "2026-11-20T13:00:00Z"}));
    assert_eq!(firing.ends_at, None, "what fires has no end");
}

#[test]
fn ten_thousand_alerts_are_read_and_far_more_are_not() {
    let alert = |n: usize| json!({"status": "firing", "labels": {"alertname": "Storm", "instance": format!("host-{n}")}, "startsAt": "2026-11-20T04:55:07Z", "fingerprint": format!("{n:016x}")});
    let body = json!({"version": "4", "alerts": (0..10_000).map(alert).collect::<Vec<_>>()}).to_string();
    let parsed = read(&body);
    assert_eq!(parsed.sightings.len(), 10_000);
    assert_eq!(parsed.sightings[9_999].labels["instance"], "host-9999");
    let small = r#"{"status":"firing"},"#.repeat(MAX_ITEMS + 1);
    let error = parse(format!(r#"{{"alerts":[{}]}}"#, small.trim_end_matches(',')).as_bytes(), now()).unwrap_err();
    assert!(error.0.contains("more than 100000 alerts"), "{error}");
}

#[test]
fn what_is_not_alertmanagers_is_refused_with_a_place() {
    for bad in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"alerts":{}}"#,
        r#"{"alerts":[{"labels":{}}]}"#,
        r#"{"alerts":[{"status":"on","labels":{}}]}"#,
        r#"{"alerts":[{"status":"firing","labels":{"a":1}}]}"#,
        r#"{"alerts":[{"status":"firing","startsAt":"yesterday"}]}"#,
    ] {
        let error = parse(bad.as_bytes(), now()).unwrap_err();
        assert!(error.0.contains("line 1 column"), "{bad}: {error}");
    }
}

/// What is counted is exactly what is parsed, and what is refused is refused in the same words.
#[test]
fn a_body_is_counted_as_it_is_parsed() {
    let cx = ParseCx { received_at: now(), headers: &[], map: None };
    let mut tried = [0, 0];
    let mut same = |body: &[u8]| {
        let parsed = KIND.parse(&cx, body).map(|parsed| Counted { sightings: parsed.sightings.len(), left_out: parsed.left_out });
        tried[usize::from(parsed.is_ok())] += 1;
        assert_eq!(KIND.count(&cx, body), parsed, "{}", String::from_utf8_lossy(body));
    };
    for fixture in [FIRING, RESOLVED, TRUNCATED, GRAFANA, WATCHDOG] {
        let whole: Value = serde_json::from_str(fixture).unwrap();
        same(fixture.as_bytes());
        for place in places(&whole) {
            let others = [
                json!(null),
                json!(7),
                json!(-1.5),
                json!("x\u{0}\u{1f600}"),
                json!([1]),
                json!({ "a": "b" }),
                json!({ "a": 1 }),
                json!(true),
            ];
            for other in others {
                let mut changed = whole.clone();
                *changed.pointer_mut(&place).unwrap() = other;
                same(changed.to_string().as_bytes());
            }
        }
        for end in (0..fixture.len()).step_by(7) {
            same(&fixture.as_bytes()[..end]);
        }
        for at in (0..fixture.len()).step_by(11) {
            for byte in [b'"', b'\\', b'{', 0, 0xff] {
                let mut changed = fixture.as_bytes().to_vec();
                changed[at] = byte;
                same(&changed);
            }
        }
    }
    assert!(tried[0] > 1000 && tried[1] > 500, "refused and taken: {tried:?}");
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(n, item)| (n.to_string(), item)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.replace('~', "~0").replace('/', "~1"), field)).collect(),
        _ => Vec::new(),
    };
    let below = inner.iter().flat_map(|(name, item)| places(item).into_iter().map(move |rest| format!("/{name}{rest}")));
    std::iter::once(String::new()).chain(below).collect()
}
