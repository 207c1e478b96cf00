//! What compiles, and every kind of mistake with its exact words.

use insta::assert_snapshot;

use super::*;
use crate::plan::Target;

mod actions;
mod mistakes_in_routes;
mod mistakes_in_runbooks;
mod mistakes_of_form;
mod mutations;

/// Enough for every kind of reference.
const BASE: &str = r#"
severities: [{ name: P1, aliases: [critical], ack_within: 15m }, { name: P2, aliases: [warning] }]
channels: { ops: { platform: slack, id: C0123 } }
targets:
  api: { kind: systemd, unit: api.service }
  web: { kind: http, url: "http://127.0.0.1:8080" }
roles: { sre: [view, acknowledge, resolve, note, run, approve] }
principals:
  ann: { roles: [sre], slack: T1/U1, discord: 11/12 }
  bob: { roles: [sre, viewer] }
  bot: { roles: [sre], human: false }
runbooks:
  restart:
    about: Restarts a service.
    params: { target: { type: target, kinds: [systemd, process] }, why: { type: text, default: none } }
    approval: { roles: [sre] }
    steps:
      - { id: restart, uses: service.restart, with: { target: "{{ params.target }}" } }
    verify: { uses: http.check, with: { url: "http://127.0.0.1/" } }
"#;

/// Compiles `BASE` and one more file.
fn with(text: &str) -> Result<RuleSet, Vec<Problem>> {
    let files = [("base.yaml".to_owned(), BASE.to_owned()), ("rules.yaml".to_owned(), text.to_owned())];
    compile(&files, &actions::Catalogue)
}

/// The findings about one file alone.
fn alone(text: &str) -> String {
    shown(compile(&[("rules.yaml".to_owned(), text.to_owned())], &actions::Catalogue))
}

/// The findings about a file beside `BASE`.
fn problems(text: &str) -> String {
    shown(with(text))
}

fn shown(result: Result<RuleSet, Vec<Problem>>) -> String {
    match result {
        Ok(_) => "no findings".to_owned(),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn a_whole_file_compiles() {
    let rules = with(
        r#"
routes:
  - name: down
    match: ['alertname="ServiceDown"', 'severity=~"critical|page"']
    when: 'alert.labels.env != "dev"'
    incident: { group_by: [alertname, service], severity: critical, title: "{{ labels.service }} is down" }
    remedy: { runbook: restart, with: { target: "{{ labels.service }}" }, mode: approve, hold: 30s }
  - match: '{severity="info"}'
sources: { am: { kind: alertmanager, heartbeats: { Watchdog: 15m } }, hub: { kind: generic } }
incidents: { resolve_after: 0s }
server: { listen: "127.0.0.1:1" }
"#,
    )
    .unwrap();
    assert_eq!(rules.routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["down", "routes[1]", "catch-all"]);
    let down = &rules.routes[0];
    let incident = down.incident.as_ref().unwrap();
    assert_eq!((incident.severity, incident.channels.len()), (Some(0), 1), "the default channels are filled in");
    let remedy = down.remedy.as_ref().unwrap();
    assert_eq!((remedy.mode, remedy.hold.as_secs()), (Mode::Approve, 30));
    assert!(rules.routes[1].incident.is_none());
    assert!(rules.routes[2].incident.is_some() && rules.routes[2].matchers.0.is_empty());
    let restart = &rules.runbooks["restart"];
    let approval = restart.approval.as_ref().unwrap();
    assert_eq!((approval.quorum, approval.expires.as_secs()), (1, 900));
    assert_eq!((restart.guards.concurrency, restart.steps[0].timeout.as_secs(), restart.steps[0].retry.attempts), (1, 60, 1));
    let verify = restart.verify.as_ref().unwrap();
    assert_eq!((verify.within.as_secs(), verify.every.as_secs(), verify.step.id.as_str()), (120, 5, "verify"));
    assert_eq!(rules.stale_after("am").unwrap().as_hours(), 8);
    assert_eq!(rules.stale_after("hub"), None);
    assert_eq!((rules.waits.resolve_after.as_secs(), rules.waits.reopen_within.as_mins()), (0, 30));
    assert_eq!(rules.people.principals["ann"].identities.len(), 2);
    assert!(!rules.people.principals["bot"].human && rules.people.principals["ann"].human);
    assert_eq!(
        rules.targets["api"],
        Target { name: "api".into(), kind: "systemd".into(), fields: [("unit".into(), "api.service".into())].into() }
    );
    assert_eq!(rules.severity_of("CRITICAL"), Some(0));
    assert_eq!(rules.severities[rules.default_severity].name, "P2", "the one that `warning` means");
}

#[test]
fn nothing_at_all_compiles_to_a_catch_all() {
    let rules = compile(&[], &actions::Catalogue).unwrap();
    let names: Vec<_> = rules.severities.iter().map(|severity| severity.name.as_str()).collect();
    assert_eq!((names, rules.default_severity), (vec!["P1", "P2", "P3", "P4"], 2));
    assert_eq!(rules.severity_of("page"), Some(0));
    assert_eq!(rules.routes.len(), 1);
    assert_eq!(rules.routes[0].incident.as_ref().unwrap().severity, None);
    assert_eq!(rules.people.roles["admin"].len(), crate::permission::Right::ALL.len());
    assert!(
        compile(&[("a.yaml".into(), "routes:\nrunbooks:\n".into())], &actions::Catalogue).is_ok(),
        "sections with everything commented out"
    );
}

#[test]
fn the_digest_is_that_of_names_and_texts() {
    let of = |name: &str, text: &str| compile(&[(name.to_owned(), text.to_owned())], &actions::Catalogue).unwrap().digest;
    assert_eq!(of("a", "routes: []"), of("a", "routes: []"));
    assert_ne!(of("a", "routes: []"), of("a", "routes: [] # more"));
    assert_ne!(of("a", "routes: []"), of("b", "routes: []"));
    assert_eq!(of("a", "").len(), 64);
}

#[test]
fn lists_are_appended_and_maps_united() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [
        file("10.yaml", "targets: { a: { kind: http } }\nroutes: [{ name: one, match: 'x=\"1\"' }]"),
        file("20.yaml", "targets: { b: { kind: http } }\nroutes: [{ name: two, match: 'x=\"2\"' }]\nseverities: []"),
    ];
    let rules = compile(&files, &actions::Catalogue).unwrap();
    assert_eq!(rules.routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["one", "two", "catch-all"]);
    assert_eq!(rules.targets.len(), 2);
    assert_eq!(rules.texts, files);
    let again = compile(&rules.texts, &actions::Catalogue).unwrap();
    assert_eq!(again.digest, rules.digest, "a rule set compiles again from its own texts");
}

#[test]
fn a_person_may_have_several_identities_and_long_numbers_stay_what_they_are() {
    let rules = with("principals: { cy: { roles: [admin], slack: [T1/U2, T2/U2] } }\nchannels: { guild: { platform: discord, id: 1234567890123456789 } }").unwrap();
    assert_eq!(rules.people.principals["cy"].identities.len(), 2);
    assert_eq!(rules.channels["guild"].id, "1234567890123456789");
}

#[test]
fn a_remedy_may_belong_to_the_incident_of_a_route_before() {
    let text = r#"
routes:
  - { match: ['a="b"'], incident: {}, continue: true }
  - { match: ['a="b"'], remedy: { runbook: restart, with: { target: api } } }
"#;
    assert_eq!(problems(text), "no findings");
}

#[test]
fn the_schema_names_every_key_and_refuses_others() {
    let schema = json_schema().to_value();
    let properties = schema["properties"].as_object().unwrap();
    for key in schema::Rules::KEYS {
        assert!(properties.contains_key(key), "{key}");
    }
    assert_eq!(properties.len(), schema::Rules::KEYS.len());
    assert_eq!(schema["$defs"]["Step"]["additionalProperties"], false);
    assert!(schema["$defs"]["Step"]["properties"]["retry"]["description"].as_str().unwrap().contains("never made again"));
    assert_snapshot!(serde_json::to_string(&schema["$defs"]["Escalate"]["oneOf"][0]["const"]).unwrap(), @r#""now""#);
}
