//! `command` with real programs.

use std::time::{Duration, Instant};

use domain::action::{ActionCx, ActionError, Effect};
use serde_json::{Value, json};

use super::{SECRET, World, failed, living, nothing, refused, script, unknown, until};

/// Writes its arguments to stdout, each followed by NUL, which no argument can hold.
const DUMP: &str = "#!/bin/sh\nfor arg in \"$@\"; do printf '%s\\0' \"$arg\"; done\n";

fn sh(text: &str) -> Value {
    json!({"program": "/bin/sh", "args": [{"-c": text}]})
}

/// Tells the processes of this run of the tests from those of another.
fn me() -> String {
    std::process::id().to_string()
}

#[tokio::test]
async fn exit_codes_and_output_come_back() {
    let world = World::new().await;
    let output = world.run("command", sh("echo out; echo err >&2; exit 0")).await.unwrap();
    assert_eq!(
        (output.text.as_str(), &output.data["exit"], &output.data["stdout"]),
        ("out\n--- stderr ---\nerr\n", &json!(0), &json!("out"))
    );
    assert!(failed(world.run("command", sh("echo gone wrong >&2; exit 3")).await).contains("exited with 3 after"));
    assert!(failed(world.run("command", sh("echo gone wrong >&2; exit 3")).await).ends_with("gone wrong"));
    let mut with = sh("exit 3");
    with["expect_exit"] = json!([0, 3]);
    assert_eq!(world.run("command", with).await.unwrap().data["exit"], json!(3));
    assert!(unknown(world.run("command", sh("kill -9 $$")).await).starts_with("killed by signal 9"));
}

/// Whoever was ended may have done its work before: only where a repeat does no harm is that a failure like any other.
#[tokio::test]
async fn what_was_ended_before_it_ended_by_itself_is_not_known_to_have_failed() {
    let world = World::new().await;
    for effect in [Effect::ReadOnly, Effect::Idempotent, Effect::Keyed, Effect::Checkable, Effect::AtMostOnce] {
        let told = if effect.may_repeat() { failed } else { unknown };
        let run = async |text: &str, limit: u64| {
            let cx = ActionCx { effect, ..world.cx(None, Duration::from_millis(limit)) };
            world.action("command").run(&cx, &sh(text)).await
        };
        assert!(told(run("echo done; exec sleep 60", 500).await).starts_with("timed out after"), "{effect:?}");
        assert!(told(run("kill -KILL $$", 30_000).await).starts_with("killed by signal 9"), "{effect:?}");
        assert!(failed(run("exit 3", 30_000).await).starts_with("exited with 3"), "{effect:?}");
    }
}

#[tokio::test]
async fn the_environment_is_ours_and_stdin_is_json() {
    let world = World::new().await;
    let output = world.run("command", json!({"program": "/usr/bin/env", "env": {"LABEL_SERVICE": "$(id)"}})).await.unwrap();
    let names: Vec<&str> = output.text.lines().map(|line| line.split('=').next().unwrap()).collect();
    let given = ["RUN", "STEP", "ATTEMPT", "KEY", "EXECUTION"].map(|name| format!("WATCHKEEPER_{name}"));
    for name in ["PATH", "LANG", "LABEL_SERVICE"].into_iter().chain(given.iter().map(String::as_str)) {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(names.len(), 8, "something of the server's environment got through: {names:?}");
    assert!(output.text.contains("LABEL_SERVICE=$(id)\n"));
    let document = json!({"labels": {"service": "a\nb\u{0}c"}});
    let output = world.run("command", json!({"program": "/bin/cat", "stdin": document, "cwd": "/usr"})).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&output.text).unwrap(), document);
    let output = world.run("command", json!({"program": "/bin/sh", "args": [{"-c": "pwd; cat"}], "cwd": "/usr"})).await.unwrap();
    assert_eq!(output.text, "/usr\n");
    // Who does not read its input is not waited for.
    let large = json!({"program": "/bin/sh", "args": [{"-c": "exit 0"}], "stdin": "x".repeat(900_000)});
    assert!(world.run("command", large).await.is_ok());
}

#[tokio::test]
async fn only_allowed_programs_run() {
    let world = World::new().await;
    let at = |program: &str| json!({"program": program});
    for program in ["sh", "/usr/bin/id", "/bin/../bin/sh", "/bin/sh ", "./sh", "", "/bin//sh/.."] {
        assert!(refused(world.run("command", at(program)).await).starts_with("`program`"), "{program}");
    }
    assert!(refused(world.run("command", at("/usr/bin/id")).await).contains("add it to `programs`"));
    for (name, value) in
        [("LD_PRELOAD", "/x.so"), ("PATH", "/x"), ("BASH_ENV", "/x"), ("a b", "x"), ("", "x"), ("A=B", "x"), ("A", "x\0"), ("A", "x\ny")]
    {
        assert!(
            refused(world.run("command", json!({"program": "/usr/bin/env", "env": {name: value}})).await).starts_with("`env`"),
            "{name}"
        );
    }
    assert!(refused(world.run("command", json!({"program": "/usr/bin/env", "cwd": "/usr/../etc"})).await).starts_with("`cwd`"));
    assert!(refused(world.run("command", json!({"program": "/usr/bin/env", "expect_exit": []})).await).starts_with("`expect_exit`"));
}

#[tokio::test]
async fn a_program_that_cannot_start_has_failed() {
    let world = World::with(|dir, settings| {
        settings.programs.insert(dir.join("missing"));
        settings.programs.insert(dir.join("data"));
        std::fs::write(dir.join("data"), "x").unwrap();
    })
    .await;
    for name in ["missing", "data"] {
        let program = world.dir.path().join(name);
        assert!(failed(world.run("command", json!({"program": program})).await).starts_with("cannot start "));
    }
    assert!(failed(world.run("command", json!({"program": "/usr/bin/env", "cwd": "/no/such/folder"})).await).starts_with("cannot start "));
}

/// Promise 6: whatever a label holds, it is one argument, unchanged, or the step is refused. Nothing else happens.
#[tokio::test]
async fn a_hundred_hostile_values_stay_data() {
    let world = World::with(|dir, settings| {
        settings.programs.insert(script(dir, "dump", DUMP));
    })
    .await;
    let program = world.dir.path().join("dump");
    let (mut passed, mut stopped) = (0, 0);
    for value in hostile() {
        let with = json!({"program": program, "args": ["first", value, {"--name": value}, "last"], "cwd": world.dir.path()});
        let may_pass = !value.starts_with('-') && !value.contains(['\0', '\n', '\r']) && value.len() <= 8192;
        match world.run("command", with).await {
            Ok(output) => {
                assert!(may_pass, "{value:?} got through");
                // The dump is shown with its NULs visible; they stand where one argument ends.
                let glued = format!("--name={value}");
                let wanted = domain::text::clean_block(&["first", &value, &glued, "last", ""].join("\0"), usize::MAX);
                assert_eq!(output.text, wanted, "{value:?}");
                passed += 1;
            }
            Err(ActionError::Refused(problem)) => {
                assert!(!may_pass, "{value:?}: {problem}");
                assert!(problem.starts_with("`args`, element 2: ") && problem.len() < 300, "{problem}");
                stopped += 1;
            }
            other => panic!("{value:?}: {other:?}"),
        }
    }
    assert!(passed >= 50 && stopped >= 25, "{passed} passed, {stopped} were refused");
    let left: Vec<_> = std::fs::read_dir(world.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "a value did something: {left:?}");
}

fn hostile() -> Vec<String> {
    let mut values: Vec<String> = [
        "$(touch pwned)",
        "`touch pwned`",
        "; touch pwned",
        "&& touch pwned",
        "|| touch pwned",
        "| tee pwned",
        "> pwned",
        ">> pwned",
        "< /etc/passwd",
        "& touch pwned",
        "${IFS}touch${IFS}pwned",
        "$PATH",
        "${HOME}",
        "~root",
        "*",
        "?",
        "[a-z]*",
        "{a,b}",
        "!!",
        "#x",
        "\\",
        "\\\\",
        "'",
        "\"",
        "'; touch pwned; '",
        "\"; touch pwned; \"",
        "a b",
        " a",
        "a ",
        "\t",
        "",
        "%s%n%x",
        "%00",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "file:///etc/passwd",
        "{{ 7 * 7 }}",
        "{% include 'x' %}",
        "${jndi:ldap://x}",
        "@everyone",
        "<!channel>",
        "<script>alert(1)</script>",
        "' OR '1'='1",
        "x=y",
        "+x",
        "=1+1",
        "é\u{301}",
        "\u{202e}gpj.exe",
        "\u{200b}",
        "\u{feff}",
        "\u{1b}[31m",
        "\u{7}",
        "\u{8}",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{fffd}",
        "𝕏",
        "(){ :; }; touch pwned",
        "a\u{0}b",
    ]
    .map(str::to_owned)
    .to_vec();
    let tails = ["", "-", "rf", "-help", "-name=x", "o ProxyCommand=touch pwned", "1", "e", "\u{2013}", " ", "-\u{0}", "c touch pwned"];
    values.extend(tails.map(|tail| format!("-{tail}")));
    for line_end in ["\n", "\r", "\r\n", "\0"] {
        for text in ["", "touch pwned", "-rf", "$(touch pwned)"] {
            values.push(format!("x{line_end}{text}"));
        }
    }
    values.extend([1000, 8192, 8193, 100_000, 1_000_000].map(|n| "A".repeat(n)));
    values.extend([4, 255, 4096].map(|n| "../".repeat(n)));
    values.extend((0..10).map(|n| format!("{}$(touch pwned{n})", "\u{1f4a5}".repeat(n))));
    assert!(values.len() >= 100, "{}", values.len());
    values
}

#[tokio::test]
async fn a_chatty_program_is_not_held_up_and_its_secrets_do_not_get_out() {
    let world = World::new().await;
    let text = format!(
        "echo begin {SECRET}; i=0; while [ $i -lt 3000 ]; do printf '%01000d' $i; i=$((i+1)); done; echo; echo {SECRET} end; echo {SECRET} >&2"
    );
    let output = world.run("command", sh(&text)).await.unwrap();
    assert!(output.text.starts_with("begin [redacted]\n") && output.text.contains("bytes left out"));
    assert!(output.text.contains("\n[redacted] end\n--- stderr ---\n[redacted]\n") && !output.text.contains(SECRET));
    assert!(output.text.len() < 140_000 && output.data["cut"] == json!(true));
    assert!(failed(world.run("command", sh(&format!("echo {SECRET}; exit 1"))).await).ends_with(":\n[redacted]"));
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group() {
    let world = World::new().await;
    let with = json!({"program": "/bin/sh", "args": [{"-c": "sleep 300 & sleep 300 & echo started; wait"}], "env": {"TIMEOUT_TEST": me()}});
    let began = Instant::now();
    let outcome = world.run_on("command", with, None, Duration::from_secs(4)).await;
    let problem = unknown(outcome);
    assert!(problem.starts_with("timed out after ") && problem.ends_with("started"), "{problem}");
    assert!(began.elapsed() < Duration::from_secs(13), "TERM was not enough");
    assert_eq!(living(&format!("TIMEOUT_TEST={}", me())), 0);
}

#[tokio::test]
async fn dropping_the_future_of_what_only_looks_ends_its_group() {
    let world = World::new().await;
    let with = json!({"program": "/bin/sh", "args": [{"-c": "sleep 300 & wait"}], "env": {"DROP_TEST": me()}});
    let cx = ActionCx { effect: Effect::ReadOnly, ..world.cx(None, Duration::from_secs(300)) };
    let dropped = tokio::time::timeout(Duration::from_millis(400), world.action("command").run(&cx, &with)).await;
    assert!(dropped.is_err());
    until("the group is gone", || living(&format!("DROP_TEST={}", me())) == 0).await;
}

/// A runtime that stops while a command that only looks runs: nobody is left to wait 10 s, so the group is killed at once.
#[test]
fn a_runtime_that_stops_takes_its_programs_along() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let cx = ActionCx { effect: Effect::ReadOnly, ..world.cx(None, Duration::from_secs(300)) };
    let world = std::sync::Arc::new(world);
    let owned = world.clone();
    runtime.spawn(async move {
        let with =
            json!({"program": "/bin/sh", "args": [{"-c": "trap '' TERM; while :; do sleep 1; done"}], "env": {"RUNTIME_TEST": me()}});
        owned.action("command").run(&cx, &with).await
    });
    runtime.block_on(until("it runs", || living(&format!("RUNTIME_TEST={}", me())) > 0));
    runtime.shutdown_timeout(Duration::from_secs(2));
    tokio::runtime::Runtime::new().unwrap().block_on(until("it is gone", || living(&format!("RUNTIME_TEST={}", me())) == 0));
}

#[tokio::test]
async fn what_a_program_leaves_behind_in_its_group_ends_with_it() {
    let world = World::new().await;
    let with = json!({"program": "/bin/sh", "args": [{"-c": "sleep 300 & echo done"}], "env": {"LEFT_TEST": me()}});
    let began = Instant::now();
    let output = world.run("command", with).await.unwrap();
    assert_eq!(output.text, "done\n");
    assert!(began.elapsed() < Duration::from_secs(9), "TERM was not enough");
    assert_eq!(living(&format!("LEFT_TEST={}", me())), 0);
}

#[tokio::test]
async fn a_deadline_that_has_passed_leaves_no_time() {
    let world = World::new().await;
    let outcome = world.run_on("command", json!({"program": "/bin/sleep", "args": [300]}), None, Duration::ZERO).await;
    assert!(unknown(outcome).starts_with("timed out"));
    assert!(world.action("command").check(&nothing(), None).unwrap_err().contains("`program`"));
}
