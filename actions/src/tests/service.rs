//! `service.restart`, `service.status` and `collect.bundle`.
//!
//! No engine of containers and no systemd runs where these tests do. For those two kinds stand-in programs take the place of `systemctl`
//! and `docker`: scripts that record how they are called and print what the real programs print. Processes are real.

use std::fs;
use std::path::Path;
use std::time::Duration;

use domain::plan::Target;
use serde_json::{Value, json};

use super::server::Server;
use super::{SECRET, World, failed, nothing, refused, script, target, unknown};

const LIMIT: Duration = Duration::from_secs(20);

/// Writes a stand-in that notes its arguments, one line per call, and then does `then`.
fn stand_in(dir: &Path, name: &str, then: &str) {
    let calls = dir.join(format!("{name}.calls"));
    script(dir, name, &format!("#!/bin/sh\nprintf '<%s>' \"$@\" >> {0}\necho >> {0}\n{then}\n", calls.display()));
}

fn calls(dir: &Path, name: &str) -> Vec<String> {
    fs::read_to_string(dir.join(format!("{name}.calls"))).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn process(world: &World, fields: Value) -> Target {
    let mut all = json!({"program": "/bin/sh", "args": ["-c", "echo up; sleep 300"], "grace": "2s", "cwd": world.dir.path()});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    target("api", "process", all)
}

#[tokio::test]
async fn a_process_is_restarted_and_its_state_told() {
    let world = World::new().await;
    let api = process(&world, nothing());
    let status = async |with: Value| world.run_on("service.status", with, Some(&api), LIMIT).await;
    assert_eq!(failed(status(nothing()).await), "api: stopped");
    assert_eq!(status(json!({"expect": "stopped"})).await.unwrap().data["state"], json!("stopped"));
    let output = world.run_on("service.restart", nothing(), Some(&api), LIMIT).await.unwrap();
    let pid = output.data["pid"].as_i64().unwrap();
    assert_eq!(output.summary, format!("api restarted as process {pid}"));
    let running = status(nothing()).await.unwrap();
    assert!(running.summary.starts_with(&format!("api: running as process {pid} for ")) && running.data["pid"] == json!(pid));
    // Who comes when the time is over restarts nothing.
    assert!(failed(world.run_on("service.restart", nothing(), Some(&api), Duration::ZERO).await).starts_with("api was not restarted"));
    assert_eq!(status(nothing()).await.unwrap().data["pid"], json!(pid));
    world.supervisor.stop(&api).await.unwrap();
}

#[tokio::test]
async fn systemctl_is_called_by_the_unit_alone() {
    let world = World::new().await;
    let dir = world.dir.path();
    let unit = target("api", "systemd", json!({"unit": "api@1"}));
    stand_in(
        dir,
        "systemctl",
        "printf 'MainPID=812\\nNRestarts=0\\nResult=success\\nLoadState=loaded\\nActiveState=active\\nSubState=running\\n'",
    );
    assert_eq!(world.run_on("service.restart", nothing(), Some(&unit), LIMIT).await.unwrap().summary, "api@1.service restarted");
    let output = world.run_on("service.status", nothing(), Some(&unit), LIMIT).await.unwrap();
    assert_eq!(output.summary, "api@1.service: active (running), process 812");
    assert_eq!(
        calls(dir, "systemctl"),
        [
            "<restart><--no-ask-password><api@1.service>",
            "<show><-p><LoadState,ActiveState,SubState,MainPID,NRestarts,Result><api@1.service>"
        ]
    );
    let words = format!("echo 'Job for api@1.service failed because the control process exited with error code. {SECRET}' >&2; exit 1");
    stand_in(dir, "systemctl", &words);
    let problem = failed(world.run_on("service.restart", nothing(), Some(&unit), LIMIT).await);
    assert!(problem.starts_with("systemctl: exit code 1: Job for api@1.service failed") && problem.ends_with("[redacted]"), "{problem}");
    stand_in(dir, "systemctl", "printf 'MainPID=0\\nLoadState=loaded\\nActiveState=failed\\nSubState=failed\\n'");
    assert_eq!(failed(world.run_on("service.status", nothing(), Some(&unit), LIMIT).await), "api@1.service: failed (failed)");
}

#[tokio::test]
async fn docker_is_called_by_file_and_service_alone() {
    let world = World::new().await;
    let dir = world.dir.path();
    let api = target("api", "compose", json!({"file": "/srv/my app/compose.yml", "service": "api", "project": "shop"}));
    // In the form of Compose 2.38.
    let line = r#"{"Command":"\"/api\"","CreatedAt":"2026-09-26 16:06:45 +0000 UTC","ExitCode":0,"Health":"","ID":"cda25c4a11fd","Image":"api:1","Name":"shop-api-1","Publishers":[{"URL":"0.0.0.0","TargetPort":8080,"PublishedPort":8080,"Protocol":"tcp"}],"Service":"api","State":"running","Status":"Up 3 seconds"}"#;
    stand_in(dir, "docker", &format!("case \"$*\" in *' ps '*) cat <<'END'\n{line}\nEND\n;; esac"));
    assert_eq!(world.run_on("service.restart", nothing(), Some(&api), LIMIT).await.unwrap().summary, "api restarted");
    let output = world.run_on("service.status", nothing(), Some(&api), LIMIT).await.unwrap();
    assert_eq!(
        (output.summary.as_str(), &output.data["detail"]["containers"][0]["state"]),
        ("api: shop-api-1 Up 3 seconds", &json!("running"))
    );
    let common = "<compose><-f></srv/my app/compose.yml><-p><shop>";
    assert_eq!(calls(dir, "docker"), [format!("{common}<restart><api>"), format!("{common}<ps><--all><--format><json><api>")]);
    stand_in(dir, "docker", "echo 'no such service: api' >&2; exit 1");
    assert_eq!(failed(world.run_on("service.status", nothing(), Some(&api), LIMIT).await), "docker: exit code 1: no such service: api");
}

#[tokio::test]
async fn a_manager_that_does_not_answer_leaves_a_restart_unknown() {
    let world = World::new().await;
    stand_in(world.dir.path(), "systemctl", "sleep 300");
    let unit = target("api", "systemd", json!({"unit": "api"}));
    let limit = Duration::from_millis(400);
    assert!(unknown(world.run_on("service.restart", nothing(), Some(&unit), limit).await).contains("may still happen"));
    // To have only looked is no reason to ask a person.
    assert!(failed(world.run_on("service.status", nothing(), Some(&unit), limit).await).contains("did not answer"));
    let api = target("api", "compose", json!({"file": "/x.yml", "service": "api"}));
    assert!(failed(world.run_on("service.restart", nothing(), Some(&api), LIMIT).await).contains("is it installed"));
}

#[tokio::test]
async fn a_target_must_be_a_service() {
    let world = World::new().await;
    for name in ["service.restart", "service.status"] {
        let check = |target: Option<&Target>| world.action(name).check(&nothing(), target).unwrap_err();
        assert!(check(None).contains("needs a `target`"));
        assert!(check(Some(&target("x", "http", json!({"url": "http://x/"})))).contains("one of process, systemd, compose"));
        assert!(check(Some(&target("x", "process", json!({"program": "sleep"})))).contains("absolute"));
        assert!(check(Some(&target("../x", "process", json!({"program": "/bin/sleep"})))).contains("letters, digits"));
        assert!(check(Some(&target("x", "systemd", json!({"unit": "-x; id"})))).contains("no name of a unit"));
        assert!(check(Some(&target("x", "compose", json!({"file": "/x"})))).contains("lacks `service`"));
        assert!(refused(world.run_on(name, nothing(), None, LIMIT).await).contains("needs a `target`"));
    }
}

#[tokio::test]
async fn a_bundle_holds_what_can_be_had() {
    let world = World::new().await;
    let server = Server::json(503, &format!(r#"{{"status":"unhealthy","dsn":"postgres://app:{SECRET}@db/app"}}"#)).await;
    let log = world.dir.path().join("app.log");
    let lines: Vec<String> = (1..=500).map(|n| format!("line {n} {SECRET}")).collect();
    fs::write(&log, lines.join("\n")).unwrap();
    let api = process(&world, json!({"health_url": server.url("/health"), "log_file": [log, "/no/such.log", "/dev/zero", "relative.log"]}));
    let pid = world.supervisor.ensure(&api).await.unwrap().pid.unwrap();
    let output = world.run_on("collect.bundle", json!({"lines": 3}), Some(&api), LIMIT).await.unwrap();
    let text = &output.text;
    assert_eq!(output.summary, "6 of 9 parts of evidence about api");
    for part in [
        &format!("== service ==\napi: running as process {pid} for "),
        "== health ==\n503 in ",
        "\"status\":\"unhealthy\"",
        &format!("== process {pid} ==\n{pid} (parent "),
        "open files",
        "sleep 300",
        "== host ==\nload ",
        "MemAvailable:",
        "disk of /: ",
        ".log ==\nline 498 [redacted]\nline 499 [redacted]\nline 500 [redacted]\n",
        "api.log ==\nup\n",
        "== log /no/such.log ==\nnot to be had: No such file",
        "== log /dev/zero ==\nnot to be had: it is not a plain file",
        "== log relative.log ==\nnot to be had: it must be an absolute path",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains("line 497") && !text.contains(SECRET));
    world.supervisor.stop(&api).await.unwrap();
}

#[tokio::test]
async fn a_bundle_of_a_dead_target_is_still_a_bundle() {
    let world = World::new().await;
    let api = target("api", "compose", json!({"file": "/x.yml", "service": "api", "health_url": "http://127.0.0.1:1/"}));
    let text = world.run_on("collect.bundle", nothing(), Some(&api), LIMIT).await.unwrap().text;
    assert!(
        text.contains("== service ==\nnot to be had: cannot start ")
            && text.contains("== health ==\nnot to be had: http://127.0.0.1:1: cannot connect")
    );
    assert!(text.contains("== host ==\nload "));
    let odd = target("disk", "volume", nothing());
    assert_eq!(world.run_on("collect.bundle", nothing(), Some(&odd), LIMIT).await.unwrap().summary, "1 of 1 parts of evidence about disk");
    assert!(refused(world.run_on("collect.bundle", json!({"lines": 1001}), Some(&odd), LIMIT).await).contains("`lines`"));
}
