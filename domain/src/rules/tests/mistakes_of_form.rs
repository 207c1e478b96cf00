//! Mistakes of form: no YAML, unknown keys, wrong types, names.

use insta::assert_snapshot;

use super::{alone, problems};

#[test]
fn text_that_is_no_yaml() {
    let text = "routes:
  - match: [a
runbooks: {}
";
    assert_snapshot!(alone(text), @"
    rules.yaml:3:9: this is not readable as YAML: illegal placement of ':' indicator
      3 | runbooks: {}
        |         ^
    ");
}

#[test]
fn a_file_that_is_no_map() {
    let text = "- 1
";
    assert_snapshot!(alone(text), @"
    rules.yaml:1:1: a configuration file is a map
      1 | - 1
        | ^
      help: begin with one of its keys, such as `routes:`
    ");
}

#[test]
fn a_second_document() {
    let text = "routes: []
---
routes: []
";
    assert_snapshot!(alone(text), @"
    rules.yaml:2:1: this is not readable as YAML: it holds several documents: make a file of each
      2 | ---
        | ^^^
    ");
}

#[test]
fn a_tag() {
    let text = "routes: !!python/object x
";
    assert_snapshot!(alone(text), @"
    rules.yaml:1:25: this is not readable as YAML: unsupported tag `!!python/object`
      1 | routes: !!python/object x
        |                         ^
    ");
}

#[test]
fn nesting_without_end() {
    assert_snapshot!(alone(&format!("routes: {}", "[".repeat(100_000))), @"
    rules.yaml:1:264: this is not readable as YAML: it is nested more than 48 levels deep
      1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
        |                                         ^
    ");
}

#[test]
fn an_alias_bomb() {
    let text = "a: &a [x,x,x,x,x,x,x,x]
b: &b [*a,*a,*a,*a,*a,*a,*a,*a]
c: &c [*b,*b,*b,*b,*b,*b,*b,*b]
d: &d [*c,*c,*c,*c,*c,*c,*c,*c]
e: &e [*d,*d,*d,*d,*d,*d,*d,*d]
f: &f [*e,*e,*e,*e,*e,*e,*e,*e]
";
    assert_snapshot!(alone(text), @"
    rules.yaml:6:11: this is not readable as YAML: its aliases repeat more than can be meant
      6 | f: &f [*e,*e,*e,*e,*e,*e,*e,*e]
        |           ^^
    ");
}

#[test]
fn unknown_keys_anywhere() {
    let text = r#"rutes: []
routes:
  - mach: ['a="b"']
    incident: { chanels: [ops] }
runbooks:
  other:
    aproval: { roles: [sre] }
    steps:
      - { id: a, uses: wait, wiht: { for: 1m }, retry: { attemps: 2 } }
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:1:1: unknown key `rutes`
      1 | rutes: []
        | ^^^^^
      help: did you mean `routes`?
    rules.yaml:3:5: unknown key `mach`
      3 |   - mach: ['a="b"']
        |     ^^^^
      help: did you mean `match`?
    rules.yaml:4:17: unknown key `chanels`
      4 |     incident: { chanels: [ops] }
        |                 ^^^^^^^
      help: did you mean `channels`?
    rules.yaml:7:5: unknown key `aproval`
      7 |     aproval: { roles: [sre] }
        |     ^^^^^^^
      help: did you mean `approval`?
    rules.yaml:9:30: unknown key `wiht`
      9 |       - { id: a, uses: wait, wiht: { for: 1m }, retry: { attemps: 2 } }
        |                              ^^^^
      help: did you mean `with`?
    rules.yaml:9:58: unknown key `attemps`
      9 |       - { id: a, uses: wait, wiht: { for: 1m }, retry: { attemps: 2 } }
        |                                                          ^^^^^^^
      help: did you mean `attempts`?
    "#);
}

#[test]
fn wrong_types_all_of_them() {
    let text = "routes:
  - { name: [x], match: 7, continue: maybe, remedy: restart }
runbooks:
  other:
    params: { n: { type: intger, min: one } }
    guards: { concurrency: -1, cooldown: 10 }
    on_failure: { escalate: soon }
    steps: { id: a }
severities: P1
incidents: [1]
sources: 7
default_channels: ops
";
    assert_snapshot!(problems(text), @r#"
    rules.yaml:2:13: expected text, found a list
      2 |   - { name: [x], match: 7, continue: maybe, remedy: restart }
        |             ^
    rules.yaml:2:25: expected a list of matchers such as 'severity="critical"', found the number 7
      2 |   - { name: [x], match: 7, continue: maybe, remedy: restart }
        |                         ^
    rules.yaml:2:38: expected true or false, found text "maybe"
      2 |   - { name: [x], match: 7, continue: maybe, remedy: restart }
        |                                      ^^^^^
    rules.yaml:2:53: expected a map, found text "restart"
      2 |   - { name: [x], match: 7, continue: maybe, remedy: restart }
        |                                                     ^^^^^^^
    rules.yaml:5:26: `intger` is none of target, text, choice, integer, boolean, duration
      5 |     params: { n: { type: intger, min: one } }
        |                          ^^^^^^
      help: did you mean `integer`?
    rules.yaml:5:39: expected a whole number, found text "one"
      5 |     params: { n: { type: intger, min: one } }
        |                                       ^^^
    rules.yaml:6:28: expected a whole number that is not negative, found the number -1
      6 |     guards: { concurrency: -1, cooldown: 10 }
        |                            ^^
    rules.yaml:6:42: "10" is not a duration: a number has no unit (y, w, d, h, m, s or ms); write it like 30s, 5m, 1h30m, 250ms, 7d or 2w
      6 |     guards: { concurrency: -1, cooldown: 10 }
        |                                          ^^
    rules.yaml:7:29: `soon` is none of now, none
      7 |     on_failure: { escalate: soon }
        |                             ^^^^
      help: known here: none, now
    rules.yaml:8:12: expected a list, found a map
      8 |     steps: { id: a }
        |            ^
    rules.yaml:9:1: `severities` is text here and a list elsewhere
      9 | severities: P1
        | ^^^^^^^^^^
      help: see base.yaml:2
    rules.yaml:10:12: expected a map, found a list
      10 | incidents: [1]
         |            ^
    rules.yaml:11:10: `sources` is a map of names, found a number
      11 | sources: 7
         |          ^
      help: write `sources:` and below it, indented, one name per line
    rules.yaml:12:19: `default_channels` is a list, found text
      12 | default_channels: ops
         |                   ^^^
      help: begin each item with `- `
    "#);
}

#[test]
fn missing_keys() {
    let text = "routes: [{ incident: {}, remedy: { mode: auto } }]
runbooks: { other: { about: nothing } }
channels: { c: { platform: slack } }
";
    assert_snapshot!(problems(text), @"
    rules.yaml:1:26: the key `runbook` is missing
      1 | routes: [{ incident: {}, remedy: { mode: auto } }]
        |                          ^^^^^^
    rules.yaml:2:13: the key `steps` is missing
      2 | runbooks: { other: { about: nothing } }
        |             ^^^^^
    rules.yaml:3:13: the key `id` is missing
      3 | channels: { c: { platform: slack } }
        |             ^
    ");
}

#[test]
fn names_given_twice() {
    let text = r#"targets: { api: { kind: systemd } }
roles: { admin: [view] }
severities: [{ name: P3, aliases: [critical] }, { name: p1 }]
routes:
  - { name: x, match: 'a="b"' }
  - { name: x, match: 'a="c"' }
  - { name: catch-all, match: 'a="d"' }
runbooks:
  other:
    about: one
    about: two
    steps:
      - { id: a, uses: wait, with: { for: 1s } }
      - { id: a, uses: wait, with: { for: 1s } }
      - { id: verify, uses: wait, with: { for: 1s } }
principals: { cy: { roles: [sre], slack: T1/U1 } }
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:1:12: `api` is given twice
      1 | targets: { api: { kind: systemd } }
        |            ^^^
      help: it is at base.yaml:5 already: keep one of them
    rules.yaml:2:10: the role `admin` is built in
      2 | roles: { admin: [view] }
        |          ^^^^^
      help: it always means the same: choose another name
    rules.yaml:3:36: `critical` means `P1` already
      3 | severities: [{ name: P3, aliases: [critical] }, { name: p1 }]
        |                                    ^^^^^^^^
      help: a word can mean one severity only
    rules.yaml:3:57: `p1` means `P1` already
      3 | severities: [{ name: P3, aliases: [critical] }, { name: p1 }]
        |                                                         ^^
      help: a word can mean one severity only
    rules.yaml:6:13: there is a route `x` already
      6 |   - { name: x, match: 'a="c"' }
        |             ^
      help: names of routes are unique
    rules.yaml:7:13: `catch-all` is the built-in last route
      7 |   - { name: catch-all, match: 'a="d"' }
        |             ^^^^^^^^^
      help: choose another name
    rules.yaml:11:5: `about` is given twice
      11 |     about: two
         |     ^^^^^
      help: it is at line 10 already: keep one of them
    rules.yaml:14:15: the step id `a` is taken
      14 |       - { id: a, uses: wait, with: { for: 1s } }
         |               ^
      help: ids are unique in a runbook
    rules.yaml:15:15: the step id `verify` is taken
      15 |       - { id: verify, uses: wait, with: { for: 1s } }
         |               ^^^^^^
      help: it is the id of the runbook's own `verify`
    rules.yaml:16:42: `T1/U1` is `ann` already
      16 | principals: { cy: { roles: [sre], slack: T1/U1 } }
         |                                          ^^^^^
      help: one identity is one person
    "#);
}

#[test]
fn names_that_cannot_be() {
    let text = r#"targets: { "a b": { kind: systemd } }
runbooks: { -x: { params: { "a-b": { type: text } }, steps: [{ id: "{{x}}", uses: wait, with: { for: 1s } }] } }
"#;
    assert_snapshot!(problems(text), @r#"
    rules.yaml:1:12: "a b" cannot be a name
      1 | targets: { "a b": { kind: systemd } }
        |            ^^^^^
      help: use letters, digits, `-`, `_`, `.` and `@`, beginning with a letter or digit, at most 64 of them
    rules.yaml:1:12: `service.restart` refuses this: target "a b" lacks `unit`
      1 | targets: { "a b": { kind: systemd } }
        |            ^^^^^
    rules.yaml:2:13: "-x" cannot be a name
      2 | runbooks: { -x: { params: { "a-b": { type: text } }, steps: [{ id: "{{x}}", uses: wait, with: { for: 1s } }] } }
        |             ^^
      help: use letters, digits, `-`, `_`, `.` and `@`, beginning with a letter or digit, at most 64 of them
    rules.yaml:2:29: "a-b" cannot be the name of a parameter
      2 | runbooks: { -x: { params: { "a-b": { type: text } }, steps: [{ id: "{{x}}", uses: wait, with: { for: 1s } }] } }
        |                             ^^^^^
      help: templates say `params.name`: use letters, digits and `_`, beginning with a letter
    rules.yaml:2:68: "{{x}}" cannot be a name
      2 | runbooks: { -x: { params: { "a-b": { type: text } }, steps: [{ id: "{{x}}", uses: wait, with: { for: 1s } }] } }
        |                                                                    ^^^^^^^
      help: use letters, digits, `-`, `_`, `.` and `@`, beginning with a letter or digit, at most 64 of them
    "#);
}
