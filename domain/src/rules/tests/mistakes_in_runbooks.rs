//! Mistakes in runbooks: targets, parameters, numbers, and harm that nobody has to approve.

use insta::assert_snapshot;

use super::problems;

#[test]
fn targets_and_their_kinds() {
    let text = r#"targets: { api2: { kind: systmed }, api3: { kind: systemd, unti: api.service } }
runbooks:
  other:
    params:
      t: { type: target, kinds: [kubernets] }
      d: { type: target, kinds: [disk] }
      s: { type: text, default: x }
    approval: { roles: [sre] }
    steps:
      - { id: a, uses: service.restart, with: { target: web } }
      - { id: b, uses: service.restart, with: { target: "{{ params.d }}" } }
      - { id: c, uses: service.restart, with: { target: "{{ params.s }}" } }
      - { id: e, uses: service.restart }
      - { id: f, uses: disk.wipe, with: { target: "{{ labels.disk }}" } }
      - { id: g, uses: disk.wipe }
      - { id: h, uses: service.restart, with: { target: [api] } }
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:1:26: no action works on targets of kind `systmed`
      1 | targets: { api2: { kind: systmed }, api3: { kind: systemd, unti: api.service } }
        |                          ^^^^^^^
      help: did you mean `systemd`?
    rules.yaml:1:37: `service.restart` refuses this: target "api3" lacks `unit`
      1 | targets: { api2: { kind: systmed }, api3: { kind: systemd, unti: api.service } }
        |                                     ^^^^
    rules.yaml:5:34: no action works on targets of kind `kubernets`
      5 |       t: { type: target, kinds: [kubernets] }
        |                                  ^^^^^^^^^
      help: known here: compose, disk, http, process, systemd
    rules.yaml:10:57: `service.restart` works on process, systemd, compose, and `web` is of kind http
      10 |       - { id: a, uses: service.restart, with: { target: web } }
         |                                                         ^^^
    rules.yaml:11:57: `service.restart` works on process, systemd, compose, and the parameter `d` takes disk
      11 |       - { id: b, uses: service.restart, with: { target: "{{ params.d }}" } }
         |                                                         ^^^^^^^^^^^^^^^^
    rules.yaml:12:57: the parameter `s` is no target
      12 |       - { id: c, uses: service.restart, with: { target: "{{ params.s }}" } }
         |                                                         ^^^^^^^^^^^^^^^^
      help: give the parameter `s` the type `target`: it is checked against the inventory then
    rules.yaml:13:18: `service.restart` refuses this: it needs a `target` from the inventory
      13 |       - { id: e, uses: service.restart }
         |                  ^^^^
    rules.yaml:14:51: the target of a destructive step must be a parameter of type `target` or a name
      14 |       - { id: f, uses: disk.wipe, with: { target: "{{ labels.disk }}" } }
         |                                                   ^^^^^^^^^^^^^^^^^^^
      help: give the runbook a parameter of type `target` and write `{{ params.NAME }}` alone
    rules.yaml:15:24: `disk.wipe` is destructive and names no target
      15 |       - { id: g, uses: disk.wipe }
         |                        ^^^^^^^^^
      help: give it `with: { target: .. }`, a name from `targets`
    rules.yaml:16:57: a target is a name from `targets`
      16 |       - { id: h, uses: service.restart, with: { target: [api] } }
         |                                                         ^
    "#);
}

#[test]
fn parameters_of_actions() {
    let text = r#"runbooks:
  other:
    approval: { roles: [sre] }
    steps:
      - { id: a, uses: command, with: { program: 7, args: [ok, 1, "{{ labels.x }}"], nise: 1 } }
      - { id: b, uses: command, with: { program: /bin/x, nice: 40 } }
      - { id: c, uses: http.check, with: { method: GTE, status: often } }
      - { id: d, uses: notify, with: { channel: ops } }
      - { id: e, uses: wait, with: { for: "{{ params.nothing }}" } }
      - { id: f, uses: wait, with: { for: ages } }
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:5:50: expected text, found `7`
      5 |       - { id: a, uses: command, with: { program: 7, args: [ok, 1, "{{ labels.x }}"], nise: 1 } }
        |                                                  ^
      help: put it in quotes: "7"
    rules.yaml:5:64: expected text or a map, found `1`
      5 |       - { id: a, uses: command, with: { program: 7, args: [ok, 1, "{{ labels.x }}"], nise: 1 } }
        |                                                                ^
    rules.yaml:5:86: unknown parameter `nise`
      5 |       - { id: a, uses: command, with: { program: 7, args: [ok, 1, "{{ labels.x }}"], nise: 1 } }
        |                                                                                      ^^^^
      help: did you mean `nice`?
    rules.yaml:6:64: 40 is more than 19
      6 |       - { id: b, uses: command, with: { program: /bin/x, nice: 40 } }
        |                                                                ^^
    rules.yaml:7:52: text "GTE" is none of GET, POST
      7 |       - { id: c, uses: http.check, with: { method: GTE, status: often } }
        |                                                    ^^^
      help: did you mean `GET`?
    rules.yaml:7:65: text "often" is in none of the allowed forms
      7 |       - { id: c, uses: http.check, with: { method: GTE, status: often } }
        |                                                                 ^^^^^
    rules.yaml:8:32: the parameter `text` is missing
      8 |       - { id: d, uses: notify, with: { channel: ops } }
        |                                ^^^^
    rules.yaml:9:43: this runbook has no parameter `nothing`
      9 |       - { id: e, uses: wait, with: { for: "{{ params.nothing }}" } }
        |                                           ^^^^^^^^^^^^^^^^^^^^^^
      help: it has none: add it under `params:`
    rules.yaml:10:30: `wait` refuses this: `for` is no duration
      10 |       - { id: f, uses: wait, with: { for: ages } }
         |                              ^^^^
    "#);
}

#[test]
fn parameters_of_runbooks() {
    let text = r#"runbooks:
  other:
    approval: { roles: [sre] }
    params:
      n: { type: integer, min: 5, max: 1 }
      c: { type: choice }
      p: { type: text, pattern: "a(" }
      k: { type: boolean, kinds: [systemd], default: 1 }
      d: { type: duration, default: soon }
      t: { type: text, max: 0 }
    steps: [{ id: a, uses: wait, with: { for: 1s } }]
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:5:32: no number is at least 5 and at most 1
      5 |       n: { type: integer, min: 5, max: 1 }
        |                                ^
    rules.yaml:6:7: there is nothing to choose from
      6 |       c: { type: choice }
        |       ^
      help: give it `values: [one, another]`
    rules.yaml:7:33: this is no regular expression: unclosed group
      7 |       p: { type: text, pattern: "a(" }
        |                                 ^^^^
    rules.yaml:8:27: `kinds` means nothing for a parameter of this type
      8 |       k: { type: boolean, kinds: [systemd], default: 1 }
        |                           ^^^^^
      help: remove it, or change `type`
    rules.yaml:8:54: the default of `k` will not do: it must be true or false
      8 |       k: { type: boolean, kinds: [systemd], default: 1 }
        |                                                      ^
    rules.yaml:9:37: the default of `d` will not do: "soon" is not a duration: a whole number was expected; write it like 30s, 5m, 1h30m, 250ms, 7d or 2w
      9 |       d: { type: duration, default: soon }
        |                                     ^^^^
    rules.yaml:10:29: a text has from 1 to 65536 bytes
      10 |       t: { type: text, max: 0 }
         |                             ^
    "#);
}

#[test]
fn harm_without_approval() {
    let text = r#"routes:
  - { match: 'a="1"', incident: {}, remedy: { runbook: open, mode: approve } }
  - { match: 'a="2"', incident: {}, remedy: { runbook: open, mode: suggest } }
  - { match: 'a="3"', incident: {}, remedy: { runbook: open, mode: auto } }
  - { match: 'a="4"', incident: {}, remedy: { runbook: open } }
runbooks:
  open: { steps: [{ id: a, uses: service.restart, with: { target: api } }] }
  wipe: { params: { d: { type: target, kinds: [disk] } }, steps: [{ id: a, uses: disk.wipe, with: { target: "{{ params.d }}" } }] }
  locks: { steps: [{ id: a, uses: service.restart, with: { target: api } }], on_failure: { lock_after: 3 } }
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:2:68: this remedy asks for approval, and `open` does not say who may approve
      2 |   - { match: 'a="1"', incident: {}, remedy: { runbook: open, mode: approve } }
        |                                                                    ^^^^^^^
      help: give the runbook `open` its `approval: { roles: [..] }`
    rules.yaml:3:68: this remedy shows a button, and `open` does not say who may approve
      3 |   - { match: 'a="2"', incident: {}, remedy: { runbook: open, mode: suggest } }
        |                                                                    ^^^^^^^
      help: give the runbook `open` its `approval: { roles: [..] }`
    rules.yaml:5:56: this remedy asks for approval, and `open` does not say who may approve
      5 |   - { match: 'a="4"', incident: {}, remedy: { runbook: open } }
        |                                                        ^^^^
      help: give the runbook `open` its `approval: { roles: [..] }`
    rules.yaml:8:3: `wipe` is destructive, so every run of it needs an approval
      8 |   wipe: { params: { d: { type: target, kinds: [disk] } }, steps: [{ id: a, uses: disk.wipe, with: { target: "{{ params.d
        |   ^^^^
      help: give it `approval: { roles: [..] }`: who may say yes
    rules.yaml:9:92: after these failures it asks for an approval, and nobody is named who could give it
      9 |   locks: { steps: [{ id: a, uses: service.restart, with: { target: api } }], on_failure: { lock_after: 3 } }
        |                                                                                            ^^^^^^^^^^
      help: give it `approval: { roles: [..] }`: who may say yes
    "#);
}

#[test]
fn numbers_that_cannot_work() {
    let text = "runbooks:
  other:
    guards: { concurrency: 0, max_runs: { count: 0, per: 0s } }
    on_failure: { lock_after: 0 }
    approval: { roles: [sre] }
    steps:
      - { id: a, uses: wait, with: { for: 1s }, timeout: 0s, retry: { attempts: 0, delay: 2m, max_delay: 1m } }
    verify: { uses: service.restart, with: { target: api }, within: 1s, every: 1m }
  empty: { steps: [] }
sources: { am: { kind: alertmanager, repeat_interval: 0s, heartbeats: { Watchdog: 0s } } }
";
    assert_snapshot!(problems(text), @"
    rules.yaml:3:28: a concurrency of 0 lets nothing run
      3 |     guards: { concurrency: 0, max_runs: { count: 0, per: 0s } }
        |                            ^
      help: at least 1
    rules.yaml:3:50: a budget of 0 runs lets nothing run
      3 |     guards: { concurrency: 0, max_runs: { count: 0, per: 0s } }
        |                                                  ^
      help: at least 1
    rules.yaml:3:58: `per` of no time at all cannot work
      3 |     guards: { concurrency: 0, max_runs: { count: 0, per: 0s } }
        |                                                          ^^
    rules.yaml:4:31: it cannot lock after no failure
      4 |     on_failure: { lock_after: 0 }
        |                               ^
      help: at least 1
    rules.yaml:7:58: `timeout` of no time at all cannot work
      7 |       - { id: a, uses: wait, with: { for: 1s }, timeout: 0s, retry: { attempts: 0, delay: 2m, max_delay: 1m } }
        |                                                          ^^
    rules.yaml:7:81: 0 attempts are not possible
      7 |       - { id: a, uses: wait, with: { for: 1s }, timeout: 0s, retry: { attempts: 0, delay: 2m, max_delay: 1m } }
        |                                                                                 ^
      help: count the first one too: from 1 to 20
    rules.yaml:7:106: the longest wait is shorter than the first, 2m
      7 |       - { id: a, uses: wait, with: { for: 1s }, timeout: 0s, retry: { attempts: 0, delay: 2m, max_delay: 1m } }
        |                                                                                                          ^^
    rules.yaml:8:21: `service.restart` changes things, so it cannot verify
      8 |     verify: { uses: service.restart, with: { target: api }, within: 1s, every: 1m }
        |                     ^^^^^^^^^^^^^^^
      help: verify with an action that only looks, such as `http.check`
    rules.yaml:8:80: it would be tried every 1m, but has only 1s to pass
      8 |     verify: { uses: service.restart, with: { target: api }, within: 1s, every: 1m }
        |                                                                                ^^
    rules.yaml:9:12: a runbook without steps does nothing
      9 |   empty: { steps: [] }
        |            ^^^^^
      help: give it at least one step
    rules.yaml:10:55: a repeat interval of no time would make every alert stale
      10 | sources: { am: { kind: alertmanager, repeat_interval: 0s, heartbeats: { Watchdog: 0s } } }
         |                                                       ^^
      help: leave it out, or give the source's own repeat interval
    rules.yaml:10:83: the heartbeat `Watchdog` has no time to come
      10 | sources: { am: { kind: alertmanager, repeat_interval: 0s, heartbeats: { Watchdog: 0s } } }
         |                                                                                   ^^
      help: give it about three times the interval at which it comes: `Watchdog: 15m`
    ");
}

#[test]
fn what_may_follow_an_unknown_outcome() {
    let text = r#"runbooks:
  other:
    approval: { roles: [sre] }
    steps:
      - { id: a, uses: disk.wipe, with: { target: web }, on_unknown: retry }
      - { id: c, uses: service.restart, with: { target: api }, effect: at_most_once, on_unknown: retry }
      - { id: d, uses: service.restart, with: { target: api }, effect: checkable }
      - { id: e, uses: service.restart, with: { target: api }, check: { program: /bin/true } }
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:5:51: `disk.wipe` works on disk, and `web` is of kind http
      5 |       - { id: a, uses: disk.wipe, with: { target: web }, on_unknown: retry }
        |                                                   ^^^
    rules.yaml:5:70: an at_most_once step must not be retried when nobody knows whether it happened
      5 |       - { id: a, uses: disk.wipe, with: { target: web }, on_unknown: retry }
        |                                                                      ^^^^^
      help: say in `effect` why a repeat does no harm (idempotent, keyed, checkable), or leave `on_unknown` at `ask`
    rules.yaml:6:98: an at_most_once step must not be retried when nobody knows whether it happened
      6 |       - { id: c, uses: service.restart, with: { target: api }, effect: at_most_once, on_unknown: retry }
        |                                                                                                  ^^^^^
      help: say in `effect` why a repeat does no harm (idempotent, keyed, checkable), or leave `on_unknown` at `ask`
    rules.yaml:7:72: nothing can tell whether a checkable step without `check` happened
      7 |       - { id: d, uses: service.restart, with: { target: api }, effect: checkable }
        |                                                                        ^^^^^^^^^
      help: give it `check: { program: .., args: [..] }`, which exits with 0 or 10
    rules.yaml:8:64: `check` belongs to `effect: checkable`
      8 |       - { id: e, uses: service.restart, with: { target: api }, check: { program: /bin/true } }
        |                                                                ^^^^^
      help: say so, or remove the check
    "#);
}

#[test]
fn text_from_outside_is_no_path_and_no_host() {
    let text = r#"runbooks:
  other:
    approval: { roles: [sre] }
    params: { free: { type: text, pattern: "[a-z]+" } }
    steps:
      - { id: a, uses: command, with: { program: "/opt/{{ labels.tool }}" } }
      - { id: b, uses: command, with: { program: /bin/x, cwd: "{{ params.free }}" } }
      - { id: c, uses: http.check, with: { url: "https://{{ labels.instance }}/health" } }
      - { id: d, uses: http.check, with: { url: "http://api/{{ annotations.page }}" } }
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:6:50: `labels.tool` is text from outside, which is never a path: `program` is
      6 |       - { id: a, uses: command, with: { program: "/opt/{{ labels.tool }}" } }
        |                                                  ^^^^^^^^^^^^^^^^^^^^^^^^
      help: write it out, or let a parameter of type `choice` say which `program`; arguments may hold `labels.tool`
    rules.yaml:7:63: `params.free` is text from outside, which is never a path: `cwd` is
      7 |       - { id: b, uses: command, with: { program: /bin/x, cwd: "{{ params.free }}" } }
        |                                                               ^^^^^^^^^^^^^^^^^^^
      help: write it out, or let a parameter of type `choice` say which `cwd`; arguments may hold `params.free`
    rules.yaml:8:49: `labels.instance` is text from outside, which is never the scheme, host or port of a URL
      8 |       - { id: c, uses: http.check, with: { url: "https://{{ labels.instance }}/health" } }
        |                                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      help: write them out, or use a parameter of type `target` or `choice`; path and query may hold it, `| urlencode`d
    rules.yaml:9:49: `annotations.page` is text from outside, and stands in a URL as it is
      9 |       - { id: d, uses: http.check, with: { url: "http://api/{{ annotations.page }}" } }
        |                                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      help: end it with the filter `urlencode`: `{{ .. | urlencode }}`
    "#);
}

/// The first word of the finding about a `url`, if there is one.
fn about_url(url: &str) -> &'static str {
    let params = "{ free: { type: text }, at: { type: target }, one: { type: choice, values: [a, b] }, port: { type: integer } }";
    let step = format!("{{ id: a, uses: http.check, with: {{ url: {} }} }}", serde_json::Value::from(url));
    let found = problems(&format!("runbooks:\n  other:\n    approval: {{ roles: [sre] }}\n    params: {params}\n    steps: [{step}]\n"));
    match found.as_str() {
        "no findings" => "",
        found if found.contains("never the scheme, host or port") => "host",
        found if found.contains("stands in a URL as it is") => "bare",
        found => panic!("{url}: {found}"),
    }
}

#[test]
fn of_a_url_text_from_outside_may_be_path_and_query_alone() {
    for url in [
        "https://api/x",
        "https://{{ params.one }}.example.com:{{ params.port }}/{{ params.at }}",
        "{{ params.one }}://api/x",
        "https://api/{{ params.one }}?q={{ labels.x | urlencode }}#{{ alert.status | lower | urlencode }}",
        "https://api?q={{ (labels.x ~ params.free) | urlencode }}",
        "https://api/{% if labels.x %}a{% else %}b{% endif %}/{{ labels[\"x\"] | default(\"-\") | urlencode }}",
        "https://{# who #}api/{{ params.free | urlencode }}",
    ] {
        assert_eq!(about_url(url), "", "{url}");
    }
    for url in [
        "{{ labels.url }}",
        "{{ labels.scheme }}://api/",
        "https://api.{{ labels.x | urlencode }}",
        "https://api.{{ labels.x | urlencode }}/x",
        "https://api:{{ annotations.port }}/x",
        "https://{{ params.free }}/x",
        "https://{{ params }}/x",
        "https://{{ alert.labels.x }}@api/x",
        "https:///{{ labels.x | urlencode }}/x",
        "https:/\\{{ labels.x | urlencode }}/x",
        "https:{{ labels.x | urlencode }}://api/x",
        "{% if labels.x %}https://a/{% endif %}https://b/",
        "{% for c in labels.x %}{{ c }}{% endfor %}://api/",
        "https://api{% if labels.x %}.evil{% endif %}/",
        "/{{ labels.x | urlencode }}",
    ] {
        assert_eq!(about_url(url), "host", "{url}");
    }
    for url in [
        "https://api/{{ labels.x }}",
        "https://api?q={{ params.free }}",
        "https://api/{{ labels.x | urlencode | lower }}",
        "https://api/{{ labels.x ~ labels.y | urlencode }}",
        "https://api/{{ labels.x | urlencode if labels.y else labels.x }}",
        "https://api/{{ \"| urlencode\" if labels.x else labels.y | urlencode }}",
        "https://api/{% for c in labels.x %}{{ c }}{% endfor %}",
    ] {
        assert_eq!(about_url(url), "bare", "{url}");
    }
}
