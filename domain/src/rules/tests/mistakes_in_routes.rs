//! Mistakes in routes and about people: what does not exist, does not compile or cannot be reached.

use insta::assert_snapshot;

use super::problems;

#[test]
fn matchers_conditions_and_templates() {
    let text = r#"routes:
  - match: ['severity=~"crit(ical"', 'severity']
  - incident: { title: "{{ labels.service" }
    match: 'a="b"'
  - incident: { title: "{{ lables.service }} {{ alert.fingerprnt }} {{ params.target }}" }
    match: 'a="c"'
    remedy: { runbook: restart, with: { target: "{% include 'x' %}" } }
  - when: alert.labels.env !=
    match: 'a="d"'
  - when: lables.env == "dev"
    match: 'a="e"'
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:2:13: matcher "severity=~\"crit(ical\"", column 11: the expression does not compile: unclosed group
      2 |   - match: ['severity=~"crit(ical"', 'severity']
        |             ^^^^^^^^^^^^^^^^^^^^^^^
    rules.yaml:2:38: matcher "severity", column 9: expected =, !=, =~ or !~ after the label name
      2 |   - match: ['severity=~"crit(ical"', 'severity']
        |                                      ^^^^^^^^^^
    rules.yaml:3:24: this template does not compile: it is not a template: unexpected end of input, expected end of variable block
      3 |   - incident: { title: "{{ labels.service" }
        |                        ^^^^^^^^^^^^^^^^^^^
    rules.yaml:5:24: `alert` has no `fingerprnt`
      5 |   - incident: { title: "{{ lables.service }} {{ alert.fingerprnt }} {{ params.target }}" }
        |                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      help: did you mean `fingerprint`?
    rules.yaml:5:24: there is no `lables` here
      5 |   - incident: { title: "{{ lables.service }} {{ alert.fingerprnt }} {{ params.target }}" }
        |                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      help: did you mean `labels`?
    rules.yaml:5:24: there is no `params` here
      5 |   - incident: { title: "{{ lables.service }} {{ alert.fingerprnt }} {{ params.target }}" }
        |                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      help: known here: alert, annotations, labels
    rules.yaml:7:49: this template does not compile: there is no statement `include` here; there are if, elif, else, endif, for, endfor
      7 |     remedy: { runbook: restart, with: { target: "{% include 'x' %}" } }
        |                                                 ^^^^^^^^^^^^^^^^^^^
    rules.yaml:8:11: this condition does not compile: line 1, column 20: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
      8 |   - when: alert.labels.env !=
        |           ^^^^^^^^^^^^^^^^^^^
    rules.yaml:10:11: this condition does not compile: line 1, column 1: there is no variable `lables`; did you mean `labels`?
      10 |   - when: lables.env == "dev"
         |           ^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn references_to_nothing() {
    let text = r#"default_severity: P9
default_channels: [opps]
routes:
  - match: 'a="b"'
    incident: { severity: P3, channels: [ops, dev] }
    remedy: { runbook: restrat, with: { target: api } }
principals: { cy: { roles: [sree] } }
runbooks:
  other:
    approval: { roles: [dba], exclude: [dave] }
    steps:
      - { id: a, uses: service.restrt, with: { target: api } }
      - { id: b, uses: service.restart, with: { target: apo } }
"#;
    assert_snapshot!(problems(text), @"
    rules.yaml:1:19: there is no severity `P9`
      1 | default_severity: P9
        |                   ^^
      help: did you mean `P1`?
    rules.yaml:2:20: there is no channel `opps`
      2 | default_channels: [opps]
        |                    ^^^^
      help: did you mean `ops`?
    rules.yaml:5:27: there is no severity `P3`
      5 |     incident: { severity: P3, channels: [ops, dev] }
        |                           ^^
      help: did you mean `P1`?
    rules.yaml:5:47: there is no channel `dev`
      5 |     incident: { severity: P3, channels: [ops, dev] }
        |                                               ^^^
      help: known here: ops
    rules.yaml:6:24: there is no runbook `restrat`
      6 |     remedy: { runbook: restrat, with: { target: api } }
        |                        ^^^^^^^
      help: did you mean `restart`?
    rules.yaml:7:29: there is no role `sree`
      7 | principals: { cy: { roles: [sree] } }
        |                             ^^^^
      help: did you mean `sre`?
    rules.yaml:10:25: there is no role `dba`
      10 |     approval: { roles: [dba], exclude: [dave] }
         |                         ^^^
      help: known here: admin, approver, responder, sre, viewer
    rules.yaml:10:41: there is no principal `dave`
      10 |     approval: { roles: [dba], exclude: [dave] }
         |                                         ^^^^
      help: known here: ann, bob, bot, cy
    rules.yaml:12:24: there is no action `service.restrt`
      12 |       - { id: a, uses: service.restrt, with: { target: api } }
         |                        ^^^^^^^^^^^^^^
      help: did you mean `service.restart`?
    rules.yaml:13:57: there is no target `apo`
      13 |       - { id: b, uses: service.restart, with: { target: apo } }
         |                                                         ^^^
      help: did you mean `api`?
    ");
}

#[test]
fn what_a_remedy_gives_its_runbook() {
    let text = r#"routes:
  - match: 'a="b"'
    incident: {}
    remedy: { runbook: restart }
  - match: 'a="c"'
    incident: {}
    remedy: { runbook: restart, with: { target: web, wy: x } }
  - match: 'a="d"'
    incident: {}
    remedy: { runbook: restart, with: { target: nowhere, why: "-rf" } }
  - match: 'a="e"'
    remedy: { runbook: restart, with: { target: api } }
  - match: 'a="f"'
    incident:
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:4:24: the parameter `target` of `restart` is missing
      4 |     remedy: { runbook: restart }
        |                        ^^^^^^^
      help: add `with: { target: .. }`
    rules.yaml:7:49: parameter `target` will not do: it takes a target of kind process, systemd, and "web" is a http
      7 |     remedy: { runbook: restart, with: { target: web, wy: x } }
        |                                                 ^^^
    rules.yaml:7:54: `restart` has no parameter `wy`
      7 |     remedy: { runbook: restart, with: { target: web, wy: x } }
        |                                                      ^^
      help: did you mean `why`?
    rules.yaml:10:49: parameter `target` will not do: "nowhere" is not in the inventory: add it under `targets`, or correct the label
      10 |     remedy: { runbook: restart, with: { target: nowhere, why: "-rf" } }
         |                                                 ^^^^^^^
    rules.yaml:10:63: parameter `why` will not do: it may not begin with `-`
      10 |     remedy: { runbook: restart, with: { target: nowhere, why: "-rf" } }
         |                                                               ^^^^^
    rules.yaml:12:5: this remedy has no incident to belong to
      12 |     remedy: { runbook: restart, with: { target: api } }
         |     ^^^^^^
      help: add `incident: {}` to it, or let a route before it with `continue: true` open one
    rules.yaml:14:5: it is not clear whether this opens an incident
      14 |     incident:
         |     ^^^^^^^^
      help: write `incident: {}` for one with all defaults, or remove the key to only record the alert
    "#);
}

#[test]
fn approvals_that_nobody_can_give() {
    let text = "roles: { watcher: [view], lonely: [approve] }
principals: { dan: { roles: [watcher] }, eve: { roles: [lonely], human: false } }
runbooks:
  a: { approval: { roles: [watcher] }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
  b: { approval: { roles: [lonely] }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
  c: { approval: { roles: [sre], quorum: 3 }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
  d: { approval: { roles: [sre], quorum: 2, exclude: [ann] }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
  e: { approval: { roles: [sre], quorum: 0, expires: 0s }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
";
    assert_snapshot!(problems(text), @"
    rules.yaml:4:27: nobody could ever approve this: those who have the roles may not approve
      4 |   a: { approval: { roles: [watcher] }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
        |                           ^
      help: give a role of watcher the right `approve`, or name another one, or exclude fewer people
    rules.yaml:5:27: nobody could ever approve this: no person has one of the roles
      5 |   b: { approval: { roles: [lonely] }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
        |                           ^
      help: give somebody under `principals` one of the roles lonely
    rules.yaml:6:42: a quorum of 3 can never be reached
      6 |   c: { approval: { roles: [sre], quorum: 3 }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
        |                                          ^
      help: only ann, bob could: lower the quorum or give more people one of the roles sre
    rules.yaml:7:42: a quorum of 2 can never be reached
      7 |   d: { approval: { roles: [sre], quorum: 2, exclude: [ann] }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
        |                                          ^
      help: only bob could: lower the quorum or give more people one of the roles sre
    rules.yaml:8:42: a quorum of nobody approves everything
      8 |   e: { approval: { roles: [sre], quorum: 0, expires: 0s }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
        |                                          ^
      help: at least 1
    rules.yaml:8:54: `expires` of no time at all cannot work
      8 |   e: { approval: { roles: [sre], quorum: 0, expires: 0s }, steps: [{ id: a, uses: wait, with: { for: 1s } }] }
        |                                                      ^^
    ");
}

#[test]
fn ids_of_chats() {
    let text = r##"channels:
  a: { platform: slack, id: "#ops" }
  b: { platform: discord, id: general }
  c: { platform: slck, id: C1 }
principals:
  cy: { roles: [sre], slack: ann, discord: [1/2, "3"] }
"##;
    assert_snapshot!(problems(text), @r##"
    rules.yaml:2:29: `#ops` is no Slack channel id
      2 |   a: { platform: slack, id: "#ops" }
        |                             ^^^^^^
      help: the id is at the bottom of the channel's details in Slack and looks like C0123ABCD
    rules.yaml:3:31: `general` is no Discord channel id
      3 |   b: { platform: discord, id: general }
        |                               ^^^^^^^
      help: turn on Discord's developer mode, then right-click the channel and copy its id: a long number
    rules.yaml:4:18: there is no chat platform `slck`
      4 |   c: { platform: slck, id: C1 }
        |                  ^^^^
      help: did you mean `slack`?
    rules.yaml:6:30: `ann` is not of the form TEAM/USER, such as T0123ABCD/U0456EFGH
      6 |   cy: { roles: [sre], slack: ann, discord: [1/2, "3"] }
        |                              ^^^
      help: the user's id is in their profile under "Copy member ID"
    rules.yaml:6:50: `3` is not of the form GUILD/USER, two long numbers
      6 |   cy: { roles: [sre], slack: ann, discord: [1/2, "3"] }
        |                                                  ^^^
      help: turn on Discord's developer mode, then right-click and copy the ids
    "##);
}

#[test]
fn routes_behind_one_that_takes_everything() {
    let text = r#"routes:
  - { name: all, incident: {} }
  - { name: late, match: 'a="b"', incident: {} }
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:3:5: no alert ever comes to the route `late`
      3 |   - { name: late, match: 'a="b"', incident: {} }
        |     ^
      help: `all` (rules.yaml:2) takes every alert: give it a `match`, or `continue: true`, or move it to the end
    "#);
}

#[test]
fn grouping_by_what_is_no_label() {
    let text = "routes: [{ match: 'a=\"b\"', incident: { group_by: [alertname, '...'] } }]\n";
    assert_snapshot!(problems(text), @r#"
    rules.yaml:1:62: "..." is no label
      1 | routes: [{ match: 'a="b"', incident: { group_by: [alertname, '...'] } }]
        |                                                              ^^^^^
      help: name the labels whose values tell incidents apart, such as [alertname, service]
    "#);
}
