//! What is said about every kind of mistake, and where.

use insta::assert_snapshot;

use super::{SECRET, problems};

#[test]
fn findings_of_both_parts_come_together() {
    let text = "server: { listen: '0.0.0.0:80' }\nroutes: [{ mach: 'a=\"b\"' }]\n";
    assert_snapshot!(problems(text), @r#"
    a.yaml:1:19: listening on 0.0.0.0:80 would let secrets and sessions travel in the clear
      1 | server: { listen: '0.0.0.0:80' }
        |                   ^^^^^^^^^^^^
      help: give `tls: { cert_file: .., key_file: .. }`, or name the proxy in front: `trusted_proxy: [ADDRESS]`, or, where the network itself is trusted, write `insecure: true`
    a.yaml:2:12: unknown key `mach`
      2 | routes: [{ mach: 'a="b"' }]
        |            ^^^^
      help: did you mean `match`?
    "#);
}

#[test]
fn our_own_names_are_no_names_for_sources() {
    let text = "sources:\n  watchkeeper: { kind: alertmanager, auth: { bearer: '${TOKEN}' } }\n  api: { kind: alertmanager }\n  unknown: { kind: x }\n  \
                keyed: { kind: alertmanager, auth: { ed25519: { public_key: abc } } }\n";
    assert_snapshot!(problems(text), @r"
    a.yaml:2:3: a source may not be called `watchkeeper`: that is the source of Watchkeeper's alerts about itself
      2 |   watchkeeper: { kind: alertmanager, auth: { bearer: '${TOKEN}' } }
        |   ^^^^^^^^^^^
      help: give the source another name, and change the address in its sender
    a.yaml:3:3: a source may not be called `api`: that is how refused callers of the API are counted
      3 |   api: { kind: alertmanager }
        |   ^^^
      help: give the source another name, and change the address in its sender
    a.yaml:4:3: a source may not be called `unknown`: that is how refused senders to sources that do not exist are counted
      4 |   unknown: { kind: x }
        |   ^^^^^^^
      help: give the source another name, and change the address in its sender
    a.yaml:5:32: an Ed25519 public key is 64 hexadecimal digits
      5 |   keyed: { kind: alertmanager, auth: { ed25519: { public_key: abc } } }
        |                                ^^^^
    ");
}

#[test]
fn mistakes_about_the_way_in() {
    let text = r#"
server: { listen: here, trusted_proxy: [0.0.0.0/0], tls: { cert: x }, lisen: 1 }
sources:
  am: { kind: alertmanger, auth: { bearer_file: x } }
  open: { kind: alertmanager }
  weak: { kind: alertmanager, auth: {} }
  hub: { kind: generic, auth: { hmac: { form: github, secret: '${NOPE}' } }, map: { labels: { alertname: 'body.' } } }
  odd: { kind: generic, auth: { hmac: { form: standard-webhooks, secret: '${TOKEN}' } }, map: { labels: {} } }
  bare: { kind: generic, auth: { bearer: '${TOKEN}' } }
  more: { kind: alertmanager, auth: { bearer: ['${TOKEN}', '${TOKEN}', '${TOKEN}'] }, map: { labels: { a: body.a } } }
"#;
    assert_snapshot!(problems(text), @r#"
    a.yaml:2:53: the key `cert_file` is missing
      2 | server: { listen: here, trusted_proxy: [0.0.0.0/0], tls: { cert: x }, lisen: 1 }
        |                                                     ^^^
    a.yaml:2:60: unknown key `cert`
      2 | server: { listen: here, trusted_proxy: [0.0.0.0/0], tls: { cert: x }, lisen: 1 }
        |                                                            ^^^^
      help: known here: cert_file, key_file
    a.yaml:2:71: unknown key `lisen`
      2 | server: { listen: here, trusted_proxy: [0.0.0.0/0], tls: { cert: x }, lisen: 1 }
        |                                                                       ^^^^^
      help: did you mean `listen`?
    a.yaml:4:15: there is no kind of source `alertmanger`
      4 |   am: { kind: alertmanger, auth: { bearer_file: x } }
        |               ^^^^^^^^^^^
      help: did you mean `alertmanager`?
    a.yaml:5:3: the source `open` has no secret: anybody could send alerts to it
      5 |   open: { kind: alertmanager }
        |   ^^^^
      help: write `auth: { bearer_file: FILE }`, or `bearer: '${NAME}'`; make a secret with `openssl rand -base64 32`
    a.yaml:6:31: the source `weak` has no secret: anybody could send alerts to it
      6 |   weak: { kind: alertmanager, auth: {} }
        |                               ^^^^
      help: write `auth: { bearer_file: FILE }`, or `bearer: '${NAME}'`; make a secret with `openssl rand -base64 32`
    a.yaml:7:63: the environment variable `NOPE` is not set, or empty
      7 |   hub: { kind: generic, auth: { hmac: { form: github, secret: '${NOPE}' } }, map: { labels: { alertname: 'body.' } } }
        |                                                               ^^^^^^^^^
      help: set it where the server is started (systemd `EnvironmentFile=`, compose `environment:`), or use a file
    a.yaml:7:106: this expression does not compile: line 1, column 6: no viable alternative at input '.'
      7 |   hub: { kind: generic, auth: { hmac: { form: github, secret: '${NOPE}' } }, map: { labels: { alertname: 'body.' } } }
        |                                                                                                          ^^^^^^^
    a.yaml:8:25: a Standard Webhooks secret is `whsec_` and the base64 of 24 to 64 bytes
      8 |   odd: { kind: generic, auth: { hmac: { form: standard-webhooks, secret: '${TOKEN}' } }, map: { labels: {} } }
        |                         ^^^^
    a.yaml:8:105: say at least one label, `alertname` above all
      8 |   odd: { kind: generic, auth: { hmac: { form: standard-webhooks, secret: '${TOKEN}' } }, map: { labels: {} } }
        |                                                                                                         ^
    a.yaml:9:3: a generic source needs a `map`: how its JSON becomes alerts
      9 |   bare: { kind: generic, auth: { bearer: '${TOKEN}' } }
        |   ^^^^
      help: write `map: { labels: { alertname: '"Name"', service: body.service } }`
    a.yaml:10:31: more than two bearer secrets: remove those that no sender uses any more
      10 |   more: { kind: alertmanager, auth: { bearer: ['${TOKEN}', '${TOKEN}', '${TOKEN}'] }, map: { labels: { a: body.a } } }
         |                               ^^^^
    a.yaml:10:87: a source of kind `alertmanager` has no `map`
      10 |   more: { kind: alertmanager, auth: { bearer: ['${TOKEN}', '${TOKEN}', '${TOKEN}'] }, map: { labels: { a: body.a } } }
         |                                                                                       ^^^
      help: remove it, or change `kind` to generic
    "#);
}

#[test]
fn mistakes_with_secrets() {
    let text = r#"
sources:
  literal: { kind: alertmanager, auth: { bearer: do-not-write-this } }
  both: { kind: alertmanager, auth: { bearer: '${TOKEN}', bearer_file: x } }
  empty: { kind: alertmanager, auth: { bearer: '${EMPTY}' } }
  short: { kind: alertmanager, auth: { bearer: '${SHORT}' } }
  gone: { kind: alertmanager, auth: { bearer_file: nothing } }
  blank: { kind: alertmanager, auth: { bearer_file: empty } }
  unclosed: { kind: alertmanager, auth: { bearer: '${TOKEN' } }
store: { url: 'postgres://u:do-not-write-this@h/d' }
telemetry: { metrics_token: [ '${TOKEN}' ] }
server: { insecure: '${TOKEN}' }
"#;
    let told = problems(text);
    assert!(!told.contains("do-not-write-this") && !told.contains(SECRET), "{told}");
    assert_snapshot!(told, @"
    a.yaml:3:42: `bearer` is a secret and may not stand in this file
      help: write `bearer: '${NAME}'` and set that environment variable, or `bearer_file: PATH`
    a.yaml:4:59: `bearer` is given twice: here as a file
      4 |   both: { kind: alertmanager, auth: { bearer: '${TOKEN}', bearer_file: x } }
        |                                                           ^^^^^^^^^^^
      help: keep either `bearer` or `bearer_file`
    a.yaml:5:48: the environment variable `EMPTY` is not set, or empty
      5 |   empty: { kind: alertmanager, auth: { bearer: '${EMPTY}' } }
        |                                                ^^^^^^^^^^
      help: set it where the server is started (systemd `EnvironmentFile=`, compose `environment:`), or use a file
    a.yaml:6:48: this secret is shorter than 6 bytes
      6 |   short: { kind: alertmanager, auth: { bearer: '${SHORT}' } }
        |                                                ^^^^^^^^^^
      help: make one with `openssl rand -base64 32`
    a.yaml:7:52: the secret's file nothing cannot be read: entity not found
      7 |   gone: { kind: alertmanager, auth: { bearer_file: nothing } }
        |                                                    ^^^^^^^
      help: put the secret there, readable by this user only, or correct the path
    a.yaml:8:53: this secret is empty
      8 |   blank: { kind: alertmanager, auth: { bearer_file: empty } }
        |                                                     ^^^^^
      help: make one with `openssl rand -base64 32`
    a.yaml:9:51: a `${` is not closed
      9 |   unclosed: { kind: alertmanager, auth: { bearer: '${TOKEN' } }
        |                                                   ^^^^^^^^^
      help: write `${NAME}`, or `$${` for the two characters themselves
    a.yaml:10:1: on PostgreSQL the `button` key must be named: every server needs the same one
      help: make one with `openssl rand -hex 32`, put it on every server, and write `keys: { button: [FILE] }`
    a.yaml:10:1: on PostgreSQL the `session` key must be named: every server needs the same one
      help: make one with `openssl rand -hex 32`, put it on every server, and write `keys: { session: [FILE] }`
    a.yaml:10:1: on PostgreSQL the `audit` key must be named: every server needs the same one
      help: make one with `openssl rand -hex 32`, put it on every server, and write `keys: { audit: [FILE] }`
    a.yaml:10:15: a password may not stand in this file
      help: write ${NAME} in the place of the password and set that environment variable
    a.yaml:11:29: expected text, found a list
      11 | telemetry: { metrics_token: [ '${TOKEN}' ] }
         |                             ^
    a.yaml:12:21: the value that was put in here is not acceptable (it is not shown: it may be a secret)
      12 | server: { insecure: '${TOKEN}' }
         |                     ^^^^^^^^^^
      help: look at the environment variable or file that it comes from
    ");
}

#[test]
fn mistakes_about_chat_and_bus() {
    let text = r#"
slack: { team_id: acme, bot_token_file: t, signing_secret: ['${TOKEN}', '${TOKEN}', '${TOKEN}'], api_url: http://example.com }
discord: { application_id: app, public_key: zz, bot_token: '${TOKEN}', guild_id: '12' }
principals: { ann: { roles: [admin], discord: 13/1 } }
nats:
  url: http://x
  subscriptions:
    nobody: { stream: 'a b', subjects: [task.] }
    am: { stream: A, subjects: a, durable: 'x.y' }
sources: { am: { kind: alertmanager } }
"#;
    assert_snapshot!(problems(text), @r#"
    a.yaml:2:19: "acme" is no Slack workspace
      2 | slack: { team_id: acme, bot_token_file: t, signing_secret: ['${TOKEN}', '${TOKEN}', '${TOKEN}'], api_url: http://example
        |                   ^^^^
      help: it is the T… in the address of the workspace, and in `auth.test`
    a.yaml:2:60: Slack signs with one secret
      2 | cme, bot_token_file: t, signing_secret: ['${TOKEN}', '${TOKEN}', '${TOKEN}'], api_url: http://example.com }
        |                                         ^
      help: give one, or two while it is being changed
    a.yaml:2:107: the token may only go to an https:// address, or to this machine
      2 | EN}', '${TOKEN}', '${TOKEN}'], api_url: http://example.com }
        |                                         ^^^^^^^^^^^^^^^^^^
      help: leave it out: the default is https://slack.com/api
    a.yaml:3:28: "app" is no Discord id
      3 | discord: { application_id: app, public_key: zz, bot_token: '${TOKEN}', guild_id: '12' }
        |                            ^^^
      help: turn on Discord's developer mode, then right-click and copy the id: a long number
    a.yaml:3:45: this is no public key of a Discord application
      3 | discord: { application_id: app, public_key: zz, bot_token: '${TOKEN}', guild_id: '12' }
        |                                             ^^
      help: copy it from the application's page: 64 hex digits
    a.yaml:4:47: `ann` is linked to another discord workspace
      4 | principals: { ann: { roles: [admin], discord: 13/1 } }
        |                                               ^^^^
      help: only 12 is configured: people of other workspaces are strangers
    a.yaml:6:8: this is no address of a NATS server
      6 |   url: http://x
        |        ^^^^^^^^
      help: write nats://HOST:4222, or tls://HOST:4222
    a.yaml:8:5: there is no source `nobody`
      8 |     nobody: { stream: 'a b', subjects: [task.] }
        |     ^^^^^^
      help: known here: am
    a.yaml:8:23: "a b" cannot be the name of a stream or consumer
      8 |     nobody: { stream: 'a b', subjects: [task.] }
        |                       ^^^^^
      help: use letters, digits, `-` and `_`
    a.yaml:8:40: this is no NATS subject
      8 |     nobody: { stream: 'a b', subjects: [task.] }
        |                                        ^
      help: words with dots between them; `*` stands for one word, `>` at the end for all that follow
    a.yaml:9:5: the source `am` has no `map`
      9 |     am: { stream: A, subjects: a, durable: 'x.y' }
        |     ^^
      help: messages of the bus are mapped by the `map` of a source of kind generic
    a.yaml:9:44: "x.y" cannot be the name of a stream or consumer
      9 |     am: { stream: A, subjects: a, durable: 'x.y' }
        |                                            ^^^^^
      help: use letters, digits, `-` and `_`
    "#);
    assert_snapshot!(problems("channels: { d: { platform: discord, id: 1 } }\n"), @"
    a.yaml:1:28: the channel `d` is on discord, and nothing says how to reach it
      1 | channels: { d: { platform: discord, id: 1 } }
        |                            ^^^^^^^
      help: add the section `discord:`, see deploy/watchkeeper.example.yaml
    ");
}

#[test]
fn mistakes_about_operations() {
    let text = r#"
include: packs
store: { url: 'mysql://h' }
programs: [df]
egress: ['nope:99999']
tools: { docker: docker }
log: { level: 'a=b=c', format: jsn }
heartbeat: { url: ftp://x, every: 1s }
keys: { button: [a, b, c] }
"#;
    assert_snapshot!(problems(text), @r#"
    a.yaml:2:10: `include` is a list of paths
      2 | include: packs
        |          ^^^^^
      help: write `include: [packs/*.yaml]`
    a.yaml:3:15: the address of the store begins neither with sqlite: nor with postgres://
      3 | store: { url: 'mysql://h' }
        |               ^^^^^^^^^^^
      help: known here: postgres, sqlite
    a.yaml:4:12: `df` is no absolute path
      4 | programs: [df]
        |            ^^
      help: write the whole path: nothing is looked up in PATH
    a.yaml:5:10: "nope:99999" is no destination: the port is not a number from 1 to 65535; write HOST, HOST:PORT, HOST:*, 10.0.0.0/8:PORT or [::1]:PORT
      5 | egress: ['nope:99999']
        |          ^^^^^^^^^^^^
    a.yaml:6:18: `docker` is no absolute path
      6 | tools: { docker: docker }
        |                  ^^^^^^
    a.yaml:7:32: `jsn` is none of auto, json, text
      7 | log: { level: 'a=b=c', format: jsn }
        |                                ^^^
      help: did you mean `json`?
    a.yaml:8:19: `url` is no HTTP address
      8 | heartbeat: { url: ftp://x, every: 1s }
        |                   ^^^^^^^
      help: begin with https:// or http://
    a.yaml:8:35: a sign of life more often than every 5s helps nobody
      8 | heartbeat: { url: ftp://x, every: 1s }
        |                                   ^^
    a.yaml:9:9: more than two keys for `button`
      9 | keys: { button: [a, b, c] }
        |         ^^^^^^
      help: keep the one in use and the one before it
    "#);
}
